"""Batches that somebody pauses, resumes or cancels, and those whose time is over."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import Client

import ledger.batches
from activities.batch_contract import LaneDone
from activities.lanes import Lane
from ledger.batch_item import ItemState
from ledger.batch_record import BatchRecord, BatchStatus
from ledger.stops import Scope, Stop
from runlane.batches import steering
from runlane.batches.running import Batches
from runlane.doctor.batches import check_batches
from tests.batches import Batch, new_threads
from tests.lab import Lab, eventually
from tests.simulator_process import SimulatorProcess
from workflows.batch import BatchWorkflow

STEADY = {"queued": 0.05, "in_progress": 0.3, "says": "On its way."}
LONG = {"queued": 0.05, "in_progress": 600}


async def test_a_pause_begins_nothing_and_ends_what_has_begun(lab: Lab) -> None:
    """In flight comes down to none, the rest waits, and `resume` brings it to the end."""
    await lab.scenario(rounds=[STEADY])
    batch = Batch(lab)
    await batch.upload(new_threads(60))
    await batch.start(window=4)
    await batch.until(lambda counts: counts.by_state[ItemState.COMPLETED] >= 4)
    await batch.pause("lunch", by="ann")
    assert "lunch" == await batch.until_paused()
    counts = await batch.until(lambda counts: counts.in_flight == 0)
    await asyncio.sleep(1.0)
    still = await batch.counts()
    await batch.resume()
    status = await batch.ended()

    assert 0 < counts.by_state[ItemState.WAITING]
    assert counts == still
    assert "completed" == status
    assert 60 == len(await batch.results()) == len(await batch.upstream_runs())
    assert None is (await batch.record()).paused_at


async def test_a_lane_that_comes_back_paused_after_a_resume_is_started_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has seen the pause, and its word arrives once the batch has gone on: it doesn't stand
    still until the other lane, which has a long item, is back.
    """
    await lab.scenario(rounds=[STEADY])
    long = f"{lab.assistant_id}_long"
    await lab.scenario(assistant_id=long, rounds=[LONG])
    saw_the_pause, may_come_back = asyncio.Event(), asyncio.Event()
    work = Lane.work

    async def late(lane: Lane) -> LaneDone:
        done = await work(lane)
        if done.why == "paused":
            saw_the_pause.set()
            await may_come_back.wait()
        return done

    monkeypatch.setattr(Lane, "work", late)
    batch = Batch(lab)
    await batch.upload([*new_threads(1, assistant_id=long), *new_threads(10)])
    await batch.start(lanes=2, window=1)
    await batch.until(lambda counts: counts.by_state[ItemState.COMPLETED] >= 1)
    await batch.pause("lunch", by="ann")
    await asyncio.wait_for(saw_the_pause.wait(), 30)
    looks = (await batch.events()).count("ACTIVITY_TASK_COMPLETED")
    await batch.resume()
    await eventually(
        batch.events,
        lambda events: (
            events.count("ACTIVITY_TASK_COMPLETED") > looks
            and events[-1] == "WORKFLOW_TASK_COMPLETED"
        ),
    )
    may_come_back.set()
    counts = await batch.until(lambda counts: counts.by_state[ItemState.COMPLETED] == 10)
    await batch.cancel()
    status = await batch.ended()

    assert 1 == counts.in_flight
    assert "cancelled" == status


async def test_a_cancel_ends_what_waits_and_what_runs(lab: Lab) -> None:
    """What runs is cancelled upstream; each line says that it was cancelled."""
    await lab.scenario(rounds=[LONG])
    batch = Batch(lab)
    await batch.upload(new_threads(10))
    await batch.start(lanes=1, window=3)
    await batch.until(lambda counts: counts.in_flight == 3)
    await batch.until_upstream(3)
    await batch.cancel()
    status = await batch.ended()
    results = await batch.results()

    assert "cancelled" == status
    assert 10 == len(results)
    assert {ItemState.CANCELLED} == {each.state for each in results}
    assert ["cancelled"] * 3 == [each["status"] for each in await batch.upstream_runs()]


async def test_after_a_cancel_nothing_is_created_that_waited_for_its_turn(lab: Lab) -> None:
    """A lane has taken them, and two requests a second let none of them create its run before."""
    await lab.scenario(rounds=[STEADY])
    batch = Batch(lab)
    await batch.upload(new_threads(30), rpm=120.0)
    await batch.start(lanes=1, window=30)
    await batch.until(lambda counts: counts.in_flight == 30)
    await batch.cancel()
    status = await batch.ended()
    results = await batch.results()

    assert "cancelled" == status
    assert [] == await batch.upstream_runs()
    assert [(ItemState.CANCELLED, "batch_cancelled")] * 30 == [
        (each.state, each.error_kind) for each in results
    ]


async def test_after_its_deadline_a_batch_begins_nothing(lab: Lab) -> None:
    """What has begun goes on to its end; the rest ends `expired`, and so does the batch."""
    await lab.scenario(rounds=[{"queued": 0.05, "in_progress": 4.0, "says": "Late."}])
    batch = Batch(lab)
    deadline = datetime.now(UTC) + timedelta(seconds=3)
    await batch.upload(new_threads(5), deadline=deadline)
    await batch.start(lanes=1, window=2)
    status = await batch.ended()
    results = await batch.results()

    assert "expired" == status
    states = sorted(each.state for each in results)
    assert [ItemState.COMPLETED] * 2 + [ItemState.EXPIRED] * 3 == states
    assert 2 == len(await batch.upstream_runs())


