"""Nothing too large ever becomes part of a history, and what is large but allowed goes through."""

from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from runlane import Runlane
from runlane.errors import InvalidRequest, Refused
from runlane.settings import Settings
from runsapi import MAX_TOOL_OUTPUTS_BYTES
from tests.histories import history, kinds, pending_memo
from tests.lab import Lab, LabRun, eventually
from tests.outsider import Outsider
from workflows.contract import INVALID_MESSAGE, PENDING_MEMO, PENDING_MEMO_BYTES, RunView

ASK_TWO = {"queued": 0.05, "in_progress": 0.05, "calls": [{"name": "a"}, {"name": "b"}]}
LAST = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}
ROOM = MAX_TOOL_OUTPUTS_BYTES - 1


@pytest.fixture
def runlane(lab: Lab) -> Runlane:
    """The product's client, on this lab's queue."""
    return Runlane(lab.client, Settings(task_queue=lab.task_queue, data_dir=None))


async def deliver(runlane: Runlane, run: LabRun, call_id: str, output: str) -> tuple[str, Any]:
    """Deliver one answer as the product does; return its receipt's word and the room left."""
    given = await runlane.runs.deliver(
        run.id, tool_outputs=[{"tool_call_id": call_id, "output": output}]
    )
    (receipt,) = given.receipts
    return str(receipt.status), receipt.room


def ids(view: RunView) -> list[str]:
    """Return the pending calls' ids."""
    return [call.tool_call_id for call in view.runlane.pending]


async def test_a_round_over_the_upstreams_limit(
    lab: Lab, runlane: Runlane, outsider: Outsider
) -> None:
    """An output that would bring the round over 512 kB is refused with the room left.

    Nothing is lost by it: what was accepted stays, a smaller output fits, to the byte.
    """
    await lab.scenario(rounds=[ASK_TWO, LAST])
    run = await lab.start()
    first, second = ids(await run.until_status("requires_action"))
    # Bytes count, not characters.
    assert await deliver(runlane, run, first, "é" * 150_000) == ("accepted", None)
    await run.until(lambda view: len(view.runlane.pending) == 1)
    before = await run.events()

    left = ROOM - 300_000
    assert await deliver(runlane, run, second, "x" * (left + 1)) == ("too_large", left)

    assert await run.events() == before
    assert ids(await run.view()) == [second]
    assert await deliver(runlane, run, second, "y" * left) == ("accepted", None)
    assert (await run.result()).run.status == "completed"
    (body,) = outsider.bodies("runs.submit_tool_outputs")
    assert [len(output["output"].encode()) for output in body["tool_outputs"]] == [300_000, left]


async def test_a_single_output_over_the_limit(lab: Lab, runlane: Runlane) -> None:
    """An output that no round could hold is refused with the whole room; by signal it is kept
    as rejected.
    """
    await lab.scenario(rounds=[ASK_TWO, LAST])
    run = await lab.start()
    first, second = ids(await run.until_status("requires_action"))

    assert await deliver(runlane, run, first, "x" * (ROOM + 1)) == ("too_large", ROOM)
    await run.signal((first, "x" * (ROOM + 1)))
    view = await run.until(lambda view: bool(view.runlane.rejected))

    assert view.runlane.rejected[0].reason == "too_large"
    assert ids(view) == [first, second]
    assert await run.submit((first, "1"), (second, "2")) == ["accepted", "accepted"]
    assert (await run.result()).run.status == "completed"


async def test_early_answers_have_room_for_a_round(lab: Lab, runlane: Runlane) -> None:
    """Answers nobody has asked for yet share one round's room, so that a state stays bounded."""
    fault = await lab.fault("runs.retrieve", "hold_before")
    await lab.scenario(rounds=[ASK_TWO, LAST])
    run = await lab.start()
    await lab.held(fault)

    assert await deliver(runlane, run, "call_1", "x" * 400_000) == ("early", None)
    assert await deliver(runlane, run, "call_2", "x" * 400_000) == ("too_large", ROOM - 400_000)

    await lab.release(fault)
    await run.answer_all()
    result = await run.result()
    assert result.run.status == "completed"
    assert result.runlane.early == ["call_1"]


