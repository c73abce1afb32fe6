"""What holds for every request, in front of a small app: over real HTTP, streams included."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import pytest_asyncio
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import generate_latest

from runlane.api import refusals
from runlane.api.hardening import FILE_TYPE, Hardening
from runlane.api.watching import REGISTRY, Watching

MOST = 1000
"""Bytes."""
SECONDS = 0.5


class Small:
    """An app that echoes, streams, waits and breaks, as it is told."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.given_up = asyncio.Event()
        self.app = FastAPI()
        refusals.install(self.app)
        self.app.add_api_route("/echo", self.echo, methods=["GET", "POST"])
        self.app.add_api_route("/read/{what}", self.read, methods=["POST"])
        self.app.add_api_route("/stream", self.stream)
        self.app.add_api_route("/wait", self.wait, methods=["GET", "POST"])
        self.app.add_api_route("/break", self.fall)
        self.app.add_api_route("/v1/files", self.echo, methods=["POST"])
        self.app.add_api_route("/content", self.content)
        self.app.add_middleware(
            Hardening, max_body_bytes=MOST, answer_seconds=SECONDS, max_upload_bytes=4 * MOST
        )
        self.app.add_middleware(Watching)

    async def echo(self, request: Request) -> Response:
        return JSONResponse({"bytes": len(await request.body())})

    async def read(self, what: str, body: dict[str, str]) -> Response:
        return JSONResponse({what: len(body["text"])})

    async def stream(self) -> Response:
        async def parts() -> AsyncIterator[str]:
            yield "data: 1\n\n"
            await self.go_on.wait()
            yield "data: [DONE]\n\n"

        return StreamingResponse(parts(), media_type="text/event-stream")

    async def content(self) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"1"
            await asyncio.sleep(2 * SECONDS)
            yield b"2"

        return StreamingResponse(parts(), media_type=FILE_TYPE)

    async def wait(self) -> Response:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.given_up.set()
            raise
        return JSONResponse({})

    async def fall(self) -> Response:
        raise KeyError("hush")


@asynccontextmanager
async def served(small: Small) -> AsyncIterator[httpx.AsyncClient]:
    """Serve it, and return a client."""
    config = uvicorn.Config(
        small.app, port=0, log_config=None, access_log=False, lifespan="off", ws="none"
    )
    server, listener = uvicorn.Server(config), config.bind_socket()
    task = asyncio.create_task(server.serve(sockets=[listener]))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            yield client
    finally:
        server.should_exit = True
        await task


@pytest_asyncio.fixture
async def small() -> Small:
    return Small()


@pytest_asyncio.fixture
async def client(small: Small) -> AsyncIterator[httpx.AsyncClient]:
    async with served(small) as found:
        yield found


JSON = {"content-type": "application/json"}


async def test_a_body_has_a_limit(client: httpx.AsyncClient) -> None:
    """Just as large is taken, whether its length was told or not; one byte more is not."""

    async def pieces(size: int) -> AsyncIterator[bytes]:
        for _ in range(size // 100):
            yield b"x" * 100
        yield b"x" * (size % 100)

    told = [await client.post("/echo", content=b"x" * n, headers=JSON) for n in (MOST, MOST + 1)]
    untold = [await client.post("/echo", content=pieces(n), headers=JSON) for n in (MOST, MOST + 1)]

    async def document(size: int) -> AsyncIterator[bytes]:
        yield b'{"text": "'
        async for piece in pieces(size - 12):
            yield piece
        yield b'"}'

    parsed = await client.post("/read/a", content=document(MOST), headers=JSON)
    assert {"a": MOST - 12} == parsed.json()
    refused = await client.post("/read/a", content=document(MOST + 1), headers=JSON)
    for fits, too_large in (told, untold, (told[0], refused)):
        assert {"bytes": MOST} == fits.json()
        assert 413 == too_large.status_code
        assert ("body_too_large", "A body must have at most 1,000 bytes.") == (
            too_large.json()["error"]["code"], too_large.json()["error"]["message"],
        )  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"]
)
async def test_a_body_is_json(client: httpx.AsyncClient, kind: str) -> None:
    """A web page could send any other kind without asking first; none at all may go without."""
    refused = await client.post("/echo", content=b"{}", headers={"content-type": kind})

    assert (415, "unsupported_media_type") == (
        refused.status_code, refused.json()["error"]["code"],
    )  # fmt: skip
    for given in ("application/json", "application/json; charset=utf-8", "Application/JSON"):
        taken = await client.post("/echo", content=b"{}", headers={"content-type": given})
        assert {"bytes": 2} == taken.json()
    assert {"bytes": 0} == (await client.post("/echo")).json()
    assert {"bytes": 0} == (await client.get("/echo")).json()


async def test_a_stream_passes_as_it_is_written(client: httpx.AsyncClient, small: Small) -> None:
    """The first event is there before the last one is made, long after the limit of an answer."""
    async with client.stream("GET", "/stream") as answer:
        events = answer.aiter_text()
        assert "data: 1\n\n" == await anext(events)
        await asyncio.sleep(SECONDS * 2)
        small.go_on.set()
        assert "data: [DONE]\n\n" == await anext(events)
        assert [] == [each async for each in events]
    assert "no-store" == answer.headers["cache-control"]


