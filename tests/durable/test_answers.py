"""Answers in every order, by signal and by update: each counts once, and none is lost."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import WorkflowUpdateFailedError
from temporalio.service import RPCError, RPCStatusCode

from runlane import Runlane
from runlane.settings import Settings
from tests.histories import attribute, history, kinds, pending_memo, undisturbed
from tests.lab import Lab, LabRun, eventually
from tests.outsider import Outsider
from workflows.contract import (
    MAX_EARLY_CALLS,
    RunView,
    ToolOutputMessage,
    ToolOutputs,
    content_digest,
)
from workflows.run import RunWorkflow

ENDLESS = {"queued": 0.0, "ends": "never"}


def asking(*names: str) -> dict[str, Any]:
    """Return a round that asks for these calls."""
    return {
        "queued": 0.05,
        "in_progress": 0.05,
        "calls": [{"name": name, "arguments": {"of": name}} for name in names],
    }


LAST = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}


@pytest.fixture
def runlane(lab: Lab) -> Runlane:
    """The product's client, on this lab's queue."""
    return Runlane(lab.client, Settings(task_queue=lab.task_queue))


@pytest_asyncio.fixture
async def blind(lab: Lab) -> AsyncIterator[Callable[[], Any]]:
    """Keep the run from seeing its upstream run, until the returned function is called."""
    fault = await lab.fault("runs.retrieve", "hold_before")

    async def see() -> None:
        await lab.release(fault)

    yield see
    await lab.release(fault)


async def started_blind(lab: Lab, outsider: Outsider, **scenario: Any) -> tuple[LabRun, list[str]]:
    """Start a run; return it with the ids its upstream asks for, which it hasn't seen yet."""
    await lab.scenario(**scenario)
    run = await lab.start()
    await run.until(lambda view: view.runlane.upstream_run_id is not None)

    async def asked() -> list[str]:
        (upstream,) = outsider.runs()
        action = upstream["required_action"] or {"submit_tool_outputs": {"tool_calls": []}}
        return [call["id"] for call in action["submit_tool_outputs"]["tool_calls"]]

    return run, await eventually(asked, bool)


def ids(view: RunView) -> list[str]:
    """Return the pending calls' ids."""
    return [call.tool_call_id for call in view.runlane.pending]


@pytest.mark.parametrize("how", ["update", "signal"])
async def test_an_answer_before_the_run_has_asked(
    lab: Lab, outsider: Outsider, blind: Callable[[], Any], how: str
) -> None:
    """An answer that comes before `requires_action` was seen is kept, and used when asked for."""
    run, (call,) = await started_blind(lab, outsider, rounds=[asking("look"), LAST])

    if how == "update":
        assert await run.submit((call, "first")) == ["early"]
    else:
        await run.signal((call, "first"))
    view = await run.until(lambda view: view.runlane.early == [call])
    assert view.run.status in ("queued", "in_progress")
    assert await run.submit((call, "first"), (call, "other")) == ["duplicate", "conflict"]

    await blind()
    result = await run.result()
    assert result.run.status == "completed"
    assert result.runlane.early == []
    assert [answer.outcome for answer in result.runlane.answers] == ["submitted"]
    (body,) = outsider.bodies("runs.submit_tool_outputs")
    assert body["tool_outputs"] == [{"tool_call_id": call, "output": "first"}]


async def test_an_early_answer_leaves_the_other_calls_waiting(
    lab: Lab, outsider: Outsider, blind: Callable[[], Any]
) -> None:
    """Of two calls, one answered early: the run asks for the other alone."""
    run, calls = await started_blind(lab, outsider, rounds=[asking("a", "b"), LAST])
    assert await run.submit((calls[1], "b")) == ["early"]

    await blind()
    view = await run.until_status("requires_action")

    assert ids(view) == [calls[0]]
    assert [call.tool_call_id for call in await pending_memo(run)] == [calls[0]]
    assert await run.submit((calls[0], "a")) == ["accepted"]
    assert (await run.result()).run.status == "completed"
    assert await lab.received("runs.submit_tool_outputs") == 1


