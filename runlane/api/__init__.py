"""The HTTP API: the seed's own routes in front of durable runs, and Runlane's beside them."""
