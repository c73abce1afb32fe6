"""Faults, the request log and the controls, over a real process and real connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.simulator_process import SimulatorProcess

RUN = {"assistant_id": "asst_none"}


@pytest.fixture
async def http(simulator: SimulatorProcess) -> AsyncIterator[httpx.AsyncClient]:
    """A plain client of the API: what it sees is what is on the wire."""
    async with httpx.AsyncClient(base_url=simulator.url, trust_env=False, timeout=10) as client:
        yield client


@pytest.fixture
def thread_id() -> str:
    """A thread of the test's own."""
    return f"thread_{uuid4().hex}"


async def streamed(http: httpx.AsyncClient, thread_id: str, tell: Callable[[str], object]) -> None:
    """Create a run and tell the name of each event until the stream ends."""
    body = {**RUN, "stream": True}
    async with http.stream("POST", f"/threads/{thread_id}/runs", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("event:"):
                tell(line)


@pytest.fixture
def own() -> Iterator[SimulatorProcess]:
    """A simulator of the test's own, for what touches all its clients."""
    with SimulatorProcess() as process:
        yield process


@pytest.mark.parametrize(
    ("kind", "expected", "accepted"),
    [
        ("lost_answer", httpx.RemoteProtocolError, True),
        ("reset", httpx.ReadError, False),
    ],
)
async def test_a_dropped_connection_gives_no_answer(
    http: httpx.AsyncClient,
    simulator: SimulatorProcess,
    thread_id: str,
    kind: str,
    expected: type[httpx.TransportError],
    *,
    accepted: bool,
) -> None:
    """The caller sees a broken connection; the log tells whether the run was created."""
    simulator.fault("runs.create", kind, thread_id=thread_id)
    with pytest.raises(expected):
        await http.post(f"/threads/{thread_id}/runs", json=RUN)
    log = simulator.requests(thread_id=thread_id)

    assert log["counts"] == {"runs.create": 1}
    assert log["accepted"] == ({"runs.create": 1} if accepted else {})
    assert log["data"][0]["status"] is None
    runs = (await http.get(f"/threads/{thread_id}/runs")).json()["data"]
    assert len(runs) == (1 if accepted else 0)
    if accepted:
        assert runs[0]["id"] == log["data"][0]["run_id"]


@pytest.mark.parametrize(
    ("order", "status", "code", "retry_after"),
    [
        ({"kind": "rate_limit"}, 429, "rate_limit_exceeded", None),
        ({"kind": "rate_limit", "retry_after": 1.5}, 429, "rate_limit_exceeded", "1.5"),
        ({"kind": "quota"}, 429, "insufficient_quota", None),
        ({"kind": "server_error"}, 500, None, None),
        ({"kind": "unauthorized"}, 401, "invalid_api_key", None),
        ({"kind": "not_found"}, 404, None, None),
        ({"kind": "status", "status": 503, "retry_after": 2}, 503, None, "2"),
        ({"kind": "status", "status": 400, "body": {"error": {"code": "own"}}}, 400, "own", None),
    ],
)
async def test_a_refusal_changes_nothing(
    http: httpx.AsyncClient,
    simulator: SimulatorProcess,
    thread_id: str,
    *,
    order: dict[str, Any],
    status: int,
    code: str | None,
    retry_after: str | None,
) -> None:
    """An ordered refusal has its status, code and header, and the next request succeeds."""
    simulator.fault("runs.create", thread_id=thread_id, **order)
    refused = await http.post(f"/threads/{thread_id}/runs", json=RUN)

    assert refused.status_code == status
    assert refused.json()["error"].get("code") == code
    assert refused.headers.get("retry-after") == retry_after
    assert refused.headers["x-runlane-simulator"] == "1"
    assert (await http.post(f"/threads/{thread_id}/runs", json=RUN)).status_code == 200
    assert simulator.requests(thread_id=thread_id)["accepted"] == {"runs.create": 1}


async def test_hold_before_acts_only_when_released(
    http: httpx.AsyncClient, simulator: SimulatorProcess, thread_id: str
) -> None:
    """A held request has done nothing; released, it acts and is answered."""
    fault = simulator.fault("runs.create", "hold_before", thread_id=thread_id)
    request = asyncio.create_task(http.post(f"/threads/{thread_id}/runs", json=RUN))
    await asyncio.to_thread(simulator.wait_held, fault)

    assert simulator.requests(thread_id=thread_id)["accepted"] == {}
    simulator.release(fault)
    assert (await request).status_code == 200
    state = simulator.fault_state(fault)
    assert (state["hits"], state["waiting"], state["released"]) == (1, 0, True)


async def test_hold_after_has_acted_and_can_lose_its_answer(
    http: httpx.AsyncClient, simulator: SimulatorProcess, thread_id: str
) -> None:
    """The run exists while the answer is held; the answer can then be dropped."""
    fault = simulator.fault("runs.create", "hold_after", thread_id=thread_id)
    request = asyncio.create_task(http.post(f"/threads/{thread_id}/runs", json=RUN))
    await asyncio.to_thread(simulator.wait_held, fault)

    assert simulator.requests(thread_id=thread_id)["accepted"] == {"runs.create": 1}
    simulator.release(fault, answer=False)
    with pytest.raises(httpx.RemoteProtocolError):
        await request


async def test_a_caller_that_gave_up_is_noted_as_unanswered(
    http: httpx.AsyncClient, simulator: SimulatorProcess, thread_id: str
) -> None:
    """A request acts even when its caller has gone, as servers do; its status stays null."""
    fault = simulator.fault("runs.create", "hold_before", thread_id=thread_id)
    with pytest.raises(httpx.ReadTimeout):
        await http.post(f"/threads/{thread_id}/runs", json=RUN, timeout=0.2)
    simulator.release(fault)
    for _ in range(100):
        (entry,) = simulator.requests(thread_id=thread_id)["data"]
        if entry["accepted"]:
            break
        await asyncio.sleep(0.02)

    assert (entry["accepted"], entry["status"]) == (True, None)


async def test_after_times_and_slow(
    http: httpx.AsyncClient, simulator: SimulatorProcess, thread_id: str
) -> None:
    """`after` lets requests pass, `times` ends the fault, `slow` only delays."""
    simulator.fault("threads.retrieve", "server_error", thread_id=thread_id, after=1, times=2)
    found = [(await http.get(f"/threads/{thread_id}")).status_code for _ in range(5)]
    assert found == [200, 500, 500, 200, 200]

    simulator.fault("threads.retrieve", "slow", thread_id=thread_id, seconds=0.3)
    began = time.monotonic()
    assert (await http.get(f"/threads/{thread_id}")).status_code == 200
    assert time.monotonic() - began >= 0.3


async def test_a_probability_is_reproducible(
    http: httpx.AsyncClient, simulator: SimulatorProcess
) -> None:
    """The same seed fails the same requests, and roughly the share ordered."""
    runs = []
    for thread_id in (f"thread_{uuid4().hex}", f"thread_{uuid4().hex}"):
        order = {"thread_id": thread_id, "probability": 0.5, "seed": 7, "times": 0}
        fault = simulator.fault("threads.retrieve", "server_error", **order)
        runs.append([(await http.get(f"/threads/{thread_id}")).status_code for _ in range(40)])
        simulator.remove_fault(fault)

    assert runs[0] == runs[1]
    assert 8 < runs[0].count(500) < 32


async def test_garbage_is_an_answer_that_is_not_json(
    http: httpx.AsyncClient, simulator: SimulatorProcess, thread_id: str
) -> None:
    """The run was created, and the answer is a page of HTML under 200."""
    simulator.fault("runs.create", "garbage", thread_id=thread_id)
    answer = await http.post(f"/threads/{thread_id}/runs", json=RUN)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert simulator.requests(thread_id=thread_id)["accepted"] == {"runs.create": 1}


async def test_a_stream_can_be_cut(
    http: httpx.AsyncClient, simulator: SimulatorProcess, thread_id: str
) -> None:
    """After so many events the connection breaks; the run goes on."""
    simulator.fault("runs.create", "cut_stream", thread_id=thread_id, events=2)
    told: list[str] = []
    with pytest.raises(httpx.TransportError):
        await streamed(http, thread_id, told.append)

    assert told == ["event: thread.run.created", "event: thread.run.queued"]
    run = (await http.get(f"/threads/{thread_id}/runs")).json()["data"][0]
    assert run["status"] in ("queued", "in_progress", "completed")


async def test_a_stream_can_end_in_an_error_event(
    http: httpx.AsyncClient, simulator: SimulatorProcess, thread_id: str
) -> None:
    """`stream_error` says so in the stream and ends it in good order."""
    simulator.fault("runs.create", "stream_error", thread_id=thread_id, events=1)
    told: list[str] = []
    await streamed(http, thread_id, told.append)

    assert told == ["event: thread.run.created", "event: error"]


@pytest.mark.parametrize("kind", ["lost_answer", "cut_stream"])
async def test_a_stream_nobody_reads_is_forgotten(
    http: httpx.AsyncClient, simulator: SimulatorProcess, thread_id: str, kind: str
) -> None:
    """An open stream makes legs go by time; a broken one leaves them to go by retrieves."""
    simulator.scenario(assistant_id=thread_id, queued=0.05, in_progress=0.05, polls=1)
    simulator.fault("runs.create", kind, thread_id=thread_id)
    body = {"assistant_id": thread_id, "stream": True}
    with pytest.raises(httpx.TransportError):
        await http.post(f"/threads/{thread_id}/runs", json=body)
    await asyncio.sleep(0.3)

    (run,) = (await http.get(f"/threads/{thread_id}/runs")).json()["data"]
    assert run["status"] == "queued"


@pytest.mark.parametrize(
    ("order", "named"),
    [
        ({"operation": "runs.creat", "kind": "slow"}, "operation"),
        ({"operation": "*", "kind": "slo"}, "kind"),
        ({"operation": "*", "kind": "slow", "second": 1}, "second"),
    ],
)
async def test_a_wrong_order_names_its_field(
    http: httpx.AsyncClient, simulator: SimulatorProcess, order: dict[str, Any], named: str
) -> None:
    """A misspelt fault is refused, or a test would pass without its fault."""
    url = simulator.url.removesuffix("/v1") + "/_simulator/faults"
    refused = await http.post(url, json=order)

    assert refused.status_code == 400
    assert f"fault: {named}: " in refused.json()["error"]["message"]


async def test_the_log_keeps_bodies_and_never_keys(
    http: httpx.AsyncClient, simulator: SimulatorProcess, thread_id: str
) -> None:
    """Bodies and telling headers are listed; a key given is not."""
    headers = {"authorization": "Bearer sk-secret", "openai-beta": "assistants=v2"}
    await http.post(f"/threads/{thread_id}/runs", json=RUN, headers=headers)
    log = simulator.requests(thread_id=thread_id, operation="runs.create")

    assert log["data"][0]["body"] == RUN
    assert log["data"][0]["headers"]["openai-beta"] == "assistants=v2"
    assert "sk-secret" not in str(log)


async def test_a_forced_expiry_is_early(
    http: httpx.AsyncClient, simulator: SimulatorProcess, thread_id: str
) -> None:
    """A run can be expired by hand, or its expiry moved."""
    simulator.scenario(
        assistant_id=thread_id, queued=0, rounds=[{"in_progress": 0, "calls": [{"name": "f"}]}]
    )
    body = {"assistant_id": thread_id}
    run = (await http.post(f"/threads/{thread_id}/runs", json=body)).json()

    assert simulator.force(run["id"], expires_at=run["created_at"] + 2)["status"] != "expired"
    await asyncio.sleep(2.1)
    url = f"/threads/{thread_id}/runs/{run['id']}"
    assert (await http.get(url)).json()["status"] == "expired"
    second = (await http.post(f"/threads/{thread_id}/runs", json=body)).json()
    assert simulator.force(second["id"], "expired")["status"] == "expired"
    (first, again) = simulator.thread(thread_id)["runs"]
    assert [step["status"] for step in first["steps"] + again["steps"]] == ["expired"] * len(
        first["steps"] + again["steps"]
    )


async def test_runs_can_be_found_by_their_stamp(
    http: httpx.AsyncClient, simulator: SimulatorProcess
) -> None:
    """A test can ask which upstream runs belong to one of ours, and which of them live."""
    stamp = f"run_{uuid4().hex}"
    made = []
    for _ in range(2):
        body = {**RUN, "metadata": {"runlane_run_id": stamp}}
        made.append((await http.post(f"/threads/{uuid4().hex}/runs", json=body)).json()["id"])
    simulator.force(made[0], "cancelled")

    assert [run["id"] for run in simulator.runs(stamp=stamp)] == made
    simulator.force(made[1], "generating")
    assert [run["id"] for run in simulator.runs(stamp=stamp, live=True)] == made[1:]


async def test_down_drops_everything_until_up(own: SimulatorProcess) -> None:
    """While down every request breaks, and so does an open stream; the state survives."""
    own.scenario(rounds=[{"ends": "never"}])
    async with httpx.AsyncClient(base_url=own.url, trust_env=False, timeout=10) as http:
        with pytest.raises(httpx.TransportError):
            await streamed(http, "thread_1", lambda _: own.down())
        with pytest.raises(httpx.TransportError):
            await http.get("/threads/thread_1")
        own.up()
        (run,) = (await http.get("/threads/thread_1/runs")).json()["data"]
        assert run["status"] in ("queued", "in_progress")


async def test_it_ends_at_once_with_requests_held_and_streams_open() -> None:
    """SIGTERM ends the process at once, whatever waits (0.2 s where nothing else runs)."""
    process = SimulatorProcess("--api-key", "sk-1")
    process.start()
    try:
        process.scenario(rounds=[{"ends": "never"}])
        fault = process.fault("threads.retrieve", "hold_before")
        headers = {"api-key": "sk-1"}
        async with httpx.AsyncClient(
            base_url=process.url, trust_env=False, timeout=10, headers=headers
        ) as http:
            held = asyncio.create_task(http.get("/threads/thread_1"))
            told: asyncio.Queue[str] = asyncio.Queue()
            stream = asyncio.create_task(streamed(http, "thread_2", told.put_nowait))
            await told.get()
            await asyncio.to_thread(process.wait_held, fault)
            began = time.monotonic()
            status = await asyncio.to_thread(process.stop)
            took = time.monotonic() - began
            ends = await asyncio.gather(held, stream, return_exceptions=True)
    finally:
        process.stop()

    assert status == 0
    assert took < 2
    assert [isinstance(end, httpx.TransportError) for end in ends] == [True, True]


def test_a_key_can_be_demanded() -> None:
    """With `--api-key` either header serves, and anything else is a 401."""
    with SimulatorProcess("--api-key", "sk-1") as process:

        def status(headers: dict[str, str]) -> int:
            url = f"{process.url}/threads/thread_1"
            return httpx.get(url, headers=headers, trust_env=False).status_code

        assert status({"api-key": "sk-1"}) == 200
        assert status({"authorization": "Bearer sk-1"}) == 200
        assert status({"authorization": "Bearer sk-2"}) == 401
        assert status({}) == 401
