"""Workers are killed while they drive a batch: each line is run once, and ends once."""

import asyncio
from pathlib import Path

from ledger.batch_item import ItemState
from runlane.ledger_access import open_ledger
from runlane.orchestrator import Runlane
from runlane.settings import Settings
from tests.batches import Batch, new_threads
from tests.lab import eventually
from tests.processes import Plant

ITEMS = 120
ASKS = {"queued": 0.1, "in_progress": 0.3, "calls": [{"name": "lookup_order"}]}
SLOW = {"queued": 0.1, "in_progress": 1.0, "says": "On its way."}


async def test_what_a_killed_worker_held_is_taken_over(plant: Plant, data_dir: Path) -> None:
    """Two workers drive two lanes; one dies in the middle of it, later the other, and no run is
    created twice, none is missing, and each line has one result.
    """
    lab = plant.lab
    await lab.scenario(rounds=[SLOW])
    first = await plant.worker()
    second = await plant.worker()
    async with await open_ledger(Settings(data_dir=data_dir)) as lab.ledger:
        batch = Batch(lab)
        await batch.upload(new_threads(ITEMS))
        await batch.start(window=16)
        await batch.until(lambda counts: counts.by_state[ItemState.COMPLETED] >= ITEMS // 6)
        await first.kill()
        await plant.worker()
        await batch.until(lambda counts: counts.by_state[ItemState.COMPLETED] >= ITEMS // 2)
        await second.kill()
        status = await batch.ended(seconds=90)
        results = await batch.results()
        upstream = await batch.upstream_runs()

    assert "completed" == status
    assert {ItemState.COMPLETED} == {each.state for each in results}
    assert {f"item-{number}" for number in range(ITEMS)} == {each.custom_id for each in results}
    assert ITEMS == len(results)
    assert ITEMS == len(upstream)
    assert {each.run_id for each in results} == {
        each["metadata"]["runlane_run_id"] for each in upstream
    }


async def test_a_create_whose_answer_a_dead_worker_awaited_is_found(
    plant: Plant, data_dir: Path
) -> None:
    """The upstream has accepted the run when the worker dies: it is found by its stamp. The next
    line of the same thread begins once that one has ended.
    """
    lab = plant.lab
    await lab.scenario(rounds=[SLOW])
    worker = await plant.worker()
    async with await open_ledger(Settings(data_dir=data_dir)) as lab.ledger:
        batch = Batch(lab)
        held = await lab.fault("runs.create", "hold_after")
        await batch.upload([(lab.thread_id, {}), (lab.thread_id, {})])
        await batch.start(lanes=1)
        await lab.held(held)
        await worker.kill()
        await lab.release(held, answer=False)
        await plant.worker()
        status = await batch.ended()
        results = await batch.results()
        accepted = await lab.accepted("runs.create")

    assert "completed" == status
    assert ["item-0", "item-1"] == [each.custom_id for each in results]
    assert 2 == accepted
    assert 2 == len({each.response for each in results})
    assert await asyncio.to_thread(lambda: len(lab.simulator.thread(lab.thread_id)["runs"])) == 2


async def test_a_deploy_in_the_middle_repeats_nothing(plant: Plant, data_dir: Path) -> None:
    """A worker that is told to stop hands its lanes over: what it had created is followed by the
    next one, and its process ends in good order.
    """
    lab = plant.lab
    await lab.scenario(rounds=[SLOW])
    old = await plant.worker()
    async with await open_ledger(Settings(data_dir=data_dir)) as lab.ledger:
        batch = Batch(lab)
        await batch.upload(new_threads(40))
        await batch.start(window=10)
        # The first two windows end together, and nothing is in flight then: these are later ones.
        await eventually(batch.upstream_runs, lambda runs: len(runs) >= 25)
        old.terminate()
        exit_status = await old.wait()
        left = await batch.counts()
        await plant.worker()
        status = await batch.ended()
        results = await batch.results()
        upstream = await batch.upstream_runs()

    assert 0 == exit_status
    assert left.in_flight > 0, left
    assert "completed" == status
    assert 40 == len({each.custom_id for each in results}) == len(results)
    assert 40 == len(upstream)


async def test_a_worker_that_wakes_up_again_sends_nothing(plant: Plant, data_dir: Path) -> None:
    """One that was frozen for longer than its heartbeats allow finds its lanes taken: for the
    threads that it has made meanwhile it creates no run, and what it writes doesn't count.
    """
    lab = plant.lab
    await lab.scenario(rounds=[SLOW])
    frozen = await plant.worker()
    async with await open_ledger(Settings(data_dir=data_dir)) as lab.ledger:
        batch = Batch(lab)
        await batch.upload(new_threads(30))
        # Frozen while it waits, and not while it writes: nobody could write to SQLite's file then.
        held = lab.simulator.fault("threads.create", "hold_after", times=10)
        await batch.start(window=5)
        await asyncio.to_thread(lambda: lab.simulator.wait_held(held, waiting=10))
        frozen.pause()
        lab.simulator.release(held)
        await plant.worker()
        await batch.until(lambda counts: counts.by_state[ItemState.COMPLETED] >= 15, seconds=60)
        frozen.resume()
        status = await batch.ended()
        results = await batch.results()
        upstream = await batch.upstream_runs()

    assert "completed" == status
    assert 30 == len({each.custom_id for each in results}) == len(results)
    assert 30 == len(upstream)


async def test_a_worker_dies_while_items_become_runs(plant: Plant, data_dir: Path) -> None:
    """Some were promoted, some not yet: the next worker promotes the rest, each line is one run,
    and each is answered once.
    """
    lab = plant.lab
    await lab.scenario(rounds=[ASKS, SLOW])
    runs = Runlane(lab.client, Settings(task_queue=lab.task_queue)).runs
    worker = await plant.worker()
    async with await open_ledger(Settings(data_dir=data_dir)) as lab.ledger:
        batch = Batch(lab)
        await batch.upload(new_threads(24))
        await batch.start(window=4)
        await batch.until(lambda counts: counts.promoted >= 6)
        await worker.kill()
        await plant.worker()
        await batch.until(lambda counts: counts.promoted == 24, seconds=60)
        for item in await lab.ledger.batch_items.promoted(batch.id):
            run = await runs.retrieve(item.run_id or "")
            outputs = [{"tool_call_id": call.id, "output": "ok"} for call in run.tool_calls]
            await runs.submit_tool_outputs(run.id, tool_outputs=outputs)
        status = await batch.ended(seconds=90)
        results = await batch.results()
        upstream = await batch.upstream_runs()

    assert "completed" == status
    assert {ItemState.COMPLETED} == {each.state for each in results}
    assert 24 == len({each.custom_id for each in results}) == len(results)
    assert 24 == len(upstream)
