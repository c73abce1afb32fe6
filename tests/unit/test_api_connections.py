"""How long a caller may keep a connection to the API without asking, or without reading."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import Response, StreamingResponse

from runlane.api.connections import Connection
from runlane.api.hardening import Hardening

GET = b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /small HTTP/1.1\r\nHost: x\r\ncontent-type: application/json\r\n"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second in place of half a minute."""
    monkeypatch.setattr("runlane.api.connections.HEAD_SECONDS", 0.5)
    monkeypatch.setattr("runlane.api.connections.STALLED_SECONDS", 0.5)


@asynccontextmanager
async def served() -> AsyncIterator[tuple[int, uvicorn.Server]]:
    """Serve a small answer, and one that has no end."""
    app = FastAPI()

    async def small() -> Response:
        return Response("ok")

    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield b"data: " + b"x" * 65_536 + b"\n\n"
            await asyncio.sleep(0)

    async def large() -> Response:
        return StreamingResponse(parts(), media_type="text/event-stream")

    app.add_api_route("/small", small, methods=["GET", "POST"])
    app.add_api_route("/large", large)
    app.add_middleware(Hardening, max_body_bytes=10)
    config = uvicorn.Config(
        app, port=0, http=Connection, log_config=None, access_log=False, lifespan="off", ws="none"
    )
    server, listener = uvicorn.Server(config), config.bind_socket()
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield listener.getsockname()[1], server
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def connected(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_000)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def until_cut(reading: Awaitable[bytes]) -> bytes:
    """Wait for the end of a connection, and return what came before."""
    async with asyncio.timeout(10):
        try:
            return await reading
        except ConnectionError:
            return b""


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"GET /sma", b""),
        (GET + b"GET /sma", b"HTTP/1.1 200"),
        (POST + b"content-length: 999\r\n\r\n{", b"HTTP/1.1 413"),
        (POST + b"transfer-encoding: chunked\r\n\r\n1\r\n{", b"HTTP/1.1 200"),
    ],
)
async def test_what_is_never_asked_in_full_is_cut(sent: bytes, answer: bytes) -> None:
    """Nothing, half a head, the rest of a body after its answer; what was asked is answered."""
    async with served() as (port, server), connected(port) as (reader, writer):
        writer.write(sent)

        got = await until_cut(reader.read())

        assert answer == got[: len(answer)]
        assert bool(answer) == bool(got)
        assert set() == server.server_state.connections


async def test_a_byte_now_and_then_is_no_request() -> None:
    """Half a second is for the whole head, not from one byte to the next."""
    async with served() as (port, _), connected(port) as (reader, writer):
        reading = asyncio.create_task(until_cut(reader.read()))
        for byte in GET:
            if reading.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.1)

        assert b"" == await reading


async def test_whoever_asks_again_and_again_is_answered() -> None:
    """A connection in use has no end, however long it is used."""
    async with served() as (port, _), connected(port) as (reader, writer):
        async with asyncio.timeout(20):
            for _ in range(6):
                writer.write(GET)
                assert b"ok" == (await reader.readuntil(b"\r\n\r\nok"))[-2:]
                await asyncio.sleep(0.2)


async def test_whoever_reads_nothing_is_cut() -> None:
    """The work for them ends, too."""
    async with served() as (port, server), connected(port) as (_, writer):
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")

        async with asyncio.timeout(20):
            while not server.server_state.tasks:
                await asyncio.sleep(0.01)
            while server.server_state.tasks or server.server_state.connections:
                await asyncio.sleep(0.05)
