"""The Runs protocol: models, errors, the HTTP client of an upstream, and a simulator of one."""
