"""The Python client against a real Temporal, a real worker and an upstream over HTTP."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from runlane import Runlane, messages
from runlane.errors import (
    AnswersRefused,
    InvalidRequest,
    KeyReused,
    NoWorker,
    Refused,
    RunEnded,
    RunNotFound,
    WaitTimeout,
)
from runlane.settings import Settings
from runsapi import Run
from tests.lab import Lab, eventually
from tests.simulator_process import SimulatorProcess
from workflows.contract import ReceiptStatus

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "lookup_order",
            "parameters": {"type": "object", "properties": {"order_id": {"type": "string"}}},
        },
    }
]


class Desk:
    """A lab, and the client that its runs are started with."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.client = Runlane(
            lab.client, Settings(task_queue=lab.task_queue, upstream_url=lab.simulator.url)
        )
        self.runs = self.client.runs

    async def create(self, **params: Any) -> Run:
        """Start a run that calls one tool."""
        return await self.runs.create(
            self.lab.thread_id, assistant_id=self.lab.assistant_id, tools=TOOLS, **params
        )

    async def waiting(self) -> tuple[Run, str]:
        """Return a run that waits for an answer, and the id of the call."""
        run = await self.runs.poll((await self.create()).id, timeout=30)
        return run, run.tool_calls[0].id


@pytest_asyncio.fixture
async def desk(client: Client, simulator: SimulatorProcess) -> AsyncIterator[Desk]:
    """A client and a worker on a queue of the test's own."""
    lab = Lab(client, simulator)
    async with lab.worker():
        yield Desk(lab)


@pytest.fixture
def lonely(client: Client, simulator: SimulatorProcess) -> Desk:
    """A client on a queue that no worker serves."""
    return Desk(Lab(client, simulator))


async def test_a_run_is_created_answered_and_read_by_the_protocols_names(desk: Desk) -> None:
    """Whoever knows `client.beta.threads.runs` knows this client."""
    run = await desk.create(metadata={"team": "ops"})
    waiting = await desk.runs.poll(run.id, timeout=30)
    (call,) = waiting.tool_calls
    outputs = [{"tool_call_id": call.id, "output": "shipped"}]
    done = await desk.runs.submit_tool_outputs_and_poll(run.id, tool_outputs=outputs, timeout=30)
    steps = await desk.runs.steps.list(run.id, order="asc")

    assert ("queued", "requires_action", "completed") == (run.status, waiting.status, done.status)
    assert {"team": "ops"} == done.metadata
    assert done.completed_at
    assert [run.id, run.id] == [step.run_id for step in steps.data]
    assert steps.data[0] == await desk.runs.steps.retrieve(steps.data[0].id, run_id=run.id)


async def test_a_thread_id_that_is_not_the_runs_finds_nothing(desk: Desk) -> None:
    """A run can't be read, answered or cancelled by way of another thread."""
    run = await desk.create()

    for attempt in (
        desk.runs.retrieve(run.id, "thread_other"),
        desk.runs.cancel(run.id, "thread_other"),
        desk.runs.update(run.id, thread_id="thread_other", metadata={}),
        desk.runs.poll(run.id, "thread_other", timeout=5),
    ):
        with pytest.raises(RunNotFound, match="thread_other"):
            await attempt
    assert run.id == (await desk.runs.retrieve(run.id, desk.lab.thread_id)).id


async def test_a_key_returns_its_run_whatever_its_state(desk: Desk) -> None:
    """Same key, same request: the same run, also after its end, and one upstream run."""
    key = secrets.token_hex(4)
    asked = {"assistant_id": desk.lab.assistant_id, "idempotency_key": key}
    first = await desk.runs.create(desk.lab.thread_id, **asked)  # type: ignore[arg-type]
    done = await desk.runs.poll(first.id, timeout=30)
    again = await desk.runs.create(desk.lab.thread_id, **asked)  # type: ignore[arg-type]

    assert (first.id, "completed") == (again.id, again.status)
    assert done.completed_at == again.completed_at
    assert 1 == await desk.lab.accepted("runs.create")


