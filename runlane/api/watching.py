"""What the API shows of its own work: one line in the log and figures, for each request.

Neither holds a query, a body, or a path as it was asked for: routes stand there as templates.
"""

import logging
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runlane.api.access import TOKEN_IN_SCOPE
from runlane.api.hardening import send_marked
from runlane.api.refusals import answer, unexpected
from runlane.monitoring import metrics  # noqa: F401 - it sets what all metrics have in common

REGISTRY = CollectorRegistry()
NO_ROUTE = "none"
"""In place of a route, where none matches."""
UNANSWERED = 499
"""In place of a status, where the request was cut off before there was one."""

REQUESTS = Counter(
    "runlane_api_requests",
    "Requests to the HTTP API that ended, by route and status; 499: cut off before.",
    ["route", "method", "status"],
    registry=REGISTRY,
)
SECONDS = Histogram(
    "runlane_api_request_duration_seconds",
    "Time from a request to the HTTP API until its answer began.",
    ["route", "method"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    registry=REGISTRY,
)
UNDER_WAY = Gauge(
    "runlane_api_requests_under_way",
    "Requests to the HTTP API that have not ended, streams included.",
    registry=REGISTRY,
)

_METHODS = ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS")
_PROBES = ("/healthz", "/readyz", "/metrics")
_logger = logging.getLogger("runlane.api")


class Watching:
    """ASGI middleware: counts and logs, and answers where the app has failed to."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand in front of `app`, and of all other middleware."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_at = time.monotonic()
        status = UNANSWERED
        seconds: float | None = None

        async def noted(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status, seconds = message["status"], time.monotonic() - began_at
            await send(message)

        UNDER_WAY.inc()
        try:
            await self._app(scope, receive, noted)
        except Exception:
            if seconds is None:
                await answer(unexpected())(scope, receive, send_marked(noted))
            raise
        finally:
            UNDER_WAY.dec()
            _tell(scope, status, time.monotonic() - began_at, seconds)


def _tell(scope: Scope, status: int, took: float, until_answer: float | None) -> None:
    method = scope["method"] if scope["method"] in _METHODS else "other"
    route = getattr(scope.get("route"), "path", None) or NO_ROUTE
    token = scope.get(TOKEN_IN_SCOPE)
    REQUESTS.labels(route, method, str(status)).inc()
    if until_answer is not None:
        SECONDS.labels(route, method).observe(until_answer)
    level = logging.DEBUG if route in _PROBES else logging.INFO
    _logger.log(
        level,
        "%s %s %d in %.0f ms%s",
        method,
        route,
        status,
        took * 1000,
        f" by {token}" if token else "",
        extra={
            "method": method,
            "route": route,
            "status": status,
            "ms": round(took * 1000, 1),
            **({"token": token} if token else {}),
        },
    )
