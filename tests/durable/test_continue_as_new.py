"""Continue-as-new: a run goes on in a fresh history wherever it is, and nobody can tell.

The server of these tests suggests it after a few events already.
"""

import asyncio
import contextlib
from itertools import count, pairwise
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from runlane import Runlane
from runlane.settings import Settings
from tests.histories import attribute, chain, chain_length, history, kinds, pending_memo
from tests.lab import Lab, LabRun, eventually
from tests.outsider import Outsider
from tests.restless import (
    ENDLESS,
    LAST,
    STATES,
    SUGGESTED_AT,
    Noise,
    asking,
    gathering,
    on_a_timer,
    parked,
)
from workflows.contract import REQUEST_MEMO, MetadataUpdate, RunView
from workflows.run import RunWorkflow

ROUNDS = 31
"""Each long enough for a history of its own."""


@pytest.fixture
def lab(restless_lab: Lab) -> Lab:
    """Let every test here run on the restless server."""
    return restless_lab


async def is_quiet(lab: Lab, run: LabRun) -> bool:
    """Tell whether the run, left alone, leaves its history alone."""
    before = await chain_length(lab.client, run)
    await asyncio.sleep(1.2)
    return await chain_length(lab.client, run) == before


def lasting(view: RunView) -> Any:
    """Return of a view what no continue-as-new may change."""
    runlane = view.runlane.model_copy(update={"early": [], "polls": 0})
    return view.run, runlane


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_thirty_times_under_a_stream_of_answers(
    lab: Lab, outsider: Outsider, restless: Client
) -> None:
    """Thirty continue-as-news and more while answers pour in: none is lost, none counts twice.

    Request, attributes and deadline are those of the start, counters only grow, and each history
    stays short.
    """
    names = ("a", "b", "c")
    await lab.scenario(rounds=[*[asking(*names) for _ in range(ROUNDS)], LAST])
    runlane = Runlane(restless, Settings(task_queue=lab.task_queue))
    created = await runlane.runs.create(
        lab.thread_id,
        assistant_id=lab.assistant_id,
        poll_interval_ms=100,
        metadata={"ticket": "7"},
        model="m1",
    )
    run = LabRun(restless.get_workflow_handle_for(RunWorkflow.run, created.id))
    first = await run.handle.describe()
    views: list[RunView] = []
    expected: list[dict[str, str]] = []
    noise = Noise(run)
    for number in count(1):
        view = await run.until(lambda view, n=number: view.runlane.rounds == n)  # type: ignore[misc]
        views.append(view)
        calls = [call.tool_call_id for call in view.runlane.pending]
        assert len(calls) == 3
        outputs = {call: f"{number} {call}" for call in calls}
        expected.append(outputs)
        for _ in range(2):
            # Each in a task of its own, however busy the machine is.
            await noise.send()
            await run.view()
        await run.signal((calls[0], outputs[calls[0]]))
        await asyncio.gather(
            run.signal((calls[0], "another")),
            runlane.runs.deliver(
                run.id, tool_outputs=[{"tool_call_id": calls[1], "output": outputs[calls[1]]}]
            ),
            *(noise.send() for _ in range(2)),
        )
        await run.until(lambda view: len(view.runlane.pending) == 1)
        receipts = await runlane.runs.deliver(
            run.id, tool_outputs=[{"tool_call_id": calls[2], "output": outputs[calls[2]]}]
        )
        assert receipts.receipts[0].status == "accepted"
        if number == ROUNDS:
            break

    result = await run.result()

    assert result.run.status == "completed"
    sent = [
        {output["tool_call_id"]: output["output"] for output in body["tool_outputs"]}
        for body in outsider.bodies("runs.submit_tool_outputs")
    ]
    assert sent == expected
    assert await lab.received("runs.submit_tool_outputs") == ROUNDS
    assert await lab.accepted("runs.create") == 1
    assert [answer.outcome for answer in result.runlane.answers] == ["submitted"] * 3 * ROUNDS
    assert sorted(result.runlane.early) == sorted(noise.sent)
    assert [rejected.reason for rejected in result.runlane.rejected] == ["conflict"] * ROUNDS
    views.append(result)
    assert len({view.runlane.deadline_at for view in views}) == 1
    assert all(a.runlane.polls <= b.runlane.polls for a, b in pairwise(views))

    histories = await chain(restless, run, first.run_id)
    assert len(histories) > 30
    starts = [events[0].workflow_execution_started_event_attributes for events in histories]
    memos = [start.memo.fields[REQUEST_MEMO] for start in starts]
    [first_memo, *later_memos] = await restless.data_converter.decode(memos, [dict] * len(memos))
    assert all(memo == first_memo for memo in later_memos)
    for name in ("RunlaneThread", "RunlaneAssistant", "RunlaneCreated"):
        values = {start.search_attributes.indexed_fields[name].data for start in starts}
        assert len(values) == 1, name
        assert values != {b""}, name
    assert max(len(events) for events in histories) < 8 * SUGGESTED_AT