async def test_a_message_over_a_megabyte_is_not_sent(lab: Lab, runlane: Runlane) -> None:
    """A message of 2.2 MB is refused before it is sent, by its field and limit; the run lives on.

    Sent without a payload store, it would fail every task of the run for good.
    """
    await lab.scenario(rounds=[ASK_TWO, LAST])
    run = await lab.start()
    first, second = ids(await run.until_status("requires_action"))
    before = await run.events()

    with pytest.raises(Refused, match=r"1,000,000.*tool_outputs\[1\]\.output.*Nothing was sent"):
        await runlane.runs.submit_tool_outputs(
            run.id,
            tool_outputs=[
                {"tool_call_id": first, "output": "small"},
                {"tool_call_id": second, "output": "x" * 2_200_000},
            ],
        )

    assert await run.events() == before
    assert await run.submit((first, "1"), (second, "2")) == ["accepted", "accepted"]
    assert (await run.result()).run.status == "completed"


async def test_a_message_over_a_megabyte_sent_past_the_client(lab: Lab) -> None:
    """The workflow itself refuses what a foreign client sends, and a signal's is rejected."""
    await lab.scenario(rounds=[ASK_TWO, LAST])
    run = await lab.start()
    first, second = ids(await run.until_status("requires_action"))
    before = await run.events()

    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await run.submit((first, "x" * 2_200_000))
    cause = refused.value.cause
    assert isinstance(cause, ApplicationError)
    assert cause.type == INVALID_MESSAGE
    assert "at most 1000000 bytes, got 22" in str(cause)
    assert await run.events() == before
    await run.signal((first, "x" * 2_200_000))
    view = await run.until(lambda view: bool(view.runlane.rejected))

    assert view.runlane.rejected[0].reason == "too_large"
    assert await run.submit((first, "1"), (second, "2")) == ["accepted", "accepted"]
    assert (await run.result()).run.status == "completed"
    assert kinds(await history(run))["WORKFLOW_TASK_FAILED"] == 0


async def test_metadata_over_its_limits_is_refused(lab: Lab, runlane: Runlane) -> None:
    """Too many pairs or too long a value never reach the run, by either way."""
    await lab.scenario(rounds=[ASK_TWO, LAST])
    run = await lab.start()
    await run.until_status("requires_action")
    before = await run.events()

    for bad in ({"k": "v" * 513}, {f"k{n}": "v" for n in range(17)}, {"runlane_run_id": "x"}):
        with pytest.raises(InvalidRequest):
            await runlane.runs.update(run.id, metadata=bad)
        with pytest.raises(WorkflowUpdateFailedError):
            await run.handle.execute_update("update_metadata", {"metadata": bad})

    assert await run.events() == before
    await run.answer_all()
    await run.result()


async def test_arguments_of_300_kilobytes(lab: Lab) -> None:
    """A call's arguments come whole in the view, by their beginning in lists, never in events."""
    text = '{"text": "' + "ä" * 150_000 + '"}'
    ask = {"queued": 0.05, "in_progress": 0.05, "calls": [{"name": "a", "arguments": text}]}
    await lab.scenario(rounds=[ask, LAST])
    run = await lab.start()
    view = await run.until_status("requires_action")

    assert view.runlane.pending[0].arguments == text
    (listed,) = await pending_memo(run)
    assert listed.arguments == text[:300]
    assert listed.arguments_digest == view.runlane.pending[0].arguments_digest
    await run.answer_all("o" * 400_000)
    result = await run.result()
    assert result.run.status == "completed"
    assert sum(event.ByteSize() for event in await history(run)) < 60_000


async def test_a_create_body_of_a_megabyte(lab: Lab, runlane: Runlane, outsider: Outsider) -> None:
    """A megabyte of messages reaches the upstream whole, and the history stays small."""
    messages = [{"role": "user", "content": f"{n}" * 250_000} for n in range(4)]
    await lab.scenario(rounds=[ASK_TWO, LAST])
    created = await runlane.runs.create(
        lab.thread_id, assistant_id=lab.assistant_id, additional_messages=messages
    )
    polled = await runlane.runs.poll(created.id, timeout=20)
    assert polled.status == "requires_action"
    outputs = [{"tool_call_id": call.id, "output": "1"} for call in polled.tool_calls]
    await runlane.runs.submit_tool_outputs_and_poll(created.id, tool_outputs=outputs, timeout=20)

    assert [len(text) for text in outsider.texts("user")] == [250_000] * 4
    events = (await lab.client.get_workflow_handle(created.id).fetch_history()).events
    assert sum(event.ByteSize() for event in events) < 60_000


