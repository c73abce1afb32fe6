"""`/metrics`, `/healthz` and `/readyz`, served by a thread of their own.

The thread is there so that they answer while the worker's event loop doesn't turn, and say so; and
so that nobody who scrapes can hold the worker up. It is a daemon: no end waits for it.
"""

import asyncio
import logging
import socket
import threading
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from runlane.monitoring.readiness import Readiness
from runlane.monitoring.sdk_metrics import DRAIN_SECONDS, SdkMetrics
from runlane.settings import Address, SettingsError

TURNS_WITHIN = 5.0
"""Seconds in which a healthy event loop gets round to a task."""

_VARIABLE = "RUNLANE_METRICS_ADDRESS"
_MOST_CONNECTIONS = 50
_KEEP_ALIVE = 75
_END_WITHIN = 3.0

_T = TypeVar("_T")
_logger = logging.getLogger("runlane.monitoring")


class Figures(Protocol):
    """Metrics that are asked for when somebody scrapes."""

    async def refresh(self) -> None:
        """Ask, and come back in a few seconds whatever happens."""


class Endpoint:
    """Serves what a worker says of itself while `async with` lasts."""

    def __init__(
        self,
        address: Address,
        registry: CollectorRegistry,
        *,
        figures: Sequence[Figures],
        readiness: Readiness,
        sdk: SdkMetrics | None = None,
    ) -> None:
        """Describe it; nothing is served yet.

        Args:
            address: where to listen; port 0 takes a free one.
            registry: the metrics.
            figures: refreshed before each scrape, in the worker's event loop.
            readiness: asked there for `/readyz`.
            sdk: drained all the time.
        """
        self._address = address
        self._registry = registry
        self._figures = figures
        self._readiness = readiness
        self._sdk = sdk
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> "Endpoint":
        """Listen, and serve from now on.

        Raises:
            SettingsError: nobody can listen there.
        """
        self._loop = asyncio.get_running_loop()
        listener = _listener(self._address)
        self.url = _url(listener)
        app = Starlette(
            routes=[
                Route("/metrics", self._metrics),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
            ]
        )
        config = uvicorn.Config(
            app,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._serve, args=(self._server, listener), name="runlane-metrics", daemon=True
        )
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop serving; whoever is still being answered is left after a moment."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            await asyncio.to_thread(self._thread.join, _END_WITHIN)

    def _serve(self, server: uvicorn.Server, listener: socket.socket) -> None:
        try:
            asyncio.run(self._serve_and_drain(server, listener))
        except BaseException:
            _logger.exception("Metrics and health are no longer served")

    async def _serve_and_drain(self, server: uvicorn.Server, listener: socket.socket) -> None:
        draining = asyncio.create_task(self._drain())
        try:
            await server.serve(sockets=[listener])
        finally:
            draining.cancel()

    async def _drain(self) -> None:
        while self._sdk is not None:
            self._sdk.drain()
            await asyncio.sleep(DRAIN_SECONDS)

    async def _metrics(self, request: Request) -> Response:
        with suppress(_LoopStuck):
            await self._in_worker(self._refresh())
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(self._registry), headers={"Content-Type": content_type})

    async def _refresh(self) -> None:
        await asyncio.gather(*(each.refresh() for each in self._figures))

    async def _healthz(self, _: Request) -> Response:
        try:
            await self._in_worker(asyncio.sleep(0))
        except _LoopStuck as error:
            return _unavailable(error)
        return JSONResponse({"status": "ok"})

    async def _readyz(self, _: Request) -> Response:
        try:
            problem = await self._in_worker(self._readiness.problem())
        except _LoopStuck as error:
            return _unavailable(error)
        if problem is not None:
            return _unavailable(problem)
        return JSONResponse({"status": "ok"})

    async def _in_worker(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Await something in the worker's event loop.

        Raises:
            _LoopStuck: that doesn't get round to it.
        """
        assert self._loop is not None
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise _LoopStuck("the worker has ended") from None
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), TURNS_WITHIN)
        except TimeoutError:
            raise _LoopStuck(
                f"the worker's event loop hasn't answered for {TURNS_WITHIN:g} s"
            ) from None


class _LoopStuck(Exception):
    """The worker's event loop doesn't turn."""


def _unavailable(reason: object) -> Response:
    return JSONResponse({"status": "unavailable", "reason": str(reason)}, status_code=503)


def _listener(address: Address) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, place = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
        except OSError:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        problem = f"can't listen on {address.host}:{address.port}: {reason}."
        raise SettingsError(_VARIABLE, problem) from None
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
