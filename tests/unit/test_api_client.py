"""How commands hear what the API says: as the error that they would have met without it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from runlane import errors, stops, tokens
from runlane.api.refusals import Refusal, refusal_for
from runlane.api_client import ApiClient, ApiUnreachable, NotAllowed, told
from runlane.errors import ExitCode, RunlaneError
from runlane.settings import Settings
from workflows.contract import Receipt, ReceiptStatus

RECEIPT = Receipt(tool_call_id="call_1", status=ReceiptStatus.CONFLICT)

ERRORS: list[RunlaneError] = [
    errors.InvalidRequest("Mend it.", param="reason"),
    errors.NotFound("No."),
    errors.RunNotFound("No run."),
    errors.ApprovalNotFound("No call."),
    errors.ToolNotFound("No tool."),
    errors.RunEnded("Ended.", param="run_id"),
    errors.KeyReused("Reused."),
    errors.Refused("No."),
    errors.DecisionRefused("Late.", "late", "dec_1"),
    errors.AnswersRefused("Not all.", [RECEIPT]),
    # Those whose own texts have addresses come as the API words them.
    errors.TemporalUnreachable("Temporal doesn't answer. Send this again in a moment."),
    errors.LedgerUnreachable("The ledger doesn't answer. Send this again in a moment."),
    errors.NoWorker("No worker takes this now. Send it again once one runs."),
    errors.StartUncertain(
        "Whether run_1 was started is not known. Look for it before you send this again.", "run_1"
    ),
    errors.LedgerUnusable("Too new."),
    stops.NotStopped("Nothing is."),
    tokens.TokenExists("Taken.", param="name"),
    tokens.UpsOwnToken("It is up's.", param="name"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_comes_back_as_it_was(error: RunlaneError) -> None:
    """Its class, and with it the exit code, its text, and what stands beside it in JSON."""
    refusal = refusal_for(error)

    found = told(refusal.status, json.loads(json.dumps(refusal.body)))

    assert type(error) is type(found)
    assert error.exit_code == found.exit_code
    assert error.as_json() == found.as_json()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, ExitCode.BAD_INPUT),
        (401, ExitCode.REFUSED),
        (403, ExitCode.REFUSED),
        (404, ExitCode.NOT_FOUND),
        (409, ExitCode.REFUSED),
        (413, ExitCode.BAD_INPUT),
        (429, ExitCode.UNREACHABLE),
        (500, ExitCode.OTHER),
        (503, ExitCode.UNREACHABLE),
        (504, ExitCode.UNREACHABLE),
    ],
)
def test_an_unknown_error_is_sorted_by_its_status(status: int, expected: ExitCode) -> None:
    """A newer server may say what this client has no word for."""
    found = told(status, Refusal("So.", status=status, code="quite_new").body)

    assert (expected, "quite_new") == (found.exit_code, found.code)
    assert found.message.startswith("So.")


def test_a_token_that_will_not_do_names_its_variable() -> None:
    """401 says what to set; 403 says what the server says."""
    assert "RUNLANE_TOKEN must hold" in told(401, Refusal("No.", status=401).body).message
    assert "No." == told(403, Refusal("No.", status=403).body).message
    assert isinstance(told(401, {}), NotAllowed)


@asynccontextmanager
async def answering(answer: Callable[[bytes], bytes]) -> AsyncIterator[str]:
    """Serve one answer a connection, whatever is asked; yield the URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(await reader.readuntil(b"\r\n\r\n")))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def http(status: str, body: bytes) -> bytes:
    """Return an answer as it goes over the wire."""
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def test_what_is_asked_and_what_comes_back() -> None:
    """The token, the path below `/v1`, and parameters that aren't None."""
    got: list[bytes] = []

    def answer(request: bytes) -> bytes:
        got.append(request)
        return http("200 OK", b'{"data": []}')

    async with answering(answer) as url:
        settings = Settings.from_env({"RUNLANE_API_URL": url, "RUNLANE_TOKEN": "rl_1"})
        client = ApiClient.named(settings)
        assert client is not None
        async with client:
            params: dict[str, Any] = {"limit": 5, "after": None}
            assert {"data": []} == await client.get("/tokens", params=params)

    assert got[0].startswith(b"GET /v1/tokens?limit=5 HTTP/1.1\r\n")
    assert b"Bearer rl_1\r\n" in got[0]
    assert ApiClient.named(Settings()) is None


async def test_no_answer_is_told_from_no_server() -> None:
    """Exit code 5 both; where a request may have arrived, nobody claims to know what it did."""
    async with answering(lambda _: b"") as url, ApiClient(url) as client:
        with pytest.raises(ApiUnreachable, match="gave no answer") as read:
            await client.get("/tokens")
        with pytest.raises(ApiUnreachable, match="is not known") as wrote:
            await client.post("/tokens", json={})
    async with ApiClient(url, "rl_hush") as client:
        with pytest.raises(ApiUnreachable, match="can't be reached") as gone:
            await client.delete("/tokens/a")

    assert [ExitCode.UNREACHABLE] * 3 == [each.value.exit_code for each in (read, wrote, gone)]
    assert "is not known" not in read.value.message + gone.value.message
    assert "hush" not in gone.value.message


async def test_another_server_is_no_api() -> None:
    """A page of HTML, or JSON that is no object, is not taken for an answer."""
    bodies = [b"<html>", b"[]"]
    async with answering(lambda _: http("200 OK", bodies.pop())) as url, ApiClient(url) as client:
        for _ in range(2):
            with pytest.raises(ApiUnreachable, match="something else listens"):
                await client.get("/tokens")