async def test_a_key_never_hands_out_another_requests_run(desk: Desk) -> None:
    """Same key, other request: an error that says so, while the run lives and after it."""
    key = secrets.token_hex(4)
    run = await desk.create(idempotency_key=key)

    with pytest.raises(KeyReused, match=run.id):
        await desk.create(idempotency_key=key, instructions="other")
    await desk.runs.cancel(run.id)
    await desk.runs.poll(run.id, timeout=30)
    with pytest.raises(KeyReused, match=run.id):
        await desk.create(idempotency_key=key, max_rounds=3)


async def test_twenty_callers_with_one_key_get_one_run(desk: Desk) -> None:
    """Whoever comes first starts it; the others get the same one, and none an error."""
    key = secrets.token_hex(4)

    runs = await asyncio.gather(*(desk.create(idempotency_key=key) for _ in range(20)))
    await desk.runs.poll(runs[0].id, timeout=30)

    assert 1 == len({run.id for run in runs})
    assert 1 == await desk.lab.accepted("runs.create")


async def test_receipts_tell_answers_apart(desk: Desk) -> None:
    """Unknown, accepted, the same again, and other content too late: each is told."""
    run, call_id = await desk.waiting()

    async def deliver(call: str, output: str) -> str:
        outputs = [{"tool_call_id": call, "output": output}]
        (receipt,) = (await desk.runs.deliver(run.id, tool_outputs=outputs)).receipts
        return str(receipt.status)

    live = [await deliver("call_none", "x"), await deliver(call_id, "yes")]
    live.append(await deliver(call_id, "yes"))
    await desk.runs.poll(run.id, timeout=30)
    ended = [await deliver(call_id, "yes"), await deliver(call_id, "no")]

    assert ["unknown", "accepted", "duplicate", "duplicate", "late"] == live + ended


async def test_a_refused_answer_is_an_error_with_its_receipt(desk: Desk) -> None:
    """`submit_tool_outputs` never passes over an answer that wasn't taken."""
    run, _ = await desk.waiting()

    with pytest.raises(AnswersRefused, match="unknown") as refused:
        await desk.runs.submit_tool_outputs(
            run.id, tool_outputs=[{"tool_call_id": "call_none", "output": "x"}]
        )

    assert [ReceiptStatus.UNKNOWN] == [receipt.status for receipt in refused.value.receipts]


async def test_a_message_that_would_kill_the_run_is_never_sent(desk: Desk) -> None:
    """2.2 MB are refused here; the run lives on and takes the next answer."""
    run, call_id = await desk.waiting()

    with pytest.raises(Refused, match="1,000,000"):
        await desk.runs.submit_tool_outputs(
            run.id, tool_outputs=[{"tool_call_id": call_id, "output": "x" * 2_200_000}]
        )
    done = await desk.runs.submit_tool_outputs_and_poll(
        run.id, tool_outputs=[{"tool_call_id": call_id, "output": "short"}], timeout=30
    )

    assert "completed" == done.status


async def test_a_request_of_a_megabyte_goes_through(desk: Desk) -> None:
    """Where big payloads have a place, a large thread is no reason to refuse a run."""
    messages = [{"role": "user", "content": "word " * 40_000} for _ in range(6)]

    run = await desk.create(additional_messages=messages)

    assert "requires_action" == (await desk.runs.poll(run.id, timeout=60)).status


async def test_metadata_is_replaced_until_the_end(desk: Desk) -> None:
    """The caller's pairs are replaced as a whole; after the end they stay."""
    run, _ = await desk.waiting()

    changed = await desk.runs.update(run.id, metadata={"b": "2"})
    await desk.runs.cancel(run.id)
    await desk.runs.poll(run.id, timeout=30)

    assert {"b": "2"} == changed.metadata
    with pytest.raises(RunEnded, match="cancelled"):
        await desk.runs.update(run.id, metadata={})


async def test_cancelling_an_ended_run_returns_it(desk: Desk) -> None:
    """Whoever completed first has completed."""
    run = await desk.runs.create(desk.lab.thread_id, assistant_id=desk.lab.assistant_id)
    await desk.runs.poll(run.id, timeout=30)

    assert "completed" == (await desk.runs.cancel(run.id)).status


