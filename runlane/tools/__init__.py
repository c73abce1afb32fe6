"""Tools: code that answers a run's calls, declared once and handed to runs by their schemas."""
