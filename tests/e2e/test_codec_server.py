"""The codec server as Temporal's own command line and UI use it: a process, and real HTTP."""

import asyncio
import json
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.converter import WorkflowSerializationContext

from runlane.embedded import EmbeddedTemporal
from tests.e2e.test_up import RUNLANE, clean, runlane

TEMPORAL = Path(sysconfig.get_path("scripts")) / "temporal"
PAGE = "http://ui.example:8233"
TOKEN = "a-token-of-enough-characters"
MARKER = "what-the-codec-server-may-show"
BIG = MARKER * 3_000

pytestmark = pytest.mark.slow


class Codec:
    """A running codec server; `document` is what it said when it was ready."""

    def __init__(self, document: dict[str, Any], log: Path) -> None:
        self.url: str = document["url"]
        self.document = document
        self.log = log
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=30)

    def ask(self, path: str, payloads: list[Payload], token: str | None = TOKEN) -> httpx.Response:
        """Send payloads as Temporal's tools do."""
        headers = {"X-Namespace": "default", "Origin": PAGE}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return self.http.post(path, headers=headers, json={"payloads": _wire(payloads)})

    def shown(self, path: str, payloads: list[Payload]) -> list[Payload]:
        """Send payloads and return what comes back."""
        answer = self.ask(path, payloads)
        assert 200 == answer.status_code, answer.text
        return [_payload(each) for each in answer.json()["payloads"]]


def _wire(payloads: list[Payload]) -> list[Any]:
    return [MessageToDict(payload) for payload in payloads]


def _payload(wire: Any) -> Payload:
    return ParseDict(wire, Payload())


@pytest.fixture(scope="module")
def codec(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Codec]:
    """A codec server with the key and the payloads of `client`."""
    log = tmp_path_factory.mktemp("codec") / "stderr"
    environ = clean(
        RUNLANE_DATA_DIR=str(data_dir), RUNLANE_CODEC_TOKEN=TOKEN, RUNLANE_CODEC_ORIGINS=PAGE
    )
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [RUNLANE, "codec-server", "--port", "0", "--json"],
            env=environ,
            text=True,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, log.read_text()
        found = Codec(json.loads(line), log)
        yield found
        found.http.close()
        process.terminate()
        assert 0 == process.wait(30)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def sealed(client: Client, *values: object) -> list[Payload]:
    """Return values as they stand in a run's history."""
    context = WorkflowSerializationContext("default", "run_shown")
    return await client.data_converter.with_context(context).encode(values)


async def test_temporals_command_line_shows_a_run(
    codec: Codec, client: Client, temporal_server: EmbeddedTemporal
) -> None:
    """`temporal workflow show` prints input and memo, with the token and not without.

    What lies in the payload store is fetched, for it would show a reference.
    """
    run_id = f"shown_{time.time_ns()}"
    await client.start_workflow("Nobody", args=["small " + MARKER, BIG], id=run_id, task_queue="no")

    async def show(**environ: str) -> subprocess.CompletedProcess[str]:
        command = [str(TEMPORAL), "workflow", "show", "-w", run_id, "--detailed"]
        return await asyncio.to_thread(
            lambda: subprocess.run(
                [*command, "--address", temporal_server.address],
                env=clean(**environ),
                text=True,
                capture_output=True,
                timeout=60,
                check=False,
            )
        )

    with_token = await show(
        TEMPORAL_CODEC_ENDPOINT=codec.url, TEMPORAL_CODEC_AUTH=f"Bearer {TOKEN}"
    )
    without = await show()

    assert 0 == with_token.returncode, with_token.stderr
    assert f"small {MARKER}" in with_token.stdout
    assert BIG in with_token.stdout
    assert 0 == without.returncode, without.stderr
    assert MARKER not in without.stdout
    await client.get_workflow_handle(run_id).terminate()


async def test_the_ui_decodes_first_and_downloads_when_asked(codec: Codec, client: Client) -> None:
    """It keeps references while it decodes, and fetches one when somebody wants to see it."""
    small, big = await sealed(client, MARKER, BIG)
    query = "preserveStorageRefs=true"

    shown, kept = codec.shown(f"/{TOKEN}/decode?{query}", [small, big])
    [fetched] = codec.shown(f"/{TOKEN}/download?{query}", [big])

    assert json.dumps(MARKER).encode() == shown.data
    assert big == kept
    assert json.dumps(BIG).encode() == fetched.data


async def test_what_is_encoded_can_be_read_by_a_worker(codec: Codec, client: Client) -> None:
    """The UI can start and signal workflows: what it encodes is sealed, and opens here."""
    plain = Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(MARKER).encode())

    [found] = codec.shown("/encode", [plain])

    assert MARKER.encode() not in found.SerializeToString()
    assert [MARKER] == await client.data_converter.decode([found], [str])
    assert [plain] == codec.shown("/decode", [plain])


