"""The metrics of this process that are counted where things happen.

By prometheus-client itself and not by Temporal's meters: these show 0 from the start, so that the
first error is an increase, and nothing of them is dropped when nobody drains a buffer.
"""

from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from runsapi import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    Exchange,
    HeldBackError,
    RunsAPIError,
    is_quota,
)

# Else a second series for each, with the time at which this process began to count.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
REGISTRY = CollectorRegistry()

OPERATIONS = (
    "runs.create",
    "runs.retrieve",
    "runs.list",
    "runs.submit_tool_outputs",
    "runs.cancel",
    "runs.update",
    "steps.list",
)
"""What a worker asks of an upstream."""
ERROR_KINDS = (
    "held_back",
    "connection",
    "timeout",
    "credentials",
    "quota",
    "not_found",
    "rate_limited",
    "refused",
    "server_error",
    "unreadable",
)
NOTICE_OUTCOMES = ("taken", "gone", "not_taken")

UPSTREAM_SECONDS = Histogram(
    "runlane_upstream_request_duration_seconds",
    "Time from a request to the upstream until its answer was read; refused and failed "
    "ones not included.",
    ["operation"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 90, 300, 600),
    registry=REGISTRY,
)
UPSTREAM_ERRORS = Counter(
    "runlane_upstream_errors",
    "Requests to the upstream that failed, by what went wrong.",
    ["operation", "kind"],
    registry=REGISTRY,
)
POLLS = Counter(
    "runlane_polls",
    "How often an upstream run was read, by attached polls and by timers alike.",
    registry=REGISTRY,
)
RECREATIONS = Counter(
    "runlane_recreations",
    "Upstream runs created in place of one that had expired.",
    registry=REGISTRY,
)
NOTICES = Counter(
    "runlane_notices",
    "Tries to hand a notice to a webhook, by what came of it.",
    ["outcome"],
    registry=REGISTRY,
)
BUILD = Gauge("runlane_build_info", "Always 1.", ["version"], registry=REGISTRY)

ProcessCollector(registry=REGISTRY)
BUILD.labels(version("runlane")).set(1)
for _outcome in NOTICE_OUTCOMES:
    NOTICES.labels(_outcome)
for _operation in OPERATIONS:
    UPSTREAM_SECONDS.labels(_operation)
    for _kind in ERROR_KINDS:
        UPSTREAM_ERRORS.labels(_operation, _kind)


def count_exchange(exchange: Exchange) -> None:
    """Count a request to the upstream and how it ended."""
    operation = exchange.operation if exchange.operation in OPERATIONS else "other"
    if operation == "runs.retrieve":
        POLLS.inc()
    if exchange.error is not None:
        UPSTREAM_ERRORS.labels(operation, error_kind(exchange.error)).inc()
    elif exchange.seconds is not None:
        UPSTREAM_SECONDS.labels(operation).observe(exchange.seconds)


def error_kind(error: RunsAPIError) -> str:  # noqa: PLR0911 - a table of cases
    """Return one of `ERROR_KINDS`."""
    if isinstance(error, HeldBackError):
        return "held_back"
    if isinstance(error, APITimeoutError):
        return "timeout"
    if isinstance(error, APIConnectionError):
        return "connection"
    if isinstance(error, APIResponseError):
        return "unreadable"
    if not isinstance(error, APIStatusError):
        return "refused"
    if is_quota(error):
        return "quota"
    if error.status_code >= 500:
        return "server_error"
    named = {401: "credentials", 403: "credentials", 404: "not_found", 429: "rate_limited"}
    return named.get(error.status_code, "refused")
