"""Connections that break on order. ASGI knows no such thing, so the protocol class lends a hand."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

_EXTENSION = "runlane.drop"
# Linger for 0 seconds: closing then sends RST, not FIN, and the caller sees a reset.
_RESET = struct.pack("ii", 1, 0)


class ConnectionDropped(ConnectionError):
    """The connection was to be dropped, and the server in use can't do it."""


class DroppableProtocol(H11Protocol):
    """HTTP/1.1 whose application can close the connection without an answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        app = self.app

        async def lend(scope: Any, receive: Any, send: Any) -> None:
            scope.setdefault("extensions", {})[_EXTENSION] = self._drop
            await app(scope, receive, send)

        self.app = lend

    def _drop(self, *, reset: bool) -> None:
        if reset:
            plain: socket.socket | None = self.transport.get_extra_info("socket")
            if plain is not None:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()


async def drop(request: Request, *, reset: bool = False) -> Response:
    """Close the connection under a request; what is returned reaches nobody."""
    close: Callable[..., None] | None = request.scope.get("extensions", {}).get(_EXTENSION)
    if close is None:
        raise ConnectionDropped("this server can't drop connections: use runsapi.simulator.serve")
    close(reset=reset)
    # The loss is noticed in the next turn of the loop; an answer sent before it would raise.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return Response()