@pytest.mark.parametrize("state", STATES)
async def test_in_every_state(lab: Lab, outsider: Outsider, state: str) -> None:
    """Continued three times over, a run waits on as before and then comes to its end.

    Left alone it does not continue: the suggestion alone is no work.
    """
    run = await STATES[state](lab)
    before = await run.view()
    noise = Noise(run)

    await noise.until_continued(lab, 3)

    after = await run.view()
    assert lasting(after) == lasting(before)
    assert after.runlane.early == noise.sent
    assert await is_quiet(lab, run)
    assert await attribute(run, "RunlaneStatus") == before.run.status
    assert await attribute(run, "RunlaneThread") == lab.thread_id
    if state == "blocked":
        assert await attribute(run, "RunlaneBlocked") == "credentials"
    if state in ("gathering", "parked"):
        assert await pending_memo(run) == before.runlane.pending
    if state == "attached":
        await lab.force(str(before.runlane.upstream_run_id), "completed")
    if state in ("blocked", "timer"):
        await run.handle.signal(RunWorkflow.nudge)
    if state != "attached":
        await run.answer_all()
    if state == "timer":
        await eventually(
            lambda: lab.accepted("runs.submit_tool_outputs"), lambda submits: submits == 1
        )
        await asyncio.sleep(2.1)
        await run.handle.signal(RunWorkflow.nudge)
    result = await run.result()

    assert result.run.status == "completed"
    assert await lab.accepted("runs.create") == (2 if state == "parked" else 1)
    assert await lab.accepted("runs.submit_tool_outputs") == (state != "attached")
    assert sorted(result.runlane.early) == sorted(noise.sent)


