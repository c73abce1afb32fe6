"""Submitting outputs exactly once, whatever becomes of the answer and whoever else answers."""

import json
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from tests.lab import QUICK, Lab, LabRun
from tests.outsider import Outsider
from workflows.contract import Receipt, Receipts, RunView, ToolOutputMessage, ToolOutputs
from workflows.run import RunWorkflow

ASK = {"queued": 0.05, "in_progress": 0.05, "calls": [{"name": "ask", "arguments": {"n": 1}}]}
ASK_MORE = {"queued": 0.05, "in_progress": 0.05, "calls": [{"name": "more"}]}
DONE = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}
LIMIT = 512_000
RARELY = QUICK.model_copy(update={"look_floor": 60.0})
"""So that the submit itself finds out what others did, not a look before it."""


def outcomes(view: RunView) -> list[str]:
    """Return what became of each answer."""
    return [str(answer.outcome) for answer in view.runlane.answers]


def open_calls(view: RunView) -> list[str]:
    """Return the ids of the calls that wait."""
    return [call.tool_call_id for call in view.runlane.pending]


async def refused_receipt(run: LabRun, call_id: str, output: str) -> Receipt:
    """Deliver an answer of which nothing is new, and return its receipt."""
    outputs = ToolOutputs(tool_outputs=[ToolOutputMessage(tool_call_id=call_id, output=output)])
    with pytest.raises(WorkflowUpdateFailedError) as refusal:
        await run.handle.execute_update(RunWorkflow.submit_tool_outputs, outputs)
    assert isinstance(refusal.value.cause, ApplicationError)
    return Receipts.model_validate(refusal.value.cause.details[0]).receipts[0]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("lost_answer", {}),
        ("garbage", {}),
        ("garbage", {"body": '{"id": "run_1", "object": "thre'}),
        ("error_after", {"status": 500}),
        ("error_after", {"status": 502}),
        ("error_after", {"status": 409}),
        ("error_after", {"status": 504, "headers": {"x-should-retry": "false"}}),
    ],
    ids=["lost", "html", "truncated", "500", "502", "409", "504 told not to"],
)
async def test_outputs_whose_answer_is_lost_are_not_sent_again(
    lab: Lab, kind: str, fields: dict[str, Any]
) -> None:
    """The run and its steps tell that the outputs are in, so they count as submitted."""
    await lab.scenario(rounds=[ASK, DONE])
    await lab.fault("runs.submit_tool_outputs", kind, **fields)
    run = await lab.start()
    await run.answer_all()

    result = await run.result()

    assert result.run.status == "completed"
    assert outcomes(result) == ["submitted"]
    assert await lab.received("runs.submit_tool_outputs") == 1


@pytest.mark.parametrize("kind", ["reset", "server_error", "rate_limit"])
async def test_outputs_that_did_not_arrive_are_sent_again(lab: Lab, kind: str) -> None:
    """Where the upstream still waits for the same calls, nothing has arrived."""
    await lab.scenario(rounds=[ASK, DONE])
    await lab.fault("runs.submit_tool_outputs", kind)
    run = await lab.start()
    await run.answer_all()

    result = await run.result()

    assert outcomes(result) == ["submitted"]
    assert await lab.received("runs.submit_tool_outputs") == 2
    assert await lab.accepted("runs.submit_tool_outputs") == 1


async def test_a_second_submit_is_resolved_by_reading(lab: Lab, outsider: Outsider) -> None:
    """`Runs in status … do not accept tool outputs`, and the steps hold ours: submitted."""
    await lab.scenario(rounds=[ASK, {**DONE, "queued": 0.5}])
    held = await lab.fault("runs.submit_tool_outputs", "hold_before")
    run = await lab.start(timing=RARELY)
    view = await run.answer_all("ok")
    await lab.held(held)

    upstream = view.runlane.upstream_run_id
    assert upstream is not None
    outsider.submit(upstream, dict.fromkeys(open_calls(view), "ok"))
    await lab.release(held)
    result = await run.result()

    assert result.run.status == "completed"
    assert outcomes(result) == ["submitted"]
    assert await lab.accepted("runs.submit_tool_outputs") == 1


async def test_a_call_that_somebody_else_answered_is_overtaken(
    lab: Lab, outsider: Outsider
) -> None:
    """Other outputs than ours are in: ours count as overtaken, and the run goes on."""
    await lab.scenario(rounds=[ASK, {**DONE, "queued": 0.5}])
    held = await lab.fault("runs.submit_tool_outputs", "hold_before")
    run = await lab.start(timing=RARELY)
    view = await run.answer_all("ours")
    await lab.held(held)

    outsider.submit(str(view.runlane.upstream_run_id), dict.fromkeys(open_calls(view), "theirs"))
    await lab.release(held)
    result = await run.result()

    assert result.run.status == "completed"
    assert outcomes(result) == ["overtaken"]
    assert outsider.texts("assistant") == ["Done."]
    (calls, _) = outsider.runs()[0]["steps"]
    assert calls["step_details"]["tool_calls"][0]["function"]["output"] == "theirs"


