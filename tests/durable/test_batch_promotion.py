"""Items of a batch that wait for somebody become runs of their own, and give their slot back."""

import asyncio
import json

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from ledger.approval import ApprovalQuery
from ledger.batch_item import ItemState
from runlane.batches import people
from runlane.embedded import EmbeddedTemporal
from runlane.orchestrator import Runlane
from runlane.settings import Settings
from runlane.tools.functions import tool
from runlane.tools.registry import Registry
from runlane.tools.toolbox import RegisteredTools
from tests.batches import Batch, new_threads
from tests.clerk import Clerk, waiting
from tests.lab import Lab, LabRun, eventually
from tests.simulator_process import SimulatorProcess
from tests.till import Till, refund
from workflows.run import RunWorkflow

ASK = {"queued": 0.02, "in_progress": 0.05, "calls": [{"name": "lookup_order"}]}
DONE = {"queued": 0.02, "in_progress": 0.05, "says": "{lookup_order}"}


async def test_items_that_ask_for_tools_are_answered_as_runs(lab: Lab) -> None:
    """Four lines wait in a batch whose only lane drives one at a time; each is answered through
    the client, by the line's run id, and writes the line's result itself.
    """
    await lab.scenario(rounds=[ASK, DONE])
    runs = Runlane(lab.client, Settings(task_queue=lab.task_queue)).runs
    batch = Batch(lab)
    await batch.upload(new_threads(4, metadata={"ticket": "7"}))
    await batch.start(lanes=1, window=1)
    await batch.until(lambda counts: counts.promoted == 4)
    promoted = await lab.ledger.batch_items.promoted(batch.id)
    for item in promoted:
        run = await runs.retrieve(item.run_id or "")
        assert "requires_action" == run.status
        assert {"ticket": "7"} == run.metadata
        outputs = [{"tool_call_id": call.id, "output": item.custom_id} for call in run.tool_calls]
        await runs.submit_tool_outputs(run.id, tool_outputs=outputs)
    status = await batch.ended()
    results = await batch.results()
    bodies = {each.custom_id: json.loads(each.response or "null") for each in results}

    assert "completed" == status
    assert {ItemState.COMPLETED} == {each.state for each in results}
    assert {each.custom_id: each.run_id for each in promoted} == {
        custom_id: body["id"] for custom_id, body in bodies.items()
    }
    assert 4 == len(await batch.upstream_runs())
    assert [{"ticket": "7"}] * 4 == [body["metadata"] for body in bodies.values()]
    assert [150] * 4 == [each.usage.total_tokens for each in results]


async def test_a_run_that_was_ended_in_temporal_does_not_hold_its_batch(lab: Lab) -> None:
    """It can't write its result; the batch looks, and lists it as one of which nobody knows."""
    await lab.scenario(rounds=[ASK, DONE])
    batch = Batch(lab)
    await batch.upload(new_threads(1))
    await batch.start()
    await batch.until(lambda counts: counts.promoted == 1)
    [item] = await lab.ledger.batch_items.promoted(batch.id)
    await lab.client.get_workflow_handle(item.run_id or "").terminate()
    status = await batch.ended()
    [result] = await batch.results()

    assert "completed" == status
    assert ItemState.UNCERTAIN == result.state
    assert "may be alive" in json.loads(result.error or "{}")["message"]


async def test_a_batch_that_is_cancelled_cancels_its_runs(lab: Lab) -> None:
    """Those that were promoted too: upstream nothing is left alive."""
    await lab.scenario(rounds=[ASK, DONE])
    batch = Batch(lab)
    await batch.upload(new_threads(2))
    await batch.start()
    await batch.until(lambda counts: counts.promoted == 2)
    await batch.cancel()
    status = await batch.ended()
    results = await batch.results()

    assert "cancelled" == status
    assert [ItemState.CANCELLED] * 2 == [each.state for each in results]
    assert ["cancelled"] * 2 == [each["status"] for each in await batch.upstream_runs()]