async def test_a_stream_yields_the_runs_events(desk: Desk) -> None:
    """From its creation to where it waits; the answer's stream goes on to its end."""
    stream = desk.runs.stream(desk.lab.thread_id, assistant_id=desk.lab.assistant_id, tools=TOOLS)
    first = [event.event async for event in stream]
    assert stream.current_run is not None
    (call,) = stream.current_run.tool_calls
    answered = desk.runs.submit_tool_outputs_stream(
        stream.current_run.id, tool_outputs=[{"tool_call_id": call.id, "output": "x"}]
    )

    assert ["thread.run.created", "thread.run.queued"] == first[:2]
    assert "thread.run.requires_action" == first[-1]
    assert "completed" == (await answered.get_final_run()).status
    with pytest.warns(DeprecationWarning, match="use runs.stream"):
        desk.runs.create_and_stream(desk.lab.thread_id, assistant_id=desk.lab.assistant_id)


async def test_without_a_worker_a_message_says_so_within_seconds(lonely: Desk) -> None:
    """Nobody waits for ever, and the remedy is named."""
    run = await lonely.create()
    began = time.monotonic()

    with pytest.raises(NoWorker, match="runlane worker"):
        await lonely.runs.submit_tool_outputs(
            run.id, tool_outputs=[{"tool_call_id": "call_1", "output": "x"}]
        )

    assert time.monotonic() - began < 10


async def test_without_a_worker_a_run_is_read_with_the_time_of_what_is_known(
    lonely: Desk,
) -> None:
    """Status, thread, metadata and deadline are known to Temporal itself."""
    run = await lonely.create(metadata={"team": "ops"})
    view = await lonely.runs.view(run.id)

    assert ("queued", lonely.lab.thread_id, {"team": "ops"}) == (
        view.run.status,
        view.run.thread_id,
        view.run.metadata,
    )
    assert view.runlane.worker is False
    assert view.runlane.known_at == pytest.approx(time.time(), abs=30)
    with pytest.raises(WaitTimeout, match="queued"):
        await lonely.runs.poll(run.id, timeout=0.5)


async def test_a_busy_workflow_is_read_as_temporal_knows_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is far behind keeps nobody from what was accepted; Temporal refuses queries.

    The refusal is played: a real one comes only now and then, from a machine that is used up.
    """
    run, call_id = await desk.waiting()

    async def busy(*_: object, **__: object) -> None:
        raise RPCError("Workflow is busy.", RPCStatusCode.RESOURCE_EXHAUSTED, b"")

    monkeypatch.setattr(WorkflowHandle, "query", busy)
    view = await desk.runs.view(run.id)

    assert view.runlane.worker is False
    assert [call_id] == [call.tool_call_id for call in view.runlane.pending]


async def test_a_run_whose_tasks_fail_takes_no_message(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Temporal refuses what nobody can take; it is said as it is where nobody is there.

    The refusal is played: where a task fails for real, a message mostly times out instead.
    """
    run, _ = await desk.waiting()

    async def refused(*_: object, **__: object) -> None:
        text = "Unable to perform workflow execution update due to Workflow Task in failed state."
        raise RPCError(text, RPCStatusCode.FAILED_PRECONDITION, b"")

    monkeypatch.setattr(WorkflowHandle, "start_update", refused)
    monkeypatch.setattr(messages, "PATIENCE", timedelta(seconds=1))
    with pytest.raises(NoWorker, match="runlane worker"):
        await desk.runs.cancel(run.id)


async def test_a_worker_that_is_gone_leaves_what_it_knew(
    client: Client, simulator: SimulatorProcess
) -> None:
    """The waiting call is known without a worker, with when that was written."""
    desk = Desk(Lab(client, simulator))
    async with desk.lab.worker():
        run, call_id = await desk.waiting()
    view = await desk.runs.view(run.id)

    assert "requires_action" == view.run.status
    assert [call_id] == [call.tool_call_id for call in view.runlane.pending]
    assert [call_id] == [call.id for call in view.run.tool_calls]
    assert view.runlane.worker is False
    assert view.runlane.known_at is not None