async def test_where_other_calls_are_open_those_are_asked(lab: Lab, outsider: Outsider) -> None:
    """Our outputs belong to a round that is over: overtaken, and the new round is gathered."""
    await lab.scenario(rounds=[ASK, ASK_MORE, DONE])
    held = await lab.fault("runs.submit_tool_outputs", "hold_before")
    run = await lab.start(timing=RARELY)
    view = await run.answer_all("ours")
    await lab.held(held)

    upstream = str(view.runlane.upstream_run_id)
    outsider.submit(upstream, dict.fromkeys(open_calls(view), "theirs"))
    while outsider.run(upstream)["status"] != "requires_action":
        pass
    await lab.release(held)
    asked = await run.until(lambda view: [c.name for c in view.runlane.pending] == ["more"])
    assert outcomes(asked) == ["overtaken"]
    await run.submit(*((call, "ok") for call in open_calls(asked)))
    result = await run.result()

    assert result.run.status == "completed"
    assert outcomes(result) == ["overtaken", "submitted"]


async def test_a_call_answered_by_others_before_us_is_no_longer_asked(
    lab: Lab, outsider: Outsider
) -> None:
    """While answers are awaited the upstream is looked at; what others answered isn't asked."""
    await lab.scenario(rounds=[ASK, {**DONE, "in_progress": 0.5}])
    run = await lab.start()
    view = await run.until_status("requires_action")
    (call,) = open_calls(view)

    outsider.submit(str(view.runlane.upstream_run_id), {call: "theirs"})
    result = await run.result()

    assert result.run.status == "completed"
    assert result.runlane.answers == []
    assert await lab.accepted("runs.submit_tool_outputs") == 1


async def test_a_round_that_seems_over_for_a_moment_is_asked_again(
    lab: Lab, outsider: Outsider
) -> None:
    """An upstream that shows a waiting run as working for a moment (a lagging replica) loses
    neither the question nor the answer that was given already.
    """
    two = {**ASK, "calls": [{"name": "a"}, {"name": "b"}]}
    await lab.scenario(rounds=[two, DONE])
    run = await lab.start(timing=QUICK.model_copy(update={"look_floor": 0.3}))
    view = await run.until_status("requires_action")
    first, second = open_calls(view)
    assert await run.submit((first, "one")) == ["accepted"]
    shown = outsider.run(str(view.runlane.upstream_run_id))
    stale = {**shown, "status": "in_progress", "required_action": None}

    await lab.fault("runs.retrieve", "garbage", body=json.dumps(stale), times=2)
    await run.until(lambda view: view.runlane.upstream_status == "in_progress")
    await run.until(lambda view: open_calls(view) == [second])
    assert await run.submit((second, "two")) == ["accepted"]
    result = await run.result()

    assert result.run.status == "completed"
    assert outcomes(result) == ["submitted", "submitted"]


async def test_outputs_over_the_limit_are_refused_with_the_room_left(
    lab: Lab, outsider: Outsider
) -> None:
    """A round holds less than 512 kB: what would bring it over is refused with the room that is
    left, nothing is lost, and a smaller output still fits.
    """
    await lab.scenario(rounds=[{**ASK, "calls": [{"name": "a"}, {"name": "b"}]}, DONE])
    run = await lab.start()
    view = await run.until_status("requires_action")
    a, b = open_calls(view)
    # Two bytes each in UTF-8: bytes count, not characters.
    large = "é" * 200_000
    assert await run.submit((a, large)) == ["accepted"]

    room = LIMIT - 1 - 400_000
    refused = await refused_receipt(run, b, "x" * (room + 1))
    assert (refused.status, refused.room) == ("too_large", room)
    assert open_calls(await run.view()) == [b]

    assert await run.submit((b, "x" * room)) == ["accepted"]
    result = await run.result()

    assert result.run.status == "completed"
    (body,) = outsider.bodies("runs.submit_tool_outputs")
    assert [len(entry["output"].encode()) for entry in body["tool_outputs"]] == [400_000, room]


async def test_an_output_too_large_by_signal_is_kept_as_rejected(lab: Lab) -> None:
    """A signal has no receipt, so what can't be used stands in the view with its reason."""
    await lab.scenario(rounds=[ASK, DONE])
    run = await lab.start()
    (call,) = open_calls(await run.until_status("requires_action"))

    await run.signal((call, "x" * LIMIT))
    view = await run.until(lambda view: bool(view.runlane.rejected))

    (entry,) = view.runlane.rejected
    assert (entry.tool_call_id, entry.reason) == (call, "too_large")
    assert await run.submit((call, "small")) == ["accepted"]
    assert (await run.result()).run.status == "completed"


async def test_outputs_refused_for_good_end_the_run(lab: Lab, outsider: Outsider) -> None:
    """An upstream with a smaller limit says no for good: the run ends `failed` with its words, its
    upstream run is cancelled, and the answer wasn't used.
    """
    await lab.scenario(rounds=[ASK, DONE])
    body = {"error": {"message": "'tool_outputs' too large", "code": "invalid_value"}}
    await lab.fault("runs.submit_tool_outputs", "status", status=400, body=body, times=0)
    run = await lab.start()
    await run.answer_all()

    result = await run.result()

    assert result.run.status == "failed"
    assert result.run.last_error is not None
    assert "'tool_outputs' too large" in result.run.last_error.message
    assert outcomes(result) == ["unused"]
    assert outsider.runs()[0]["status"] == "cancelled"


async def test_broken_arguments_are_a_call_like_any_other(lab: Lab) -> None:
    """A model may write arguments that are no JSON; somebody answers them, and the run goes on."""
    call = {"name": "ask", "arguments": '{"order": '}
    await lab.scenario(rounds=[{**ASK, "calls": [call]}, DONE])
    run = await lab.start()

    view = await run.answer_all("Arguments must be JSON")
    result = await run.result()

    assert view.runlane.pending[0].arguments == '{"order": '
    assert outcomes(result) == ["submitted"]
