"""`/healthz`, `/readyz` and `/metrics`: what probes and scrapers ask.

The first two need no token, and so say no more than whether, and which part doesn't answer.
"""

import asyncio
import time
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.service import RPCError, RPCStatusCode

from ledger import LedgerError
from runlane.api import watching
from runlane.api.access import Reader
from runlane.api.services import Given, Services
from runlane.monitoring import metrics

PATIENCE = 2.0
"""Seconds in which each part must answer."""
PACE = 2.0
"""Seconds for which an answer is given again: whoever asks often costs the parts no more."""

routes = APIRouter(tags=["health"])

_registry = CollectorRegistry()
_registry.register(metrics.REGISTRY)
_registry.register(watching.REGISTRY)


class Readiness:
    """Says which part the API works with doesn't answer."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self._asking = asyncio.Lock()
        self._missing: list[str] = []
        self._asked_at = float("-inf")

    async def missing(self, services: Services) -> list[str]:
        """Return the names of the parts that don't answer."""
        async with self._asking:
            if time.monotonic() - self._asked_at >= PACE:
                ledger, temporal = services.ledger, services.runlane.temporal
                request = DescribeNamespaceRequest(namespace=temporal.namespace)
                asked = temporal.workflow_service.describe_namespace(
                    request, timeout=timedelta(seconds=PATIENCE)
                )
                answers = await asyncio.gather(_answers(asked), _answers(ledger.tokens.any_made()))
                names = ("Temporal", "the ledger")
                self._missing = [n for n, ok in zip(names, answers, strict=True) if not ok]
                self._asked_at = time.monotonic()
            return self._missing


@routes.get("/healthz", operation_id="healthz")
async def healthz() -> dict[str, str]:
    """Say that the process lives."""
    return {"status": "ok"}


@routes.get("/readyz", operation_id="readyz", responses={503: {"description": "Not ready."}})
async def readyz(request: Request, services: Given) -> Response:
    """Say whether requests can be served: Temporal and the ledger answer."""
    readiness: Readiness = request.app.state.readiness
    missing = await readiness.missing(services)
    if missing:
        reason = f"no answer from {' and '.join(missing)}"
        return JSONResponse({"status": "unavailable", "reason": reason}, status_code=503)
    return JSONResponse({"status": "ok"})


@routes.get("/metrics", operation_id="metrics", response_class=Response)
async def show_metrics(request: Request, _: Reader) -> Response:
    """Return this process's figures, as Prometheus reads them."""
    encoder, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encoder(_registry), headers={"content-type": content_type})


async def _answers(asked: Awaitable[Any]) -> bool:
    try:
        await asyncio.wait_for(asked, PATIENCE)
    except RPCError as error:
        # It answers, and doesn't let this process describe the namespace.
        return error.status is RPCStatusCode.PERMISSION_DENIED
    except (LedgerError, TimeoutError):
        return False
    return True
