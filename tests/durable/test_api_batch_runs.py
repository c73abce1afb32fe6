"""The runs of a batch over HTTP, those that needed nobody too; and what a batch may be told."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import openai
import pytest
import pytest_asyncio
from temporalio.client import Client

from ledger.approval import ApprovalQuery
from ledger.batch_notes import Note
from runlane.api.access import Role
from tests.api import Api, serving
from tests.api_batches import Caller
from tests.clerk import Clerk
from tests.lab import Lab, eventually
from tests.simulator_process import SimulatorProcess
from tests.till import Till, refund

QUICK = {"queued": 0.02, "in_progress": 0.05, "says": "On its way."}
SLOW = {"queued": 0.02, "in_progress": 3.0, "says": "At last."}
ASK = {"queued": 0.02, "in_progress": 0.05, "calls": [{"name": "lookup_order"}]}
DONE = {"queued": 0.02, "in_progress": 0.05, "says": "{lookup_order}"}


@pytest_asyncio.fixture
async def api(lab: Lab) -> AsyncIterator[Api]:
    async with serving(lab) as served:
        yield served


@pytest.fixture
def caller(api: Api, lab: Lab) -> Caller:
    return Caller(api.sdk(), lab)


async def _shown(caller: Caller, result: dict[str, Any]) -> dict[str, Any]:
    body = result["response"]["body"]
    answer = await caller.sdk.beta.threads.runs.with_raw_response.retrieve(
        body["id"], thread_id=body["thread_id"]
    )
    found: dict[str, Any] = json.loads(answer.content)
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_each_result_is_the_run_of_its_id(caller: Caller, lab: Lab) -> None:
    """One that needed nobody is had as one that asked its caller: as its line has it."""
    await lab.scenario(rounds=[QUICK])
    asking = f"{lab.assistant_id}_asks"
    await lab.scenario(assistant_id=asking, rounds=[ASK, DONE])
    lines = [
        caller.line(0, metadata={"ticket": "0"}),
        caller.line(1, url=f"/v1/threads/{lab.thread_id}/runs"),
        caller.line(2, url=f"/v1/threads/{lab.thread_id}_b/runs", assistant_id=asking),
    ]
    batch = await caller.begin_with(b"\n".join(json.dumps(line).encode() for line in lines))
    runs = caller.sdk.beta.threads.runs

    async def waiting() -> list[Any]:
        return (await runs.list(f"{lab.thread_id}_b")).data

    [run] = await eventually(waiting, lambda found: bool(found) and bool(found[0].required_action))
    calls = run.required_action.submit_tool_outputs.tool_calls
    await runs.submit_tool_outputs(
        run.id,
        thread_id=run.thread_id,
        tool_outputs=[{"tool_call_id": call.id, "output": "shipped"} for call in calls],
    )
    ended = await caller.ended(batch.id)
    results = await caller.results(ended.output_file_id)

    assert 3 == len(results)
    assert run.id in {each["runlane"]["run_id"] for each in results}
    for result in results:
        shown = await _shown(caller, result)
        assert result["response"]["body"] == shown
        assert result["runlane"]["run_id"] == result["response"]["request_id"] == shown["id"]
        steps = (await runs.steps.list(shown["id"], thread_id=shown["thread_id"])).data
        assert {shown["id"]} == {step.run_id for step in steps}
        step = await runs.steps.retrieve(
            steps[0].id, thread_id=shown["thread_id"], run_id=shown["id"]
        )
        assert steps[0] == step


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_quick_run_is_one_that_has_ended(caller: Caller, lab: Lab) -> None:
    """It takes no change, no answer and no cancel, and is on its own thread alone."""
    await lab.scenario(rounds=[QUICK])
    ended = await caller.ended((await caller.begin_with(caller.lines(1))).id)
    [result] = await caller.results(ended.output_file_id)
    body = result["response"]["body"]
    runs, where = caller.sdk.beta.threads.runs, {"thread_id": body["thread_id"]}

    with pytest.raises(openai.BadRequestError, match="status 'completed'"):
        await runs.cancel(body["id"], **where)
    with pytest.raises(openai.BadRequestError, match="its metadata stays as it is") as refused:
        await runs.update(body["id"], **where, metadata={"k": "v"})
    assert "run_ended" == refused.value.code
    with pytest.raises(openai.BadRequestError):
        await runs.submit_tool_outputs(
            body["id"], **where, tool_outputs=[{"tool_call_id": "call_1", "output": "x"}]
        )
    with pytest.raises(openai.NotFoundError, match="No run found"):
        await runs.retrieve(body["id"], thread_id=lab.thread_id)
    with_runlane = await runs.with_raw_response.retrieve(
        body["id"], **where, extra_query={"include[]": "runlane"}
    )
    assert json.loads(with_runlane.content)["runlane"]["upstream_run_id"].startswith("run_")

    await lab.ledger.erase_run(body["id"])
    with pytest.raises(openai.NotFoundError, match="what it answered is gone") as gone:
        await runs.retrieve(body["id"], **where)
    assert "item_without_run" == gone.value.code


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_run_that_a_lane_drives_is_named_with_its_line(caller: Caller, lab: Lab) -> None:
    """It can't be retrieved yet, and the answer says where it is."""
    await lab.scenario(rounds=[SLOW])
    batch = await caller.begin_with(caller.lines(1, url=f"/v1/threads/{lab.thread_id}/runs"))

    async def begun() -> str:
        return "".join(await lab.ledger.batch_items.runs_of_thread(lab.thread_id))

    run_id = await eventually(begun, bool)
    runs = caller.sdk.beta.threads.runs
    with pytest.raises(openai.NotFoundError, match=f"line 1 of {batch.id}") as refused:
        await runs.retrieve(run_id, thread_id=lab.thread_id)
    await caller.ended(batch.id)
    run = await runs.retrieve(run_id, thread_id=lab.thread_id)

    assert "item_not_ended" == refused.value.code
    assert "completed" == run.status


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_quick_run_is_there_for_its_owner_alone(lab: Lab) -> None:
    """By the owner of its batch, as other runs are by their own."""
    await lab.scenario(rounds=[QUICK])
    async with serving(lab, local=None) as api:
        ann = Caller(api.sdk(await api.token(person="ann")), lab)
        ended = await ann.ended((await ann.begin_with(ann.lines(1))).id)
        [result] = await ann.results(ended.output_file_id)
        body = result["response"]["body"]
        for role, person, sees in (
            (Role.READER, "ann", True),
            (Role.OPERATOR, "bob", False),
            (Role.ADMIN, "root", True),
        ):
            runs = api.sdk(await api.token(role, person=person)).beta.threads.runs
            asked = runs.retrieve(body["id"], thread_id=body["thread_id"])
            if sees:
                assert "completed" == (await asked).status
            else:
                with pytest.raises(openai.NotFoundError, match="No run found"):
                    await asked