@pytest.mark.parametrize("token", [None, "wrong", TOKEN[:-1], f"{TOKEN}x", "ü"])
@pytest.mark.parametrize("operation", ["encode", "decode", "download"])
async def test_without_the_token_nothing_is_shown(
    codec: Codec, client: Client, operation: str, token: str | None
) -> None:
    """No operation answers another token, wherever it stands."""
    payloads = await sealed(client, MARKER)
    if token != "ü":
        assert 401 == codec.ask(f"/{operation}", payloads, token).status_code
    if token:
        assert 401 == codec.ask(f"/{token}/{operation}", payloads, TOKEN).status_code


def test_named_pages_may_ask(codec: Codec) -> None:
    """A browser's question before the request is answered for the origins of the variable alone."""

    def preflight(origin: str) -> httpx.Response:
        return codec.http.options(
            "/decode",
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type,x-namespace",
            },
        )

    allowed, refused = preflight(PAGE), preflight("http://evil.example")

    assert 200 == allowed.status_code
    assert PAGE == allowed.headers["access-control-allow-origin"]
    assert "true" == allowed.headers["access-control-allow-credentials"]
    named = allowed.headers["access-control-allow-headers"].lower()
    assert all(name in named for name in ("authorization", "content-type", "x-namespace"))
    assert 400 == refused.status_code
    assert "access-control-allow-origin" not in refused.headers
    # The request itself, too: the browser reads the answer only where it is told that it may.
    told = codec.ask("/decode", [])
    assert PAGE == told.headers["access-control-allow-origin"]
    other = codec.http.post("/decode", headers={"Origin": "http://evil.example"}, json={})
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"no json", 400),
        (b'{"payloads": 7}', 400),
        (b'{"payloads": [{"data": "A"}]}', 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"payloads": [' + b",".join([b"{}"] * 1_001) + b"]}", 413),
        (b" " * (16 * 1024 * 1024 + 1), 413),
        (b"{}", 200),
    ],
    ids=["text", "type", "base64", "bytes", "deep", "many", "long", "empty"],
)
def test_a_body_that_is_none_is_refused(codec: Codec, body: bytes, status: int) -> None:
    """Whatever comes in, the answer says what is wrong, and the server goes on."""
    answer = codec.http.post("/decode", content=body, headers={"Authorization": TOKEN})

    assert status == answer.status_code, answer.text


async def test_what_cannot_be_shown_is_said(codec: Codec, client: Client) -> None:
    """Another key, and a payload that is no longer there: the answer names it."""
    [found] = await sealed(client, MARKER)
    found.metadata["encryption-key-id"] = b"elsewhere"
    [gone] = await sealed(client, BIG)
    reference = json.loads(gone.data)
    reference["claimData"]["key"] = "gone"
    gone.data = json.dumps(reference).encode()

    unknown, missing = codec.ask("/decode", [found]), codec.ask("/download", [gone])

    assert (400, 400) == (unknown.status_code, missing.status_code)
    assert "'elsewhere'" in unknown.json()["error"]["message"]
    assert "is missing" in missing.json()["error"]["message"]


async def test_its_log_has_no_content_and_no_token(codec: Codec, client: Client) -> None:
    """A request leaves a line with its kind, status and size."""
    payloads = await sealed(client, MARKER, BIG)
    codec.shown(f"/{TOKEN}/decode", payloads)

    log = codec.log.read_text()
    assert "decode 200, 2 payloads" in log
    assert MARKER not in log
    assert TOKEN not in log
    assert "Traceback" not in log


def test_it_does_not_start_where_it_should_not(tmp_path: Path) -> None:
    """Without a key there is nothing to show; others than this machine need a token of one's own.

    A token that it makes is told once, and there is no other way to learn it: what is to be typed
    shows it to nobody who lists processes.
    """
    key = f"a:{'A' * 43}="

    def refused(*options: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return runlane("codec-server", *options, environ=clean(**environ), cwd=tmp_path)

    no_token = refused("--host", "0.0.0.0", "--port", "0", RUNLANE_ENCRYPTION_KEYS=key)
    short = refused("--port", "0", RUNLANE_ENCRYPTION_KEYS=key, RUNLANE_CODEC_TOKEN="short")
    no_key = refused("--port", "0", RUNLANE_DATA_DIR=str(tmp_path))

    assert [2, 2, 2] == [each.returncode for each in (no_token, short, no_key)]
    assert "RUNLANE_CODEC_TOKEN" in no_token.stderr
    assert "16 characters" in short.stderr
    assert "RUNLANE_ENCRYPTION_KEYS" in no_key.stderr
    process = subprocess.Popen(
        [RUNLANE, "codec-server", "--port", "0"],
        env=clean(RUNLANE_ENCRYPTION_KEYS=key),
        text=True,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert "with key a." in process.stdout.readline()
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines[-1].strip().startswith("export ")
        token = lines[-1].partition("Bearer ")[2].strip().strip('"')
        assert len(token) >= 32
    finally:
        process.terminate()
        rest, _ = process.communicate(timeout=30)
    assert token not in rest
    assert 0 == process.returncode