async def test_twice_and_differing(lab: Lab, outsider: Outsider) -> None:
    """A second answer is told apart as duplicate or conflict; the first stands."""
    await lab.scenario(rounds=[asking("a", "b"), LAST])
    run = await lab.start()
    first, second = ids(await run.until_status("requires_action"))

    assert await run.submit((first, "1"), by="ann") == ["accepted"]
    assert await run.submit((first, "1"), by="bob") == ["duplicate"]
    assert await run.submit((first, "2")) == ["conflict"]
    # One message may hold both; what is new in it counts.
    assert await run.submit((first, "2"), (second, "")) == ["conflict", "accepted"]

    result = await run.result()
    assert [(a.output_digest, a.by) for a in result.runlane.answers] == [
        (content_digest("1"), "ann"),
        (content_digest(""), None),
    ]
    (body,) = outsider.bodies("runs.submit_tool_outputs")
    assert {o["tool_call_id"]: o["output"] for o in body["tool_outputs"]} == {
        first: "1",
        second: "",
    }


async def test_a_refused_update_leaves_no_event(lab: Lab) -> None:
    """Duplicate, conflict, unknown and malformed updates cost nothing in the history."""
    await lab.scenario(rounds=[asking("a", "b"), LAST])
    run = await lab.start()
    first, second = ids(await run.until_status("requires_action"))
    await run.submit((first, "1"))
    await run.until(lambda view: len(view.runlane.pending) == 1)
    before = await run.events()

    assert await run.submit((first, "1")) == ["duplicate"]
    assert await run.submit((first, "2")) == ["conflict"]
    assert await run.submit(("call_nobody_knows", "1")) == ["unknown"]
    assert await run.submit(("call_x", "1"), (first, "3")) == ["unknown", "conflict"]
    with pytest.raises(WorkflowUpdateFailedError) as none:
        await run.handle.execute_update(
            RunWorkflow.submit_tool_outputs, ToolOutputs(tool_outputs=[])
        )
    with pytest.raises(WorkflowUpdateFailedError) as long:
        await run.submit(("c" * 256, "1"))

    assert "1 to 128 outputs" in str(none.value.cause)
    assert "1 to 255 characters" in str(long.value.cause)
    assert await run.events() == before
    assert await run.submit((second, "2")) == ["accepted"]
    assert (await run.result()).run.status == "completed"


async def test_unknown_ids_by_signal_stay_in_view(lab: Lab) -> None:
    """A signal is never refused: what it brings for an unknown call is kept, and shown."""
    await lab.scenario(rounds=[asking("a"), LAST])
    run = await lab.start()
    view = await run.until_status("requires_action")

    await run.signal(("call_nobody_knows", "1"))

    assert (await run.until(lambda view: bool(view.runlane.early))).runlane.early == [
        "call_nobody_knows"
    ]
    # Known by now, so that an update is told apart from a first answer.
    assert await run.submit(("call_nobody_knows", "2")) == ["conflict"]
    await run.submit((ids(view)[0], "ok"))
    result = await run.result()
    assert result.run.status == "completed"
    assert result.runlane.early == ["call_nobody_knows"]
    assert len(result.runlane.answers) == 1


async def test_rejected_signals_are_kept_with_their_reason(lab: Lab) -> None:
    """What a signal brings in vain stands in `view`, with why and from whom; the last hundred."""
    await lab.scenario(rounds=[asking("a", "b"), LAST])
    run = await lab.start()
    first, second = ids(await run.until_status("requires_action"))
    await run.submit((first, "1"))

    await run.signal((first, "1"))
    await run.signal((first, "2"))
    view = await run.until(lambda view: bool(view.runlane.rejected))

    assert [(r.tool_call_id, r.reason) for r in view.runlane.rejected] == [(first, "conflict")]
    flood = ToolOutputs(
        tool_outputs=[ToolOutputMessage(tool_call_id=first, output=f"{n}") for n in range(10, 160)],
        by="loop",
    )
    await run.handle.signal(RunWorkflow.tool_outputs, flood)
    view = await run.until(lambda view: len(view.runlane.rejected) > 1)
    assert len(view.runlane.rejected) == 100
    assert {r.by for r in view.runlane.rejected} == {"loop"}
    await run.signal((second, "2"))
    assert (await run.result()).run.status == "completed"