async def test_a_batch_is_cancelled_before_it_was_checked(
    client: Client, simulator: SimulatorProcess
) -> None:
    """No worker was there to read its file: it ends cancelled, and runs nothing."""
    lab = Lab(client, simulator)
    async with lab.open_ledger(), serving(lab) as api:
        caller = Caller(api.sdk(), lab)
        batch = await caller.begin_with(caller.lines(3))
        cancelling = await caller.sdk.batches.cancel(batch.id)
        again = await caller.sdk.batches.cancel(batch.id)
    async with lab.worker(), serving(lab) as api:
        caller = Caller(api.sdk(), lab)
        ended = await caller.ended(batch.id)

    assert ("validating", "cancelling") == (batch.status, cancelling.status)
    assert "cancelling" == again.status
    assert ("cancelled", None, None) == (
        ended.status, ended.output_file_id, ended.error_file_id
    )  # fmt: skip
    runs = await asyncio.to_thread(lab.simulator.runs)
    assert [] == [run for run in runs if run["assistant_id"] == lab.assistant_id]


async def test_a_batch_hands_its_items_the_servers_tools(
    client: Client, simulator: SimulatorProcess
) -> None:
    """As the server knew them then; a worker answers, and asks people first where it must."""
    lab, clerk, till = Lab(client, simulator), Clerk(), Till()
    await lab.scenario(rounds=[{"calls": [refund("A-7", 9)]}, {"says": "Done."}])
    async with (
        lab.worker(tools=till.tools, verifier=clerk.verifier),
        serving(lab, tools=("tests.till_tools",)) as api,
    ):
        caller = Caller(api.sdk(), lab)
        batch = await caller.begin_with(caller.lines(1), with_tools=True)
        items = await eventually(
            lambda: lab.ledger.batch_items.promoted(batch.id), lambda found: len(found) == 1
        )
        listed = await eventually(
            lambda: lab.ledger.approvals.list(ApprovalQuery()), lambda found: len(found.data) == 1
        )
        handed = await asyncio.to_thread(lab.simulator.runs)
        kept = await lab.ledger.batch_notes.find(batch.id, Note.TOOLS)
        await caller.sdk.batches.cancel(batch.id)
        ended = await caller.ended(batch.id)

    [run] = [each for each in handed if each["assistant_id"] == lab.assistant_id]
    assert ["pay"] == [each["function"]["name"] for each in run["tools"]]
    assert run["tools"] == json.loads(kept or "")
    assert items[0].run_id == listed.data[0].key.run_id
    assert "cancelled" == ended.status