async def test_a_stop_pauses_the_batch_and_says_so(lab: Lab) -> None:
    """The kill switch lets nothing be created; no item fails of it."""
    await lab.scenario(rounds=[STEADY])
    stop = Stop(scope=Scope.ALL, by="ann", reason="looks wrong", since=datetime.now(UTC))
    await lab.ledger.stops.stop(stop)
    batch = Batch(lab)
    await batch.upload(new_threads(3))
    await batch.start()
    reason = await batch.until_paused()
    created = len(await batch.upstream_runs())
    await lab.ledger.stops.resume(Scope.ALL)
    await batch.resume()
    status = await batch.ended()

    assert "stopped: Stopped by ann (everything): looks wrong" == reason
    assert 0 == created
    assert "completed" == status
    assert 3 == len(await batch.upstream_runs())


async def test_a_worker_of_another_upstream_touches_nothing(
    client: Client, simulator: SimulatorProcess
) -> None:
    """The batch is bound to the upstream on which it began: it is paused, and both are named."""
    lab = Lab(client, simulator)
    await lab.scenario(rounds=[STEADY])
    batch = Batch(lab)
    async with lab.worker(workers=1):
        await batch.upload(new_threads(12))
        await batch.start(lanes=1, window=2)
        await batch.until(lambda counts: counts.by_state[ItemState.COMPLETED] >= 2)
    with SimulatorProcess() as other:
        async with lab.worker(workers=1, upstream_url=other.url):
            reason = await batch.until_paused()
        strangers = other.runs()
    async with lab.worker(workers=1):
        await batch.resume()
        status = await batch.ended()
        results = await batch.results()

    assert reason.startswith(f"other_upstream: Its runs live on {simulator.url}")
    assert other.url in reason
    assert [] == strangers
    assert "completed" == status
    assert 12 == len(results) == len(await batch.upstream_runs())


async def test_a_batch_whose_workflow_was_ended_is_found_and_goes_on(lab: Lab) -> None:
    """Somebody has terminated it in Temporal: the doctor names it, and a resume starts it again; no
    line is run twice.
    """
    await lab.scenario(rounds=[{"queued": 0.05, "in_progress": 2.0, "says": "On its way."}])
    batch = Batch(lab)
    await batch.upload(new_threads(3))
    await batch.start()
    await batch.until(lambda counts: counts.in_flight == 3)
    before = await check_batches(lab.client, lab.ledger)
    await batch.handle.terminate()
    found = await check_batches(lab.client, lab.ledger)
    known = Batches(lab.client, lab.task_queue, lab.ledger)
    await steering.resume(known, await batch.record(), "ann")
    batch.handle = lab.client.get_workflow_handle_for(BatchWorkflow.run, batch.id)
    status = await batch.ended()

    assert not [each for each in before if batch.id in each.message]
    [named] = [each for each in found if batch.id in each.message]
    assert "problem" == named.level
    assert f"runlane batch resume {batch.id}" in named.remedy
    assert "completed" == status
    assert 3 == len(await batch.results()) == len(await batch.upstream_runs())


async def test_a_paused_batch_is_told_by_the_doctor(lab: Lab) -> None:
    """With who paused it, why, and how it goes on; it is nothing that is broken."""
    await lab.scenario(rounds=[STEADY])
    batch = Batch(lab)
    await batch.upload(new_threads(1))
    await lab.ledger.batches.pause(batch.id, "lunch", "ann", datetime.now(UTC))
    await batch.start()
    await eventually(batch.record, lambda found: found.status is BatchStatus.IN_PROGRESS)
    [named] = [
        each for each in await check_batches(lab.client, lab.ledger) if batch.id in each.message
    ]
    await batch.resume()
    await batch.ended()

    assert ("note", True) == (named.level, "is paused by ann: lunch" in named.message)
    assert f"runlane batch resume {batch.id}" in named.remedy


async def test_a_retry_reaches_a_batch_that_is_ending(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger has its end and its workflow still runs, as between the two for a moment: what is
    tried again then is driven, not left to a workflow that ends.
    """
    failing = {"queued": 0.05, "in_progress": 0.05, "ends": "failed"}
    await lab.scenario(rounds=[failing])
    batch = Batch(lab)
    known = Batches(lab.client, lab.task_queue, lab.ledger)
    set_status = ledger.batches.Batches.set_status
    retried: list[int] = []

    async def then_retry(
        batches: ledger.batches.Batches, id: str, status: BatchStatus, *rest: Any
    ) -> BatchRecord:
        found = await set_status(batches, id, status, *rest)
        if id == batch.id and found.status.is_end and not retried:
            await lab.scenario(rounds=[STEADY])
            retried.append(await lab.ledger.batch_items.retry_failed(id))
            await known.start(await batch.record())
        return found

    monkeypatch.setattr(ledger.batches.Batches, "set_status", then_retry)
    await batch.upload(new_threads(2))
    await batch.start()
    record = await eventually(batch.record, lambda found: bool(retried) and found.status.is_end)
    counts = await batch.counts()

    assert [2] == retried
    assert BatchStatus.COMPLETED is record.status
    assert 2 == counts.by_state[ItemState.COMPLETED]