async def test_what_people_approve_is_done_once_and_the_line_completes(
    client: Client, simulator: SimulatorProcess
) -> None:
    """A worker's tool that people must approve waits as any run's does, and is listed so."""
    lab, clerk, till = Lab(client, simulator), Clerk(), Till()
    async with lab.worker(tools=till.tools, verifier=clerk.verifier):
        await lab.scenario(rounds=[{"calls": [refund("A-7", 9)]}, {"says": "Done."}])
        batch = Batch(lab)
        await batch.upload(new_threads(1), with_tools=True)
        await batch.start()
        await batch.until(lambda counts: counts.promoted == 1)
        [item] = await lab.ledger.batch_items.promoted(batch.id)
        run = LabRun(client.get_workflow_handle_for(RunWorkflow.run, item.run_id or ""))
        await waiting(run)
        listed = await lab.ledger.approvals.list(ApprovalQuery())
        receipt = await clerk.decide("approve", run)
        status = await batch.ended()
        [result] = await batch.results()

    assert "completed" == status
    assert ItemState.COMPLETED == result.state
    assert [("A-7", 9)] == till.paid
    assert [item.run_id] == [each.key.run_id for each in listed.data]
    assert "recorded" == receipt
    assert 1 == len(await batch.upstream_runs())


async def test_only_what_asks_somebody_waits_for_people(
    client: Client, simulator: SimulatorProcess
) -> None:
    """Three lines wait for a worker's tool, which needs nobody, and two for a decision: all are
    runs of their own, and two are with people. Once they are decided, nobody is waited for.
    """
    released = asyncio.Event()

    @tool(policy="auto", read_only=True)
    async def look_up(order_id: str) -> str:
        """Look an order up."""
        # Its loop is another one than the test's, whose word would not wake it.
        while not released.is_set():
            await asyncio.sleep(0.05)
        return f"{order_id} has shipped"

    @tool(policy="approve")
    async def refund(order_id: str) -> str:
        """Pay an order back."""
        return f"{order_id} is paid"

    lab, clerk = Lab(client, simulator), Clerk()
    tools = RegisteredTools(Registry.of(look_up, refund))
    async with lab.worker(tools=tools, verifier=clerk.verifier):
        other = f"{lab.assistant_id}_pays"
        for assistant_id, name in ((lab.assistant_id, "look_up"), (other, "refund")):
            call = {"name": name, "arguments": {"order_id": "A-1"}}
            await lab.scenario(
                assistant_id=assistant_id, rounds=[{"calls": [call]}, {"says": "Done."}]
            )
        batch = Batch(lab)
        lines = [*new_threads(3), *new_threads(2, assistant_id=other)]
        await batch.upload(lines, with_tools=True)
        await batch.start()
        counts = await batch.until(lambda counts: counts.promoted == 5)

        async def asking() -> int | None:
            return await people.waiting(client, lab.ledger, batch.id, counts)

        two = await eventually(asking, lambda found: found == 2)
        for item in (await lab.ledger.batch_items.promoted(batch.id))[3:]:
            run = LabRun(client.get_workflow_handle_for(RunWorkflow.run, item.run_id or ""))
            await waiting(run)
            await clerk.decide("approve", run)
        none = await eventually(asking, lambda found: found == 0)
        left = await batch.until(lambda counts: counts.promoted == 3)
        released.set()
        status = await batch.ended()

    assert (2, 0) == (two, none)
    assert 3 == left.unfinished
    assert "completed" == status


async def test_a_run_too_large_for_temporal_holds_no_slot(
    temporal_server: EmbeddedTemporal, simulator: SimulatorProcess
) -> None:
    """Without a place for big payloads a run of over two megabytes can't become one of its own:
    its line fails and says so, upstream nothing waits on, and the next line has its slot.
    """
    bare = await Client.connect(temporal_server.address, data_converter=pydantic_data_converter)
    lab = Lab(bare, simulator)
    async with lab.worker(workers=1):
        await lab.scenario(rounds=[ASK, DONE])
        batch = Batch(lab)
        [large, small] = new_threads(2)
        large[1]["instructions"] = "€" * 250_000
        large[1]["additional_instructions"] = "€" * 112_000
        await batch.upload([large, small])
        await batch.start(lanes=1, window=1)
        await batch.until(lambda counts: counts.promoted == 1)
        [result] = await batch.results()
        [upstream, _] = await batch.upstream_runs()
        record = await lab.ledger.runs.find(result.run_id or "")

    assert ("item-0", ItemState.FAILED, "not_promotable") == (
        result.custom_id,
        result.state,
        result.error_kind,
    )
    assert "Blob data size exceeds limit" in json.loads(result.error or "{}")["message"]
    assert upstream["status"] in {"cancelling", "cancelled"}
    assert record is not None
    assert "failed" == record.status