async def test_tools_that_nobody_knows_begin_no_batch(caller: Caller, lab: Lab) -> None:
    """A server without tools says so; a line that brings one of the same name is told by line."""
    file = await caller.upload(caller.lines(1))
    with pytest.raises(openai.BadRequestError, match="No tool is registered"):
        await caller.begin(file.id, with_tools=True)
    tool = {"type": "function", "function": {"name": "pay", "parameters": {}}}
    async with serving(lab, tools=("tests.till_tools",)) as api:
        other = Caller(api.sdk(), lab)
        bad = await other.ended(
            (await other.begin_with(other.lines(1, tools=[tool]), with_tools=True)).id
        )
    assert bad.errors is not None
    [error] = bad.errors.data or []
    assert 1 == error.line
    assert "pay is given in tools" in (error.message or "")


async def test_a_batch_has_a_deadline_within_its_window(caller: Caller, lab: Lab) -> None:
    """Nothing begins after it. One that is past, beyond the window or of no zone is refused."""
    await lab.scenario(rounds=[SLOW])
    file = await caller.upload(caller.lines(4))
    now = datetime.now(UTC)
    for wrong in (
        now - timedelta(minutes=1),
        now + timedelta(hours=25),
    ):
        with pytest.raises(openai.BadRequestError, match="within the next 24h") as refused:
            await caller.begin(file.id, deadline=wrong.isoformat())
        assert "runlane.deadline" == refused.value.param
    for unread in ("06:00", "2026-12-01T06:00", True):
        with pytest.raises(openai.BadRequestError) as refused:
            await caller.begin(file.id, deadline=unread)
        assert "deadline" in str(refused.value.param)
    soon = now + timedelta(seconds=2)
    batch = await caller.begin(file.id, deadline=soon.isoformat(), max_in_flight=1)
    ended = await caller.ended(batch.id)
    whole = await caller.begin(file.id, deadline=int(now.timestamp()) + 600)
    await caller.sdk.batches.cancel(whole.id)

    assert "expired" == ended.status
    assert ended.expires_at is not None
    assert abs(ended.expires_at - soon.timestamp()) <= 1
    assert ended.request_counts is not None
    assert ended.request_counts.failed > 0
    assert int(now.timestamp()) + 600 == whole.expires_at


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"rpm": -1}, "rpm"),
        ({"tpm": "many"}, "tpm"),
        ({"tries": 101}, "tries"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"with_tools": "yes"}, "with_tools"),
        ({"with_messages": 1}, "with_messages"),
        ({"windows": 2}, "windows"),
    ],
)
async def test_an_option_that_cannot_be_is_named(
    caller: Caller, wrong: dict[str, Any], param: str
) -> None:
    """Each by its own name, before anything is written."""
    file = await caller.upload(b"{}\n")
    with pytest.raises(openai.BadRequestError) as refused:
        await caller.begin(file.id, **wrong)
    assert f"runlane.{param}" == refused.value.param
    assert [] == (await caller.sdk.batches.list()).data