async def test_a_run_terminated_in_temporal_is_failed_and_names_what_it_leaves(desk: Desk) -> None:
    """Nobody told the upstream, so the error says which run may be alive there."""
    run, _ = await desk.waiting()
    upstream_run_id = (await desk.runs.view(run.id)).runlane.upstream_run_id
    await desk.lab.client.get_workflow_handle(run.id).terminate("by hand")

    view = await desk.runs.view(run.id)

    assert "failed" == view.run.status
    assert view.run.last_error is not None
    assert f"upstream run {upstream_run_id} may be alive" in view.run.last_error.message
    assert [] == view.run.tool_calls


async def test_an_ended_run_needs_no_worker(client: Client, simulator: SimulatorProcess) -> None:
    """It is read from its result, in full."""
    desk = Desk(Lab(client, simulator))
    async with desk.lab.worker():
        run = await desk.runs.create(desk.lab.thread_id, assistant_id=desk.lab.assistant_id)
        await desk.runs.poll(run.id, timeout=30)
    began = time.monotonic()
    view = await desk.runs.view(run.id)

    # Waiting for a worker first would take two seconds.
    assert time.monotonic() - began < 2
    assert ("completed", True) == (view.run.status, view.runlane.simulated)
    assert view.run.usage is not None


async def test_what_is_being_tried_again_is_shown(
    client: Client, simulator: SimulatorProcess
) -> None:
    """While the upstream is down, a view says what the last try met and when the next is due."""
    desk = Desk(Lab(client, simulator))
    async with desk.lab.worker(upstream_url="http://127.0.0.1:1/v1"):
        run = await desk.create()
        view = await eventually(
            lambda: desk.runs.view(run.id), lambda seen: seen.runlane.retrying is not None
        )

    assert "queued" == view.run.status
    assert view.runlane.next_try_at is not None
    assert time.time() - 5 < view.runlane.next_try_at < time.time() + 60


async def test_an_attached_polls_findings_are_shown(desk: Desk) -> None:
    """A view shows what the poll under way has seen, although no event tells the workflow."""
    await desk.lab.scenario(rounds=[{"queued": 0.1, "in_progress": 8}])
    run = await desk.runs.create(desk.lab.thread_id, assistant_id=desk.lab.assistant_id)

    view = await eventually(
        lambda: desk.runs.view(run.id), lambda seen: seen.run.status == "in_progress"
    )

    assert view.runlane.polls > 0
    assert "in_progress" == view.runlane.upstream_status


async def test_a_nudge_makes_a_run_look(desk: Desk) -> None:
    """A run that would look again in an hour looks now."""
    await desk.lab.scenario(rounds=[{"queued": 0.1, "in_progress": 0.2}])
    run = await desk.runs.create(
        desk.lab.thread_id, assistant_id=desk.lab.assistant_id, poll_interval_ms=3_600_000
    )
    await eventually(
        lambda: desk.runs.view(run.id),
        lambda seen: seen.runlane.upstream_run_id is not None,
    )
    await asyncio.sleep(2.5)
    await desk.runs.nudge(run.id)

    assert "completed" == (await desk.runs.poll(run.id, timeout=20)).status


async def test_no_such_run_is_told_everywhere(desk: Desk) -> None:
    """Whatever is asked of it, and however odd the id."""
    for run_id in ("run_none", "nonsense", "", "x" * 2000):
        for attempt in (
            desk.runs.retrieve(run_id),
            desk.runs.cancel(run_id),
            desk.runs.nudge(run_id),
            desk.runs.update(run_id, metadata={}),
            desk.runs.deliver(run_id, tool_outputs=[{"tool_call_id": "a", "output": "b"}]),
        ):
            with pytest.raises(RunNotFound):
                await attempt


async def test_steps_of_nowhere_say_which_variable_is_missing(desk: Desk) -> None:
    """Steps stand with the upstream; a process that doesn't know it can't show them."""
    run, _ = await desk.waiting()
    elsewhere = Runlane(desk.lab.client, Settings(task_queue=desk.lab.task_queue))

    with pytest.raises(InvalidRequest, match="RUNLANE_UPSTREAM_URL"):
        await elsewhere.runs.steps.list(run.id)