async def test_never_with_an_effect_in_flight(lab: Lab) -> None:
    """A submit under way is seen through first, though the suggestion stands; a cancel that came
    meanwhile crosses over.
    """
    await lab.scenario(rounds=[asking("a"), ENDLESS])
    fault = await lab.fault("runs.submit_tool_outputs", "hold_after")
    run = await lab.start()
    await run.answer_all()
    await lab.held(fault)
    noise = Noise(run)
    executions = await chain_length(lab.client, run)

    for _ in range(SUGGESTED_AT // 2):
        await noise.send()
        await run.view()
    assert await chain_length(lab.client, run) == executions
    await lab.release(fault)
    await eventually(lambda: chain_length(lab.client, run), lambda length: length > executions)
    view = await run.until(lambda view: view.runlane.answers[0].outcome == "submitted")
    assert view.runlane.early == noise.sent
    await run.cancel()

    assert (await run.result()).run.status == "cancelled"
    assert await lab.received("runs.submit_tool_outputs") == 1


async def test_a_cancel_during_an_effect_crosses_over(lab: Lab) -> None:
    """Cancelled while a submit was under way and the suggestion stood: the end comes after both."""
    await lab.scenario(rounds=[asking("a"), ENDLESS])
    fault = await lab.fault("runs.submit_tool_outputs", "hold_after")
    run = await lab.start()
    await run.answer_all()
    await lab.held(fault)
    noise = Noise(run)
    for _ in range(SUGGESTED_AT // 2):
        await noise.send()
        await run.view()

    await run.cancel()
    await asyncio.sleep(0.3)
    await lab.release(fault)

    result = await run.result()
    assert result.run.status == "cancelled"
    assert result.runlane.answers[0].outcome == "submitted"
    assert await lab.accepted("runs.cancel") == 1
    assert await lab.received("runs.submit_tool_outputs") == 1


async def test_a_cancel_is_waited_for_across(lab: Lab) -> None:
    """While the upstream takes its time to cancel, a run continues and asks it only once."""
    await lab.scenario(rounds=[asking("a"), LAST], cancel_seconds=3.0)
    run = await lab.start()
    await run.until_status("requires_action")
    await run.cancel()
    await eventually(lambda: lab.accepted("runs.cancel"), lambda cancels: cancels == 1)
    executions = await chain_length(lab.client, run)
    for _ in range(SUGGESTED_AT):
        with contextlib.suppress(Exception):
            await run.signal(("late", "x"))
            await run.view()

    result = await run.result()

    assert result.run.status == "cancelled"
    assert await lab.received("runs.cancel") == 1
    assert await chain_length(lab.client, run) > executions
    assert {rejected.reason for rejected in result.runlane.rejected} == {"late"}


async def test_metadata_is_told_upstream_across(lab: Lab, outsider: Outsider) -> None:
    """An update of the metadata that waits for another one to be sent crosses over, and is sent."""
    run = await gathering(lab)
    fault = await lab.fault("runs.update", "hold_before")
    await run.handle.execute_update(
        RunWorkflow.update_metadata, MetadataUpdate(metadata={"step": "1"})
    )
    await lab.held(fault)
    noise = Noise(run)
    executions = await chain_length(lab.client, run)
    for _ in range(SUGGESTED_AT // 2):
        await noise.send()
        await run.view()
    await run.handle.execute_update(
        RunWorkflow.update_metadata, MetadataUpdate(metadata={"step": "2"})
    )
    assert await chain_length(lab.client, run) == executions

    await lab.release(fault)
    await eventually(lambda: lab.accepted("runs.update"), lambda updates: updates == 2)

    assert await chain_length(lab.client, run) > executions
    (upstream,) = outsider.runs()
    assert upstream["metadata"] == {
        "step": "2",
        "runlane_run_id": run.id,
        "runlane_attempt": "1",
    }
    assert await is_quiet(lab, run)
    await run.answer_all()
    assert (await run.result()).run.metadata == {"step": "2"}


async def test_metadata_waits_for_the_next_upstream_run_across(
    lab: Lab, outsider: Outsider
) -> None:
    """Parked, there is nobody to tell: it is stored, carried over and sent with the next create."""
    run = await parked(lab)
    await run.handle.execute_update(
        RunWorkflow.update_metadata, MetadataUpdate(metadata={"step": "1"})
    )
    await Noise(run).until_continued(lab, 2)
    assert await is_quiet(lab, run)

    await run.answer_all()

    result = await run.result()
    assert (result.run.status, result.run.metadata) == ("completed", {"step": "1"})
    assert outsider.runs()[-1]["metadata"]["step"] == "1"
    assert await lab.received("runs.update") == 0


async def test_ten_answers_at_once_across(lab: Lab, outsider: Outsider) -> None:
    """Ten updates that meet continue-as-news are all taken, in one submit."""
    await lab.scenario(rounds=[asking(*(f"t{n}" for n in range(10))), LAST])
    run = await lab.start()
    view = await run.until_status("requires_action")
    runlane = Runlane(lab.client, Settings(task_queue=lab.task_queue))
    noise = Noise(run)

    async def answer(call_id: str) -> str:
        given = await runlane.runs.deliver(
            run.id, tool_outputs=[{"tool_call_id": call_id, "output": call_id}]
        )
        return str(given.receipts[0].status)

    answering = asyncio.gather(*(answer(call.tool_call_id) for call in view.runlane.pending))
    await asyncio.gather(*(noise.send() for _ in range(20)))

    assert set(await answering) == {"accepted"}
    assert (await run.result()).run.status == "completed"
    (request,) = outsider.requests("runs.submit_tool_outputs")
    assert len(request["body"]["tool_outputs"]) == 10
    assert await chain_length(lab.client, run) > 1


async def test_a_nudge_that_brings_the_suggestion_is_kept(lab: Lab) -> None:
    """The signal that makes the history long enough is not lost with it."""
    run = await on_a_timer(lab)
    noise = Noise(run)
    # Until the next signal, once its task has begun, makes the history long enough.
    while len(await history(run)) + 3 < SUGGESTED_AT:
        await noise.send()
        await run.view()
    executions = await chain_length(lab.client, run)
    assert await lab.received("runs.retrieve") == 0

    await run.handle.signal(RunWorkflow.nudge)

    await run.until_status("requires_action")
    assert await chain_length(lab.client, run) > executions
    await run.cancel()
    await run.result()


async def test_an_endless_run_is_cut_by_its_rounds_across(lab: Lab) -> None:
    """Table, rounds limit: `incomplete`, with the reason in `last_error`; rounds are counted over
    all executions.
    """
    await lab.scenario(rounds=[asking("again")], endless=True)
    run = await lab.start(max_rounds=6)
    for number in range(1, 7):
        await run.until(lambda view, n=number: view.runlane.rounds == n)  # type: ignore[misc]
        await run.answer_all()

    result = await run.result()

    assert result.run.status == "incomplete"
    assert result.run.last_error is not None
    assert "more than 6 rounds" in result.run.last_error.message
    assert await lab.accepted("runs.submit_tool_outputs") == 6
    assert await lab.accepted("runs.cancel") == 1
    histories = await chain(lab.client, run)
    assert len(histories) > 3
    failed = EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
    assert all(
        # A signal that meets the continuation makes Temporal do its task again; nothing else may.
        "UNHANDLED_COMMAND" in str(event.workflow_task_failed_event_attributes)
        for events in histories
        for event in events
        if event.event_type == failed
    ), [kinds(events) for events in histories]
