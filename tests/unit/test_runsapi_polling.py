"""How polling waits, what it sends, and when it returns."""

import asyncio
import time
from typing import Any

import httpx
import pytest

from runsapi import RunStatus, poll_after_ms, usable_interval_ms
from runsapi.polling import next_interval_ms
from tests.wire import Wire, run

HEADER = "openai-poll-after-ms"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds polling would have waited; it waits none."""
    waited: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        waited.append(seconds)
        await sleep(0)

    monkeypatch.setattr("runsapi.run_requests.asyncio.sleep", note)
    return waited


def answer(status: str, after: str | None = None) -> httpx.Response:
    headers = {} if after is None else {HEADER: after}
    return httpx.Response(200, json=run(status=status), headers=headers)


@pytest.mark.parametrize(
    ("value", "used"),
    [
        (250, 250),
        (250.9, 250),
        ("250", 250),
        (" 250ms", 250),
        (1, 100),
        (0.5, 100),
        (3_600_001, 3_600_000),
        (float("inf"), 3_600_000),
        ("9" * 5000, 3_600_000),
        (0, None),
        (-5, None),
        ("0", None),
        ("-5", None),
        (float("nan"), None),
        ("soon", None),
        ("", None),
        (None, None),
        (True, None),
        ([250], None),
    ],
)
def test_usable_intervals(value: object, used: int | None) -> None:
    """0, less than 0 and no number are ignored; the others stay within 100 ms and one hour."""
    assert used == usable_interval_ms(value)


def test_the_header_is_found_in_any_case() -> None:
    """Headers compare without regard to case, in a plain mapping too."""
    assert 300 == poll_after_ms({"OpenAI-Poll-After-Ms": "300"})
    assert 300 == poll_after_ms(httpx.Headers({HEADER: "300"}))
    assert poll_after_ms({}) is None


def test_precedence() -> None:
    """The caller's interval, then the latest answer's header, then 5,000 ms."""
    assert 200 == next_interval_ms(200, {HEADER: "300"})
    assert 300 == next_interval_ms(None, {HEADER: "300"})
    assert 300 == next_interval_ms(0, {HEADER: "300"})
    assert 5_000 == next_interval_ms(-1, {HEADER: "0"})
    assert 5_000 == next_interval_ms(None, {})


async def test_the_header_is_read_from_every_answer(waits: list[float]) -> None:
    """A server that changes its mind is heard, and one that falls silent gives the default."""
    wire = Wire(
        answer("queued", "200"),
        answer("in_progress", "700"),
        answer("in_progress"),
        answer("completed", "900"),
    )
    polled = await wire.upstream().runs.poll("run_1", thread_id="t")
    assert RunStatus.COMPLETED == polled.status
    assert [0.2, 0.7, 5.0] == waits


async def test_the_callers_interval_beats_the_header(waits: list[float]) -> None:
    """The header is ignored while the caller's own interval is usable."""
    wire = Wire(answer("queued", "9000"), answer("completed"))
    await wire.upstream().runs.poll("run_1", thread_id="t", poll_interval_ms=150)
    assert [0.15] == waits


@pytest.mark.parametrize(
    "status", ["requires_action", "incomplete", "cancelled", "completed", "failed", "expired"]
)
async def test_polling_returns_at_a_stop_without_waiting(status: str, waits: list[float]) -> None:
    """The first look is at once, and a run that has stopped is returned from it."""
    wire = Wire(answer(status))
    assert status == (await wire.upstream().runs.poll("run_1", thread_id="t")).status
    assert ([], 1) == (waits, len(wire.requests))


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelling", "generating", "paused"])
async def test_polling_waits_out_the_rest(status: str, waits: list[float]) -> None:
    """Intermediate statuses and unknown words are waited out, each look after an interval."""
    wire = Wire(answer(status), answer(status), answer("completed"))
    await wire.upstream().runs.poll("run_1", thread_id="t")
    assert ([5.0, 5.0], 3) == (waits, len(wire.requests))


async def test_an_unknown_status_is_no_hot_loop() -> None:
    """By the clock: an unknown status is asked for a few times, not hundreds."""
    wire = Wire(answer("generating", "1"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await wire.upstream().runs.poll("run_1", thread_id="t")
    assert 2 <= len(wire.requests) <= 6


@pytest.mark.parametrize(
    ("interval", "sent"), [(None, None), (0, None), (-1, None), (250, "250"), (5, "100")]
)
async def test_the_helpers_two_headers(
    interval: float | None, sent: str | None, waits: list[float]
) -> None:
    """The helper says that it polls, and at which interval if the caller's is used."""
    wire = Wire(answer("completed"))
    await wire.upstream().runs.poll("run_1", thread_id="t", poll_interval_ms=interval)
    assert "true" == wire.last.headers["X-Stainless-Poll-Helper"]
    assert sent == wire.last.headers.get("X-Stainless-Custom-Poll-Interval")


async def test_the_helpers_headers_beat_the_callers(waits: list[float]) -> None:
    """The caller beats `OpenAI-Beta`; the helper's two beat the caller."""
    wire = Wire(answer("completed"))
    await wire.upstream().runs.poll(
        "run_1",
        thread_id="t",
        poll_interval_ms=250,
        extra_headers={
            "x-stainless-poll-helper": "no",
            "x-stainless-custom-poll-interval": "1",
            "openai-beta": "mine",
        },
    )
    assert ["true"] == wire.last.headers.get_list("X-Stainless-Poll-Helper")
    assert ["250"] == wire.last.headers.get_list("X-Stainless-Custom-Poll-Interval")
    assert ["mine"] == wire.last.headers.get_list("OpenAI-Beta")


async def test_create_and_poll(waits: list[float]) -> None:
    """One create without the helper's headers, then looks with them; options go to both."""
    wire = Wire(answer("queued"), answer("in_progress"), answer("requires_action"))
    polled = await wire.upstream().runs.create_and_poll(
        "t", assistant_id="a", poll_interval_ms=200, extra_headers={"X-A": "b"}
    )
    assert RunStatus.REQUIRES_ACTION == polled.status
    assert ["POST", "GET", "GET"] == [request.method for request in wire.requests]
    assert {"assistant_id": "a"} == wire.body(0)
    assert "X-Stainless-Poll-Helper" not in wire.requests[0].headers
    assert ["b"] * 3 == [request.headers["X-A"] for request in wire.requests]
    assert [0.2] == waits


async def test_submit_tool_outputs_and_poll(waits: list[float]) -> None:
    """One submit, then looks until the run stops."""
    wire = Wire(answer("queued"), answer("completed"))
    outputs: list[dict[str, Any]] = [{"tool_call_id": "c", "output": "1"}]
    polled = await wire.upstream().runs.submit_tool_outputs_and_poll(
        "run_1", thread_id="t", tool_outputs=outputs
    )
    assert RunStatus.COMPLETED == polled.status
    assert {"tool_outputs": outputs} == wire.body(0)
    assert ["POST", "GET"] == [request.method for request in wire.requests]


async def test_the_wait_is_real() -> None:
    """By the clock: an interval of 100 ms is waited for, and not much longer."""
    wire = Wire(answer("queued"), answer("completed"))
    began = time.monotonic()
    await wire.upstream().runs.poll("run_1", thread_id="t", poll_interval_ms=1)
    assert 0.09 < time.monotonic() - began < 2
