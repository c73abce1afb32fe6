"""Against real sockets: silence, breaks, sizes, compression, and keys that change."""

import asyncio
import gzip
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runsapi import (
    MAX_ANSWER_BYTES,
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    Assistants,
    AzureKey,
    Credentials,
    CredentialsError,
    EnvironmentKey,
    FileKey,
    StaticKey,
)
from tests.wire import run

Exchange = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A listening socket; it notes request heads and leaves the answer to the test."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.answer: Exchange = answering(run())
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head.decode())
            await self.answer(reader, writer)
        finally:
            writer.close()


def answering(body: Any, status: str = "200 OK", *headers: str) -> Exchange:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close"]
        writer.write("\r\n".join([*lines, *headers, "", ""]).encode() + content)
        await writer.drain()

    return answer


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    served = Server()
    listener = await asyncio.start_server(served.handle, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    yield served
    listener.close()


def authorization(head: str) -> str:
    [line] = [line for line in head.splitlines() if line.lower().startswith("authorization:")]
    return line.partition(": ")[2]


async def look(server: Server, credentials: Credentials | None = None, **options: Any) -> str:
    async with Assistants(server.url, credentials=credentials, **options) as upstream:
        return (await upstream.runs.retrieve("run_1", thread_id="t")).id


async def test_a_silent_server_is_a_timeout(server: Server) -> None:
    """The request has gone out once, and the error is one of no answer."""

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1)

    server.answer = silence
    with pytest.raises(APITimeoutError, match="in time") as caught:
        await look(server, timeout=0.2)
    assert isinstance(caught.value, APIConnectionError)
    assert 1 == len(server.heads)


async def test_a_closed_connection_is_one_request(server: Server) -> None:
    """A server that hangs up after reading is not asked again."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pass

    server.answer = hang_up
    with pytest.raises(APIConnectionError) as caught:
        await look(server, StaticKey("sk-secret"))
    assert not isinstance(caught.value, APITimeoutError)
    assert "sk-secret" not in str(caught.value)
    assert 1 == len(server.heads)


async def test_nobody_listens() -> None:
    """The error names the address."""
    async with Assistants("http://127.0.0.1:1/v1") as upstream:
        with pytest.raises(APIConnectionError, match=r"http://127\.0\.0\.1:1/v1/threads/t/runs/r"):
            await upstream.runs.retrieve("r", thread_id="t")


async def test_a_body_that_breaks_off_is_no_answer(server: Server) -> None:
    """Half a run is not read as one."""

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{"id": "run_1"')
        await writer.drain()

    server.answer = half
    with pytest.raises(APIConnectionError):
        await look(server)


async def test_an_answer_is_read_up_to_a_limit(server: Server) -> None:
    """What a small compressed body unfolds to is counted, not the bytes on the wire."""
    bomb = gzip.compress(b" " * (MAX_ANSWER_BYTES + 1))
    assert len(bomb) < 100_000
    server.answer = answering(bomb, "200 OK", "Content-Encoding: gzip")
    with pytest.raises(APIResponseError, match="larger than"):
        await look(server)


async def test_large_answers_share_what_they_may_hold(server: Server) -> None:
    """Many at once, each below its own limit, are not read all: those beyond fail, and may ask
    again. What they held is given back.
    """
    go_on = asyncio.Event()

    async def large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = 12 * 1024 * 1024
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size + 2}\r\n\r\n{{".encode())
        writer.write(b" " * size)
        await writer.drain()
        await go_on.wait()
        writer.write(b"}")
        await writer.drain()

    server.answer = large
    async with Assistants(server.url) as upstream:

        async def retrieve() -> str:
            try:
                await upstream.runs.retrieve("run_1", thread_id="t")
            except APIResponseError as error:
                return str(error)
            return ""

        tasks = [asyncio.create_task(retrieve()) for _ in range(8)]
        async with asyncio.timeout(30):
            while sum(task.done() for task in tasks) < 3:
                await asyncio.sleep(0.01)
        go_on.set()
        said = await asyncio.gather(*tasks)
        again = await retrieve()

    assert sum("too many others" in text for text in said) == 3
    assert sum("is no Run" in text for text in said) == 5
    assert "is no Run" in again


async def test_a_byte_now_and_then_is_no_answer_in_time(server: Server) -> None:
    """The timeout is of the whole answer, for each byte comes soon enough."""

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    server.answer = trickle
    async with Assistants(server.url, timeout=0.4) as upstream:
        with pytest.raises(APITimeoutError) as caught:
            await upstream.runs.retrieve("run_1", thread_id="t")
    assert caught.value.sent


async def test_a_broken_compression_is_an_answer_that_cannot_be_read(server: Server) -> None:
    """The upstream did answer, so it isn't called a lost connection."""
    server.answer = answering(b"no gzip", "200 OK", "Content-Encoding: gzip")
    with pytest.raises(APIResponseError, match="decompressed"):
        await look(server)


async def test_an_error_with_an_endless_body_is_still_its_status(server: Server) -> None:
    """The status counts, however much follows it."""
    server.answer = answering(b"x" * 2_000_000, "503 Service Unavailable")
    with pytest.raises(APIStatusError) as caught:
        await look(server)
    assert 503 == caught.value.status_code


