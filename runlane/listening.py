"""How our web servers listen and end: the socket first, signals by whoever runs them."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from runlane.errors import RunlaneError


@contextmanager
def listener(host: str, port: int) -> Iterator[socket.socket]:
    """Open the socket that a server is to listen on.

    Args:
        host: a name or an address.
        port: 0 takes a free one.

    Raises:
        RunlaneError: it can't be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, or asyncio leaves Nagle's algorithm on and each answer costs 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            text = f"{host}:{port} can't be used: {reason}. Choose others with --host and --port."
            raise RunlaneError(text, param="--port", code="port_taken") from None
        yield opened


def url_of(opened: socket.socket) -> str:
    """Return the base URL at which a socket is reached."""
    host, port = opened.getsockname()[:2]
    name = f"[{host}]" if opened.family is socket.AF_INET6 else host
    return f"http://{name}:{port}"


class Server(uvicorn.Server):
    """Serves until SIGINT or SIGTERM, and tells when it has begun."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        """Serve nothing yet.

        Args:
            config: of the server.
            started: called once requests are answered.
        """
        super().__init__(config)
        self._report = started

    async def serve_until_told(self, opened: socket.socket) -> None:
        """Serve on a socket; end in order once told to."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        await self.serve(sockets=[opened])

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to us: uvicorn would raise them again after a clean end."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell."""
        await super().startup(sockets)
        if self.started:
            self._report()

    def _stop(self) -> None:
        self.should_exit = True
