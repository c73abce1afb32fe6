"""What `doctor` says of an upstream that answers as none should: once, and with its address."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from runlane.doctor import upstream_problem
from runlane.settings import Settings


@asynccontextmanager
async def answering(answer: str) -> AsyncIterator[str]:
    """Serve this answer to every request; yield the base URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer.encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "503"),
        ("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "refuses the credentials"),
        ("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "404"),
        ("HTTP/1.1 302 Sign in\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", "302"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "no JSON"),
        ("", "No answer"),
    ],
)
async def test_a_wrong_upstream_is_named_once(answer: str, said: str) -> None:
    """Whatever it answers, the finding has its address, once, and something to do."""
    async with answering(answer) as url:
        finding = await upstream_problem(Settings(upstream_url=url))

    assert finding is not None
    assert said in finding.message
    assert 1 == finding.message.count("http://")
    assert url in finding.message
    assert finding.remedy