async def test_events_arrive_as_they_are_sent(server: Server) -> None:
    """An event is yielded before the server has sent the next one."""
    go_on = asyncio.Event()
    created, completed = (json.dumps(run(status=status)) for status in ("queued", "completed"))

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        writer.write(f"event: thread.run.created\ndata: {created}\n\n".encode())
        await writer.drain()
        await go_on.wait()
        writer.write(f"event: thread.run.completed\ndata: {completed}\n\n".encode())
        writer.write(b"event: done\ndata: [DONE]\n\n")
        await writer.drain()

    server.answer = stream
    async with (
        Assistants(server.url) as upstream,
        upstream.runs.stream("t", assistant_id="a") as events,
    ):
        assert "thread.run.created" == (await anext(events)).event
        go_on.set()
        assert "thread.run.completed" == (await anext(events)).event
        assert "completed" == (await events.get_final_run()).status


async def test_a_key_in_a_file_is_read_again_when_it_changes(
    server: Server, tmp_path: Path
) -> None:
    """A rotated key is used from the next request on, without a new client."""
    path = tmp_path / "key"
    path.write_text("sk-one\n")
    async with Assistants(server.url, credentials=FileKey(path)) as upstream:
        await upstream.runs.retrieve("run_1", thread_id="t")
        fresh = tmp_path / "fresh"
        fresh.write_text("sk-two\n")
        stat = path.stat()
        os.utime(fresh, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        fresh.replace(path)
        await upstream.runs.retrieve("run_1", thread_id="t")
    assert ["Bearer sk-one", "Bearer sk-two"] == [authorization(head) for head in server.heads]


async def test_a_key_file_that_is_gone_for_a_moment(tmp_path: Path) -> None:
    """The last good key stays in use while its file is away or empty; without one it's an error."""
    path = tmp_path / "key"
    key = FileKey(path)
    with pytest.raises(CredentialsError, match=str(path)):
        await key.token()
    path.write_text("sk-one")
    assert "sk-one" == await key.token()
    path.unlink()
    assert "sk-one" == await key.token()
    path.write_text("")
    assert "sk-one" == await key.token()
    path.write_text("sk-two")
    assert "sk-two" == await key.token()


async def test_a_key_in_a_variable_is_read_at_every_request(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable's value now counts; unset, no key is sent."""
    key = EnvironmentKey("A_KEY_FOR_A_TEST")
    monkeypatch.setenv("A_KEY_FOR_A_TEST", "sk-one")
    await look(server, key)
    monkeypatch.setenv("A_KEY_FOR_A_TEST", "sk-two")
    await look(server, key)
    monkeypatch.delenv("A_KEY_FOR_A_TEST")
    await look(server, key)
    assert ["Bearer sk-one", "Bearer sk-two"] == [authorization(head) for head in server.heads[:2]]
    assert "authorization" not in server.heads[2].lower()


class Entra:
    """An async credential that hands out numbered tokens, or breaks."""

    def __init__(self, *, broken: bool = False) -> None:
        self.scopes: list[str] = []
        self.broken = broken

    async def get_token(self, scope: str) -> SimpleNamespace:
        if self.broken:
            raise RuntimeError("client_secret=hush")
        self.scopes.append(scope)
        return SimpleNamespace(token=f"token-{len(self.scopes)}")


async def test_foundry_asks_for_a_token_at_each_request(server: Server) -> None:
    """The token is for Foundry's scope, and goes as a bearer with `api-version=v1`."""
    entra = Entra()
    key = AzureKey(credential=entra)
    await look(server, key, auth="azure")
    await look(server, key, auth="azure")
    assert ["https://ai.azure.com/.default"] * 2 == entra.scopes
    assert ["Bearer token-1", "Bearer token-2"] == [authorization(head) for head in server.heads]
    assert "GET /v1/threads/t/runs/run_1?api-version=v1 " in server.heads[0]


async def test_a_failed_sign_in_sends_nothing_and_shows_nothing(server: Server) -> None:
    """What the token endpoint said may hold secrets, and stays out of the error."""
    with pytest.raises(CredentialsError, match="az login") as caught:
        await look(server, AzureKey(credential=Entra(broken=True)), auth="azure")
    assert "hush" not in str(caught.value)
    assert [] == server.heads


async def test_the_azure_extra_is_named_where_it_is_missing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without azure-identity the error says what to install."""
    monkeypatch.setitem(sys.modules, "azure.identity.aio", None)
    with pytest.raises(CredentialsError, match=r"runlane\[azure\]"):
        await look(server, auth="azure")


@pytest.mark.parametrize(
    "key",
    [StaticKey("sk-secret"), EnvironmentKey("A_KEY_FOR_A_TEST"), AzureKey(credential="sk-secret")],
)
def test_keys_do_not_show(key: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """No way to print a key holder shows the key."""
    monkeypatch.setenv("A_KEY_FOR_A_TEST", "sk-secret")
    assert "sk-secret" not in f"{key!r} {key}"