async def test_an_answer_has_a_limit(client: httpx.AsyncClient, small: Small) -> None:
    """Then the work is given up, and 504 says that nobody knows whether it was done."""
    read = await client.get("/wait")
    assert small.given_up.is_set()
    wrote = await client.post("/wait")
    keyed = await client.post("/wait", headers={"idempotency-key": "k"})

    assert [504] * 3 == [each.status_code for each in (read, wrote, keyed)]
    assert "There was no answer within 0.5 s." == read.json()["error"]["message"]
    assert "Whether it was done is not known." in wrote.json()["error"]["message"]
    assert [None, "false", None] == [
        each.headers.get("x-should-retry") for each in (read, wrote, keyed)
    ]


@pytest.mark.parametrize(
    "told", ["content-length: 10\r\n\r\nhush", "transfer-encoding: chunked\r\n\r\nfff\r\nhush"]
)
async def test_a_body_that_never_ends_is_the_callers_fault(
    client: httpx.AsyncClient, told: str
) -> None:
    """408: nothing was done yet, so to ask again does no harm."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    writer.write(
        f"POST /read/x HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{told}".encode()
    )
    answer = await asyncio.wait_for(reader.readuntil(b"}}"), 10)
    writer.close()

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"x-should-retry" not in head
    assert "The body has not come within 0.5 s." == json.loads(body)["error"]["message"]


async def test_every_answer_is_marked(client: httpx.AsyncClient) -> None:
    """Good ones, refused ones, unknown routes, and those of a bug; none is open to a web page."""
    answers = [
        await client.get("/echo"),
        await client.post("/echo", content=b"x" * 2000, headers=JSON),
        await client.get("/nowhere"),
        await client.get("/break"),
        await client.options("/echo", headers={"origin": "http://a.test"}),
    ]

    assert [200, 413, 404, 500, 405] == [each.status_code for each in answers]
    for each in answers:
        assert "nosniff" == each.headers["x-content-type-options"]
        assert "no-store" == each.headers["cache-control"]
        assert "no-referrer" == each.headers["referrer-policy"]
        assert each.headers["content-security-policy"].startswith("default-src 'none'")
        assert not [name for name in each.headers if name.startswith("access-control-")]


async def test_a_bug_is_told_without_its_text(client: httpx.AsyncClient) -> None:
    """In the envelope; what it says may be an argument."""
    answer = await client.get("/break")

    assert "server_error" == answer.json()["error"]["type"]
    assert "hush" not in answer.text


async def test_a_line_for_each_request(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Method, route, status and time; neither query nor body nor a made-up path."""
    with caplog.at_level(logging.INFO, "runlane.api"):
        await client.post("/read/hush?key=hush", content=b'{"text": "hush"}', headers=JSON)
        await client.get("/hush/hush")

    lines = [each for each in caplog.records if each.name == "runlane.api"]
    assert [("POST", 200), ("GET", 404)] == [
        (vars(each)["method"], vars(each)["status"]) for each in lines
    ]
    assert lines[0].getMessage().startswith("POST /read/{what} 200 in ")
    assert lines[1].getMessage().startswith("GET none 404 in ")
    assert "hush" not in caplog.text


async def test_requests_are_counted(client: httpx.AsyncClient, small: Small) -> None:
    """By status, those under way too, whether or not the caller has waited for the answer."""
    before = figures()
    await client.get("/nowhere")
    async with client.stream("GET", "/stream"):
        assert before.get(UNDER_WAY, 0) + 1 == figures()[UNDER_WAY]
        small.go_on.set()
    with pytest.raises(httpx.ReadTimeout):
        await client.get("/wait", timeout=0.05)
    async with asyncio.timeout(10):
        while figures()[UNDER_WAY] != before.get(UNDER_WAY, 0):
            await asyncio.sleep(0.02)

    after = figures()
    for route, status in (("none", 404), ("/stream", 200), ("/wait", 504)):
        name = f'runlane_api_requests_total{{method="GET",route="{route}",status="{status}"}}'
        assert before.get(name, 0) + 1 == after[name]


UNDER_WAY = "runlane_api_requests_under_way"


def figures() -> dict[str, float]:
    """Return what Prometheus would read."""
    lines = generate_latest(REGISTRY).decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


async def test_one_route_alone_takes_a_form(small: Small) -> None:
    """It has a limit of its own, whether the length is told or not, and takes no JSON."""

    async def pieces(size: int) -> AsyncIterator[bytes]:
        for _ in range(size // 100):
            yield b"x" * 100

    form = {"content-type": "multipart/form-data; boundary=x"}
    async with served(small) as client:
        taken = await client.post("/v1/files", content=b"x" * 4 * MOST, headers=form)
        told = await client.post("/v1/files", content=b"x" * (4 * MOST + 1), headers=form)
        untold = await client.post("/v1/files", content=pieces(5 * MOST), headers=form)
        as_json = await client.post("/v1/files", json={"text": ""})
        elsewhere = await client.post("/echo", content=b"x", headers=form)

    assert {"bytes": 4 * MOST} == taken.json()
    assert [413, 413, 415, 415] == [
        each.status_code for each in (told, untold, as_json, elsewhere)
    ]  # fmt: skip


async def test_a_file_takes_as_long_as_it_takes(small: Small) -> None:
    """Once it has begun, an answer with a file's content is cut off by no clock."""
    async with served(small) as client:
        answer = await client.get("/content")
    assert b"12" == answer.content