async def test_a_malformed_signal_harms_nobody(lab: Lab) -> None:
    """A signal that can't be read is dropped, one nobody handles ignored; the run goes on."""
    await lab.scenario(rounds=[asking("a"), LAST])
    run = await lab.start()
    view = await run.until_status("requires_action")

    await run.handle.signal("tool_outputs", "no outputs at all")
    await run.handle.signal("tool_outputs", {"tool_outputs": [{"tool_call_id": 7}]})
    await run.handle.signal("no_such_signal", 1)
    with pytest.raises(WorkflowUpdateFailedError):
        await run.handle.execute_update("submit_tool_outputs", {"tool_outputs": "no list"})

    assert await run.submit((ids(view)[0], "ok")) == ["accepted"]
    assert (await run.result()).run.status == "completed"
    assert kinds(await history(run))["WORKFLOW_TASK_FAILED"] == 0


async def test_after_the_submit(lab: Lab) -> None:
    """An answer to a submitted call is a duplicate or late, and is never sent."""
    await lab.scenario(rounds=[asking("a"), ENDLESS])
    run = await lab.start()
    (call,) = ids(await run.until_status("requires_action"))
    await run.submit((call, "1"))
    await eventually(lambda: lab.accepted("runs.submit_tool_outputs"), lambda n: n == 1)
    await run.until(lambda view: view.runlane.answers[0].outcome == "submitted")
    await run.until_status("in_progress", "queued")

    assert await run.submit((call, "1")) == ["duplicate"]
    assert await run.submit((call, "2")) == ["late"]
    await run.signal((call, "3"))
    view = await run.until(lambda view: bool(view.runlane.rejected))

    assert view.runlane.rejected[0].reason == "late"
    await run.cancel()
    await run.result()
    assert await lab.received("runs.submit_tool_outputs") == 1


async def test_by_signal_to_a_run_that_is_ending(lab: Lab) -> None:
    """Table, cancelling and answers: late. A signal's answer stands rejected as late."""
    await lab.scenario(rounds=[asking("a"), LAST], cancel_seconds=2.0)
    run = await lab.start()
    (call,) = ids(await run.until_status("requires_action"))
    await run.cancel()

    await run.signal((call, "1"), ("call_other", "2"))

    result = await run.result()
    assert result.run.status == "cancelled"
    assert [(r.tool_call_id, r.reason) for r in result.runlane.rejected] == [
        (call, "late"),
        ("call_other", "late"),
    ]
    assert result.runlane.early == []


async def test_after_the_end(lab: Lab, runlane: Runlane) -> None:
    """A closed workflow takes no message; the receipts come from its result."""
    await lab.scenario(rounds=[asking("a"), LAST])
    run = await lab.start()
    (call,) = ids(await run.until_status("requires_action"))
    await run.submit((call, "1"))
    result = await run.result()

    for send in (run.submit, run.signal):
        with pytest.raises(RPCError) as refused:
            await send((call, "1"))
        assert refused.value.status is RPCStatusCode.NOT_FOUND
    outputs = [(call, "1"), (call, "2"), ("call_other", "1")]
    given = [
        await runlane.runs.deliver(
            run.id, tool_outputs=[{"tool_call_id": call_id, "output": output}]
        )
        for call_id, output in outputs
    ]

    assert [str(r.status) for receipts in given for r in receipts.receipts] == [
        "duplicate",
        "late",
        "late",
    ]
    assert (await run.result()) == result


async def test_six_parallel_calls_answered_one_by_one(lab: Lab, outsider: Outsider) -> None:
    """The upstream takes a round all or nothing: one submit with all six, when the last is in.

    Lists show meanwhile what still waits.
    """
    names = ["a", "b", "c", "d", "e", "f"]
    await lab.scenario(rounds=[asking(*names), LAST])
    run = await lab.start()
    calls = ids(await run.until_status("requires_action"))
    assert len(calls) == 6

    for done, call in enumerate(calls, 1):
        assert await lab.received("runs.submit_tool_outputs") == 0
        assert await run.submit((call, f"output {call}")) == ["accepted"]
        if done < 6:
            waiting = [pending.tool_call_id for pending in await pending_memo(run)]
            assert waiting == calls[done:]
            assert await attribute(run, "RunlaneStatus") == "requires_action"

    result = await run.result()
    assert result.run.status == "completed"
    (request,) = outsider.requests("runs.submit_tool_outputs")
    assert request["body"]["tool_outputs"] == [
        {"tool_call_id": call, "output": f"output {call}"} for call in calls
    ]
    # A round is 40; each further answer is six: a task, a message and the memo.
    events = await history(run)
    assert len(undisturbed(events)) <= 40 + 5 * 6, kinds(events)


