"""A batch goes on in a fresh history while its lanes are at work, and nobody can tell.

The server of these tests suggests it after a few events already.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

from ledger.batch_item import ItemState
from runlane.orchestrator import Runlane
from runlane.settings import Settings
from tests.batches import QUICK, Batch, new_threads
from tests.histories import activities, chain, kinds
from tests.lab import Lab, LabRun, eventually
from tests.restless import SUGGESTED_AT
from tests.simulator_process import SimulatorProcess
from workflows.batch import BatchWorkflow
from workflows.run import RunWorkflow

STEADY = {"queued": 0.02, "in_progress": 0.5, "says": "On its way."}
LONG = {"queued": 0.02, "in_progress": 3600.0, "says": "On its way."}
ASKS = {"queued": 0.02, "in_progress": 0.1, "calls": [{"name": "lookup_order"}]}
SAYS = {"queued": 0.02, "in_progress": 0.05, "says": "Done."}
BACK_WITHIN = 20.0
"""Seconds until all lanes have heard that they are called back, and have left."""


@pytest.fixture
def lab(restless_lab: Lab) -> Lab:
    """Let every test here run on the restless server."""
    return restless_lab


async def executions(batch: Batch) -> list[list[HistoryEvent]]:
    """Return the histories of all executions of a batch, from the first on."""
    run = LabRun(batch.lab.client.get_workflow_handle_for(RunWorkflow.run, batch.id))
    return await chain(batch.lab.client, run, batch.handle.first_execution_run_id)


async def until_continued(
    batch: Batch, times: int, say: Callable[[], Awaitable[object]], *, every: float = 0.1
) -> None:
    """Say something, each time in a task of its own, until the batch has gone over so often."""

    async def continued() -> int:
        await say()
        await asyncio.sleep(every)
        return len(await executions(batch)) - 1

    await eventually(continued, lambda so_often: so_often >= times, within=timedelta(seconds=90))


async def assert_once(batch: Batch, count: int) -> None:
    """Each line has one result and one run upstream, and nothing is left."""
    results, upstream = await batch.results(), await batch.upstream_runs()
    assert {ItemState.COMPLETED: count} == Counter(each.state for each in results)
    assert {f"item-{number}" for number in range(count)} == {each.custom_id for each in results}
    assert count == len(results) == len(upstream)
    assert {each.run_id for each in results} == {
        each["metadata"]["runlane_run_id"] for each in upstream
    }


async def test_with_lanes_at_work(lab: Lab) -> None:
    """Three times over, with items in flight each time: the lanes come back within seconds, though
    they might stay for minutes, the next execution's take over what they held, and no line is
    lost, and none is run twice.
    """
    await lab.scenario(rounds=[LONG], expires_after=0)
    batch = Batch(lab)
    await batch.upload(new_threads(40))
    await batch.start(window=4)
    await batch.until_upstream(8)
    began = asyncio.get_running_loop().time()
    await until_continued(batch, 3, lambda: batch.handle.signal(BatchWorkflow.look))
    took = asyncio.get_running_loop().time() - began
    await lab.scenario(rounds=[STEADY])
    for run in await batch.upstream_runs():
        await lab.force(run["id"], "completed")
    status = await batch.ended(seconds=90)
    histories = await executions(batch)

    assert "completed" == status
    await assert_once(batch, 40)
    assert took < 3 * BACK_WITHIN
    for events in histories[:3]:
        assert {"batch.look", "batch.lane"} == set(activities(events))
        assert kinds(events)["ACTIVITY_TASK_CANCEL_REQUESTED"] > 0


async def test_with_a_pause_that_stands(lab: Lab) -> None:
    """Words without end come to a batch that is paused: it goes over again and again, stays
    paused, begins nothing, and is brought to its end by `resume`.
    """
    await lab.scenario(rounds=[STEADY])
    batch = Batch(lab)
    await batch.upload(new_threads(30))
    await batch.start(window=4)
    await batch.until(lambda counts: counts.by_state[ItemState.COMPLETED] >= 4)
    await batch.pause("lunch", by="ann")
    await batch.until_paused()
    before = await batch.until(lambda counts: counts.in_flight == 0)
    await until_continued(batch, 3, lambda: batch.pause("still lunch", by="ann"))
    record, still = await batch.record(), await batch.counts()
    await batch.resume()
    status = await batch.ended()

    assert "lunch" == record.paused_reason
    assert before == still
    assert 0 < before.by_state[ItemState.WAITING]
    assert "completed" == status
    await assert_once(batch, 30)


async def test_words_in_the_task_that_makes_the_history_long_are_all_heeded(
    restless: Client, simulator: SimulatorProcess
) -> None:
    """Nobody is there to take them, so that they come together, and the last of them counts: one
    batch is paused after all and then goes on, another is cancelled.
    """
    lab = Lab(restless, simulator)
    await lab.scenario(rounds=[STEADY])
    paused, cancelled = Batch(lab), Batch(lab)
    async with lab.worker():
        for batch in (paused, cancelled):
            await batch.upload(new_threads(20))
            await batch.start(lanes=1, window=2)
            await batch.until(lambda counts: counts.by_state[ItemState.COMPLETED] >= 2)
    for _ in range(SUGGESTED_AT):
        await paused.resume()
        await cancelled.handle.signal(BatchWorkflow.look)
    await paused.pause("now", by="ann")
    await cancelled.cancel()
    async with lab.worker():
        reason = await paused.until_paused()
        ended = await cancelled.ended()
        await paused.resume()
        status = await paused.ended()
        results = await cancelled.results()
        upstream = {each["metadata"]["runlane_run_id"] for each in await paused.upstream_runs()}
        completed = await paused.results()
        overs = [len(await executions(batch)) for batch in (paused, cancelled)]

    assert "now" == reason
    assert ("cancelled", "completed") == (ended, status)
    assert 20 == len(results) == len(completed)
    assert {ItemState.COMPLETED} == {each.state for each in completed}
    assert {each.run_id for each in completed} <= upstream
    assert min(overs) > 1


async def test_with_items_that_have_become_runs(lab: Lab) -> None:
    """Half of the lines wait for answers, as runs of their own, while the batch goes over and
    lanes drive the rest; each is answered once, and writes its line's result.
    """
    await lab.scenario(rounds=[ASKS, SAYS])
    steady = f"{lab.assistant_id}_steady"
    await lab.scenario(assistant_id=steady, rounds=[STEADY])
    runs = Runlane(lab.client, Settings(task_queue=lab.task_queue)).runs
    batch = Batch(lab)
    await batch.upload([*new_threads(10), *new_threads(40, assistant_id=steady)])
    await batch.start(window=2)
    await batch.until(lambda counts: counts.promoted == 10)
    await until_continued(batch, 2, lambda: batch.handle.signal(BatchWorkflow.look))
    for item in await lab.ledger.batch_items.promoted(batch.id):
        run = await runs.retrieve(item.run_id or "")
        outputs = [{"tool_call_id": call.id, "output": item.custom_id} for call in run.tool_calls]
        await runs.submit_tool_outputs(run.id, tool_outputs=outputs)
    status = await batch.ended(seconds=90)
    results = await batch.results()

    assert "completed" == status
    assert 50 == len(results) == len({each.custom_id for each in results})
    assert {ItemState.COMPLETED} == {each.state for each in results}
    assert 10 == len(await batch.upstream_runs())


async def test_a_flood_of_words_leaves_no_history_long(lab: Lab) -> None:
    """Words come as fast as they can while lanes are called back: few of them cost a look."""
    await lab.scenario(rounds=[{"queued": 0.02, "in_progress": 4.0, "says": "Late."}])
    batch = Batch(lab)
    await batch.upload(new_threads(8))
    await batch.start(window=2, timing=QUICK.model_copy(update={"look_floor": 5.0}))
    await batch.until(lambda counts: counts.in_flight == 4)
    await until_continued(batch, 2, batch.resume, every=0.0)
    status = await batch.ended(seconds=90)
    histories = await executions(batch)

    assert "completed" == status
    await assert_once(batch, 8)
    for events in histories:
        assert EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED != events[-1].event_type
        assert activities(events).count("batch.look") <= SUGGESTED_AT // 3 + BACK_WITHIN / 5.0
