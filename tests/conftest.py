"""Fixtures shared by all tiers."""

pytest_plugins = [
    "tests.ledgers",
    "tests.simulator_process",
    "tests.temporal_server",
    "tests.lab",
    "tests.processes",
    "tests.restless",
    "tests.otlp_receiver",
]