async def test_two_rounds_by_signal_and_update_mixed(lab: Lab, outsider: Outsider) -> None:
    """Every round gets its own answers, whichever way each of them came."""
    await lab.scenario(rounds=[asking("a", "b"), asking("a", "b"), LAST])
    run = await lab.start()
    first = ids(await run.until_status("requires_action"))
    await run.signal((first[0], "1a"))
    assert await run.submit((first[1], "1b")) == ["accepted"]
    view = await run.until(lambda view: view.runlane.rounds == 2)
    second = ids(view)
    assert not set(first) & set(second)
    assert await run.submit((first[0], "late"), (second[0], "2a")) == ["late", "accepted"]
    await run.signal((second[1], "2b"))

    result = await run.result()

    assert result.run.status == "completed"
    assert [(a.round, a.outcome) for a in result.runlane.answers] == [
        (1, "submitted"),
        (1, "submitted"),
        (2, "submitted"),
        (2, "submitted"),
    ]
    sent = [
        {o["tool_call_id"]: o["output"] for o in body["tool_outputs"]}
        for body in outsider.bodies("runs.submit_tool_outputs")
    ]
    assert sent == [
        {first[0]: "1a", first[1]: "1b"},
        {second[0]: "2a", second[1]: "2b"},
    ]


async def test_ten_updates_at_once(lab: Lab, outsider: Outsider) -> None:
    """Ten people answer ten calls at the same moment: all are accepted, in one submit."""
    await lab.scenario(rounds=[asking(*(f"tool_{n}" for n in range(10))), LAST])
    run = await lab.start()
    calls = ids(await run.until_status("requires_action"))

    receipts = await asyncio.gather(*(run.submit((call, call)) for call in calls))

    assert receipts == [["accepted"]] * 10
    assert (await run.result()).run.status == "completed"
    (request,) = outsider.requests("runs.submit_tool_outputs")
    assert len(request["body"]["tool_outputs"]) == 10


async def test_ten_differing_answers_at_once(lab: Lab, outsider: Outsider) -> None:
    """Ten people answer one call differently at the same moment: one is accepted, and sent."""
    await lab.scenario(rounds=[asking("a", "b"), LAST])
    run = await lab.start()
    first, second = ids(await run.until_status("requires_action"))

    receipts = await asyncio.gather(*(run.submit((first, f"{n}")) for n in range(10)))

    assert sorted(receipts) == [["accepted"]] + [["conflict"]] * 9
    winner = receipts.index(["accepted"])
    await run.submit((second, "ok"))
    await run.result()
    (body,) = outsider.bodies("runs.submit_tool_outputs")
    assert body["tool_outputs"][0] == {"tool_call_id": first, "output": f"{winner}"}


async def test_only_so_many_early_answers_are_kept(
    lab: Lab, outsider: Outsider, blind: Callable[[], Any]
) -> None:
    """Beyond the limit an early answer is refused with no room, and the run goes on."""
    run, (call,) = await started_blind(lab, outsider, rounds=[asking("a"), LAST])
    early = [(f"call_{n}", "x") for n in range(MAX_EARLY_CALLS)]
    assert set(await run.submit(*early)) == {"early"}

    assert await run.submit((call, "1")) == ["too_large"]
    await run.signal((call, "1"))
    view = await run.until(lambda view: bool(view.runlane.rejected))

    assert view.runlane.rejected[0].reason == "too_large"
    assert len(view.runlane.early) == MAX_EARLY_CALLS
    await blind()
    await run.until_status("requires_action")
    assert await run.submit((call, "1")) == ["accepted"]
    assert (await run.result()).run.status == "completed"
