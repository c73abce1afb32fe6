"""Serving the API from a process: where it listens, and how it ends."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn

from runlane.api import services
from runlane.api.access import Principal
from runlane.api.app import create_app
from runlane.errors import RunlaneError
from runlane.settings import Settings

DEFAULT_PORT = 8400
_GRACE_SECONDS = 5
"""For answers under way when told to end; streams are cut, and are taken up again elsewhere."""
_KEEP_ALIVE = 75
"""Seconds. Longer than clients keep idle connections, which would see resets."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._report = started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve`: uvicorn would raise them again after a clean end."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._report()


async def serve(
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    local: Principal | None = None,
    ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: say where Temporal, the ledger and the upstream are.
        host: where to listen.
        port: 0 takes a free one.
        local: whoever asks from this machine while nobody has made a token.
        ready: called with the base URL once requests are answered.

    Raises:
        RunlaneError: the port can't be used, or something doesn't answer.
        SettingsError: a variable can't be used.
    """
    with _listener(host, port) as listener:
        name = f"[{host}]" if ":" in host else host
        url = f"http://{name}:{listener.getsockname()[1]}/v1"
        async with services.opened(settings, local=local) as opened:

            @asynccontextmanager
            async def given() -> AsyncIterator[services.Services]:
                yield opened

            config = uvicorn.Config(
                create_app(given),
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
            server = _Server(config, lambda: ready(url))

            def stop() -> None:
                server.should_exit = True

            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop)
            await server.serve(sockets=[listener])


@contextmanager
def _listener(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, or asyncio leaves Nagle's algorithm on and each answer costs 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            text = f"{host}:{port} can't be used: {reason}. Choose others with --host and --port."
            raise RunlaneError(text, param="--port", code="port_taken") from None
        yield listener
