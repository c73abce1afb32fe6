"""Serving the simulator from a process, or from a task of a larger one."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from runsapi.simulator.connection import DroppableProtocol
from runsapi.simulator.engine import EXPIRES_AFTER
from runsapi.simulator.scenario import Scenario
from runsapi.simulator.server import Simulator

_GRACE = 1
"""Seconds for answers under way when told to end; what is held is let go at once."""
_KEEP_ALIVE = 75
"""Seconds. Longer than clients keep idle connections, or they would see resets nobody ordered."""


class _Server(uvicorn.Server):
    def __init__(self, simulator: Simulator, started: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                simulator.app,
                http=DroppableProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=_GRACE,
            )
        )
        self._simulator = simulator
        self._report = started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve`: uvicorn would raise them again after a clean end."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._report()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._simulator.control.close()
        await super().shutdown(sockets)


async def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    scenarios: Iterable[Scenario] = (),
    faults: Iterable[Any] = (),
    strict: bool = False,
    expires_after: float = EXPIRES_AFTER,
    api_key: str | None = None,
    bodies: bool = True,
    state: Path | None = None,
    ready: Callable[[str], None] = lambda url: None,
    handle_signals: bool = True,
) -> None:
    """Serve until SIGTERM, SIGINT or cancellation.

    `port=0` takes a free port; `ready` is called with the base URL once requests are answered.
    `expires_after` is in seconds. Runs are kept in the file `state` and are there again when it is
    next served from. Pass `handle_signals=False` where the caller has its own.
    """
    simulator = Simulator(
        scenarios=scenarios,
        faults=faults,
        strict=strict,
        expires_after=expires_after,
        api_key=api_key,
        bodies=bodies,
        state=state,
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, or asyncio leaves Nagle's algorithm on and each answer costs 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        name = f"[{host}]" if ":" in host else host
        url = f"http://{name}:{listener.getsockname()[1]}/v1"
        server = _Server(simulator, lambda: ready(url))

        def stop() -> None:
            server.should_exit = True

        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT) if handle_signals else ()
        for number in numbers:
            loop.add_signal_handler(number, stop)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            # Shielded: a cancelled uvicorn leaves its connections open.
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            stop()
            await serving
            raise
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
    finally:
        listener.close()
        simulator.close()
