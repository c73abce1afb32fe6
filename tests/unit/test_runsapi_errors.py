"""Errors say what the upstream said, can be told apart, and give nothing away."""

import gzip
import pickle
from typing import Any

import httpx
import pytest

import runsapi
from runsapi import (
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    CredentialsError,
    InvalidParameter,
    RunsAPIError,
    StaticKey,
    active_run_id,
    cancel_refused_status,
    is_outputs_mismatch,
    submit_refused_status,
)
from tests.wire import Wire


def said(message: str, status: int = 400) -> APIStatusError:
    return APIStatusError(status, message)


async def refused(answer: httpx.Response, **options: Any) -> APIStatusError:
    with pytest.raises(APIStatusError) as caught:
        await Wire(answer).upstream(**options).runs.retrieve("run_1", thread_id="t")
    return caught.value


def test_an_active_run_is_named() -> None:
    """The run that holds the thread can be had from the refusal of a create."""
    assert "run_Y9" == active_run_id(said("Thread thread_X already has an active run run_Y9."))
    assert active_run_id(said("Thread thread_X is locked")) is None
    assert active_run_id(ValueError("already has an active run run_Y")) is None


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ('Runs in status "expired" do not accept tool outputs.', "expired"),
        ('Runs in status "queued" do not accept tool outputs.', "queued"),
        ('Run status is "in_progress", cannot submit tool outputs', "in_progress"),
        ("Runs in status 'RunStatus.COMPLETED' do not accept tool outputs.", "completed"),
        ("Expected tool outputs for call_ids ['a'], got ['b']", None),
        ("Cannot cancel run with status 'completed'.", None),
    ],
)
def test_a_refused_submit_tells_the_status(message: str, status: str | None) -> None:
    """The status stands in the refusal, in the servers' different words."""
    assert status == submit_refused_status(said(message))


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("Cannot cancel run with status 'completed'.", "completed"),
        ("Cannot cancel run with status 'cancelling'.", "cancelling"),
        ('Run status is "queued", cannot cancel', "queued"),
        ('Runs in status "expired" do not accept tool outputs.', None),
    ],
)
def test_a_refused_cancel_tells_the_status(message: str, status: str | None) -> None:
    """A cancel that came too late says how the run stands."""
    assert status == cancel_refused_status(said(message))


def test_outputs_for_other_calls_are_told_apart() -> None:
    """A mismatch of ids is neither a wrong status nor any other 400."""
    assert is_outputs_mismatch(said("Expected tool outputs for call_ids ['a', 'b'], got ['a']"))
    assert is_outputs_mismatch(said("Invalid tool call", 500))
    assert not is_outputs_mismatch(said('Runs in status "queued" do not accept tool outputs.'))


async def test_the_envelope_is_read() -> None:
    """Message, type, param, code and headers of the answer are in the error."""
    error = await refused(
        httpx.Response(
            429,
            json={
                "error": {
                    "message": "You exceeded your current quota",
                    "type": "insufficient_quota",
                    "param": None,
                    "code": "insufficient_quota",
                }
            },
            headers={"Retry-After": "20", "Set-Cookie": "session=secret"},
        )
    )
    assert (429, "You exceeded your current quota", "insufficient_quota", None) == (
        error.status_code,
        error.message,
        error.code,
        error.param,
    )
    assert "20" == error.headers["retry-after"]
    assert "set-cookie" not in error.headers


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "plain"}, "plain"),
        ({"message": "top", "code": 17}, "top"),
        ({"detail": "fast"}, "fast"),
        ({"detail": [{"msg": "bad id", "input": "hush"}]}, "bad id"),
        ({"error": {"message": None}}, "Bad Request"),
        ([], "Bad Request"),
    ],
)
async def test_other_servers_envelopes_are_read(body: Any, message: str) -> None:
    """The common forms of an error body give its message, and never the request it repeats."""
    assert message == (await refused(httpx.Response(400, json=body))).message


async def test_a_page_of_html_is_not_a_message() -> None:
    """A gateway's page gives the status's name; plain text gives itself, shortened."""
    assert "Bad Gateway" == (await refused(httpx.Response(502, html="<html>…</html>"))).message
    long = await refused(httpx.Response(503, text="x" * 100_000))
    assert 2_000 == len(long.message)


async def test_our_key_never_stands_in_an_error() -> None:
    """An upstream that echoes the key doesn't get it into our error."""
    answer = httpx.Response(401, json={"error": {"message": "Incorrect API key: sk-secret."}})
    error = await refused(answer, credentials=StaticKey("sk-secret"))
    assert "Incorrect API key: [key]." == error.message
    assert "sk-secret" not in repr(error)


@pytest.mark.parametrize("key", ["sk-secret\nX-Evil: 1", "sk-sécret"])
async def test_a_key_no_header_can_carry_is_not_shown(key: str) -> None:
    """Neither sent nor shown: the HTTP library would quote it."""
    wire = Wire()
    with pytest.raises(CredentialsError) as caught:
        await wire.upstream(credentials=StaticKey(key)).runs.retrieve("run_1", thread_id="t")
    assert "cret" not in str(caught.value)
    assert [] == wire.requests


async def test_a_callers_header_that_is_none_is_not_shown() -> None:
    """A header with a line break is refused without its value."""
    with pytest.raises(InvalidParameter) as caught:
        await (
            Wire()
            .upstream()
            .runs.retrieve("run_1", thread_id="t", extra_headers={"X-Token": "secret\r\nX-Evil: 1"})
        )
    assert "secret" not in str(caught.value)


def test_one_base_catches_all() -> None:
    """Every error of the package is a `RunsAPIError`; a bad parameter is a `ValueError` too."""
    errors = [
        value
        for value in vars(runsapi).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert 8 == len(errors)
    assert all(issubclass(error, RunsAPIError) for error in errors)
    assert issubclass(InvalidParameter, ValueError)


@pytest.mark.parametrize(
    "error",
    [
        InvalidParameter(param="a", message="a is bad"),
        APITimeoutError("late", url="http://h"),
        runsapi.HeldBackError("not now", url="http://h", retry_after=2.0),
        APIStatusError(404, "gone", code="x", headers={"a": "b"}, url="http://h"),
        runsapi.APIResponseError("odd", status_code=200, url="http://h"),
    ],
)
def test_errors_can_be_pickled(error: RunsAPIError) -> None:
    """An error crosses a process with what it holds."""
    again = pickle.loads(pickle.dumps(error))
    assert (type(error), str(error), vars(error)) == (type(again), str(again), vars(again))


async def test_an_answer_compressed_more_than_once_is_not_read() -> None:
    """A few kilobytes of it could fill the memory before any limit is seen."""
    bomb = gzip.compress(gzip.compress(b"0" * 1_000_000))
    headers = {"content-encoding": "gzip, gzip", "content-type": "application/json"}
    stream = httpx.ByteStream(bomb)
    upstream = Wire(lambda _: httpx.Response(200, headers=headers, stream=stream)).upstream()
    with pytest.raises(APIResponseError, match="compressed as gzip, gzip"):
        await upstream.runs.retrieve("run_1", thread_id="thread_1")
