"""Bodies of answers: read piece by piece, and never more of them than a process can afford.

A server may send without end, or a few bytes that decompress to gigabytes.
"""

import zlib
from collections.abc import AsyncIterator

import httpx

from runsapi.errors import APIResponseError

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""The largest JSON answer that is read, after decompression."""

MAX_BIG_BYTES = 64 * 1024 * 1024
"""What answers of over 256 kB may hold together while they are read."""

ACCEPT_ENCODING = "gzip, deflate"
"""What is asked for. Other codings may be installed, and would be decompressed without a bound."""

_SMALL_BYTES = 256 * 1024
_PIECE_BYTES = 256 * 1024
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_RAW_DEFLATE = -15


class Bodies:
    """The bodies that one connection reads at a time."""

    def __init__(self) -> None:
        self._big_bytes = 0

    async def read(self, response: httpx.Response, limit: int = MAX_ANSWER_BYTES) -> bytes:
        """A whole body.

        Raises:
            APIResponseError: It is larger than ``limit`` bytes, or than what others leave.
            httpx.RequestError: It broke off.
        """
        content = bytearray()
        counted = 0
        try:
            async for piece in pieces(response):
                content += piece
                if len(content) > limit:
                    raise _unreadable(response, f"is larger than {limit} bytes")
                if len(content) > _SMALL_BYTES:
                    self._big_bytes += len(content) - counted
                    counted = len(content)
                    if self._big_bytes > MAX_BIG_BYTES:
                        raise _unreadable(response, "is large, and too many others are, now")
            return bytes(content)
        finally:
            self._big_bytes -= counted


async def pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    """A body as it comes, decompressed, in pieces of at most 256 kB.

    Raises:
        APIResponseError: It can't be decompressed.
        httpx.RequestError: It broke off.
    """
    coding = response.headers.get("content-encoding", "").strip().lower() or "identity"
    if response.is_stream_consumed:
        # A client that was handed in has read and decompressed it already, in a hook.
        yield response.content
    elif coding == "identity":
        async for piece in response.aiter_raw():
            yield piece
    elif coding in _WINDOWS:
        async for piece in _decompressed(response, _WINDOWS[coding]):
            yield piece
    else:
        raise _unreadable(response, f"is compressed as {coding[:40]}, which nobody asked for")


async def _decompressed(response: httpx.Response, window: int) -> AsyncIterator[bytes]:
    inflater = zlib.decompressobj(window)
    begun = False
    async for chunk in response.aiter_raw():
        rest = chunk
        while rest and not inflater.eof:
            try:
                piece = inflater.decompress(rest, _PIECE_BYTES)
            except zlib.error:
                if begun or window != _WINDOWS["deflate"]:
                    raise _unreadable(response, "can't be decompressed") from None
                # Some servers mean a bare stream by `deflate`, without the header.
                inflater, begun = zlib.decompressobj(_RAW_DEFLATE), True
                continue
            begun = True
            rest = inflater.unconsumed_tail
            if piece:
                yield piece


def bare_url(response: httpx.Response) -> str:
    """What was called, without user, password and query."""
    url = response.request.url.copy_with(username="", password="", query=None, fragment=None)
    return str(url)


def _unreadable(response: httpx.Response, how: str) -> APIResponseError:
    url = bare_url(response)
    return APIResponseError(
        f"The answer from {url} {how}", status_code=response.status_code, url=url
    )