@pytest.mark.parametrize("field", ["thread_id", "assistant_id", "idempotency_key"])
async def test_ids_beyond_what_an_attribute_holds(lab: Lab, runlane: Runlane, field: str) -> None:
    """An id of 256 characters is refused by its name before anything starts: as an attribute, it
    could end the workflow.
    """
    asked: dict[str, Any] = {"thread_id": lab.thread_id, "assistant_id": lab.assistant_id}
    asked[field] = "t" * 256

    with pytest.raises(InvalidRequest, match=rf"{field}.*255"):
        await runlane.runs.create(**asked)

    assert await lab.received("runs.create") == 0


async def test_the_longest_ids_go_through(lab: Lab, runlane: Runlane) -> None:
    """255 characters stay below what a search attribute holds, unless each of them is escaped to
    twelve bytes; then that is said before anything is sent.
    """
    await lab.scenario(rounds=[LAST])
    thread_id = "語" * 255
    created = await runlane.runs.create(thread_id, assistant_id=lab.assistant_id)

    async def status() -> str:
        return (await runlane.runs.retrieve(created.id, thread_id)).status

    await eventually(status, lambda status: status == "completed")
    with pytest.raises(InvalidRequest, match=r"thread_id.*2,048 bytes"):
        await runlane.runs.create("😀" * 255, assistant_id=lab.assistant_id)


async def test_a_hundred_pending_calls_in_the_memo(lab: Lab, outsider: Outsider) -> None:
    """However many calls wait, with whatever arguments, the memo stays below 8 kB.

    The view has them all, and each can be answered.
    """
    calls = [{"name": f"tool_{n}", "arguments": {"text": "語" * 400}} for n in range(100)]
    await lab.scenario(rounds=[{"queued": 0.05, "in_progress": 0.05, "calls": calls}, LAST])
    run = await lab.start()
    view = await run.until_status("requires_action")
    assert len(view.runlane.pending) == 100

    described = await run.handle.describe()
    stored = described.raw_description.workflow_execution_info.memo.fields[PENDING_MEMO]
    assert PENDING_MEMO_BYTES * 0.8 < len(stored.data) <= PENDING_MEMO_BYTES
    listed = await pending_memo(run)
    assert ids(view)[: len(listed)] == [call.tool_call_id for call in listed]

    await run.answer_all()
    assert (await run.result()).run.status == "completed"
    (body,) = outsider.bodies("runs.submit_tool_outputs")
    assert len(body["tool_outputs"]) == 100


async def test_one_call_too_large_for_the_memo(lab: Lab) -> None:
    """A call whose name alone is beyond the memo's room is left out of lists, not the run out of
    life; the calls after it are listed.
    """
    big = {"name": "n" * 9000}
    await lab.scenario(
        rounds=[{"queued": 0.05, "in_progress": 0.05, "calls": [big, {"name": "b"}]}, LAST]
    )
    run = await lab.start()
    view = await run.until_status("requires_action")
    assert len(view.runlane.pending) == 2

    assert [call.name for call in await pending_memo(run)] == ["b"]
    await run.answer_all()
    assert (await run.result()).run.status == "completed"


async def test_a_big_view_and_result(lab: Lab, runlane: Runlane) -> None:
    """A round of 500 kB of arguments is viewed, answered and read back from the result."""
    calls = [{"name": f"tool_{n}", "arguments": {"text": "z" * 100_000}} for n in range(30)]
    await lab.scenario(rounds=[{"queued": 0.05, "in_progress": 0.05, "calls": calls}, LAST])
    instructions = "i" * 250_000
    run = await lab.start(params={"instructions": instructions})
    view = await run.until_status("requires_action", seconds=40)

    assert len(view.model_dump_json()) > 6_000_000
    assert (await runlane.runs.view(run.id)).runlane.pending == view.runlane.pending
    await run.answer_all("o" * 17_000)
    result = await run.result()
    assert result.run.status == "completed"
    assert len(result.runlane.answers) == 30
    assert result.run.instructions == instructions
    assert (await runlane.runs.retrieve(run.id)).instructions == instructions


async def test_an_unknown_run_takes_no_message(runlane: Runlane, lab: Lab) -> None:
    """A message to nobody says so, in Temporal's words and in ours."""
    with pytest.raises(RPCError) as refused:
        await lab.client.get_workflow_handle("run_nobody").signal("nudge")
    assert refused.value.status is RPCStatusCode.NOT_FOUND
