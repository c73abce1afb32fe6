"""The HTTP clients of one upstream: one for each request that is under way.

httpx looks at every connection of a client whenever a request begins or ends: with eight of them
that takes a third of the request's own time, and with a hundred longer than the request itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from ssl import SSLContext

import httpx

_MOST = 64
"""Clients; beyond them each has more requests than one."""


class Clients:
    """Opened as they are needed, and closed together.

    Args:
        given: used instead of any of our own, and left open.
    """

    def __init__(self, given: httpx.AsyncClient | None = None) -> None:
        self._given = given
        self._under_way: dict[httpx.AsyncClient, int] = {}
        # Certificates are read once for all, and before a request's time counts.
        self._ssl: SSLContext | None = None if given else httpx.create_ssl_context()

    @contextmanager
    def one(self) -> Iterator[httpx.AsyncClient]:
        """Take a client for one request; the first idle one, so that its connection is warm."""
        client = self._given or self._pick()
        self._under_way[client] = self._under_way.get(client, 0) + 1
        try:
            yield client
        finally:
            self._under_way[client] -= 1

    async def aclose(self) -> None:
        """Close what was opened here."""
        opened = [client for client in self._under_way if client is not self._given]
        self._under_way.clear()
        for client in opened:
            await client.aclose()

    def _pick(self) -> httpx.AsyncClient:
        for client, under_way in self._under_way.items():
            if not under_way:
                return client
        if len(self._under_way) < _MOST:
            return self._open()
        return min(self._under_way, key=lambda client: self._under_way[client])

    def _open(self) -> httpx.AsyncClient:
        assert self._ssl is not None
        # Who calls bounds how much runs at once: httpx's own limit of a hundred connections would
        # let a hundred slow polls hold up a cancel.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        return httpx.AsyncClient(verify=self._ssl, limits=limits)
