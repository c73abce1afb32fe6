"""What a batch may ask in a minute, and a 429, hold for all processes that drive it."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client

from ledger.batch_item import ItemState
from runlane.embedded import EmbeddedTemporal
from runlane.ledger_access import open_ledger
from runlane.settings import Settings
from tests.batches import Batch, new_threads
from tests.lab import eventually
from tests.processes import Plant
from tests.simulator_process import SimulatorProcess

QUICK = {"queued": 0.1, "in_progress": 0.4, "says": "On its way."}
MINUTE = 60.0


@pytest_asyncio.fixture
async def own_plant(
    temporal_server: EmbeddedTemporal, client: Client, data_dir: Path
) -> AsyncIterator[Plant]:
    """A plant whose upstream nobody else asks."""
    with SimulatorProcess() as simulator:
        plant = Plant(temporal_server.address, client, simulator, data_dir)
        try:
            await plant.lab.scenario(rounds=[QUICK])
            yield plant
        finally:
            await plant.dispose()


async def received(plant: Plant) -> list[dict[str, Any]]:
    """Return what came upstream, in order."""
    report = await asyncio.to_thread(plant.simulator.requests)
    return sorted(report["data"], key=lambda entry: entry["at"])


async def processes_at_work(batch: Batch) -> set[str]:
    """Return the workers that drive a lane now."""
    described = await batch.handle.describe()
    pending = described.raw_description.pending_activities
    lanes = [each for each in pending if each.activity_type.name == "batch.lane"]
    return {each.last_worker_identity for each in lanes if each.last_worker_identity}


def most_in_a_minute(at: Sequence[float]) -> int:
    """Return how many of these times lie in the fullest minute, wherever it begins."""
    most = first = 0
    for last, moment in enumerate(at):
        while moment - at[first] >= MINUTE:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_no_minute_has_more_requests_than_the_limit(own_plant: Plant, data_dir: Path) -> None:
    """Two processes drive four lanes, and one of them dies and another one comes: in no minute
    more than 300 requests come upstream, and not many fewer either.
    """
    lab, rpm, items = own_plant.lab, 300, 115
    workers = [await own_plant.worker() for _ in range(2)]
    async with await open_ledger(Settings(data_dir=data_dir)) as lab.ledger:
        batch = Batch(lab)
        await batch.upload(new_threads(items), rpm=rpm)
        await batch.start(lanes=4, window=8)
        at_work = await eventually(lambda: processes_at_work(batch), lambda who: len(who) == 2)
        await batch.until(lambda counts: counts.by_state[ItemState.COMPLETED] >= 20, seconds=90)
        await workers[0].kill()
        await own_plant.worker()
        status = await batch.ended(seconds=150)
        results = await batch.results()
        upstream = await batch.upstream_runs()
    at = [entry["at"] for entry in await received(own_plant)]

    assert 2 == len(at_work)
    assert "completed" == status
    assert items == len(results) == len(upstream)
    assert at[-1] - at[0] > MINUTE + 10
    assert 0.85 * rpm <= most_in_a_minute(at) <= rpm


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_no_minute_has_more_tokens_than_the_limit(own_plant: Plant, data_dir: Path) -> None:
    """Two processes drive four lanes, and one of them dies: items of 150 tokens end at most twenty
    times in a minute, where 3,000 are allowed, and at once as soon as that allows it.
    """
    lab, tpm, items = own_plant.lab, 3_000, 32
    workers = [await own_plant.worker() for _ in range(2)]
    async with await open_ledger(Settings(data_dir=data_dir)) as lab.ledger:
        batch = Batch(lab)
        await batch.upload(new_threads(items), tpm=tpm)
        await batch.start(lanes=4, window=8)
        await batch.until(lambda counts: counts.by_state[ItemState.COMPLETED] == 20)
        await workers[0].kill()
        await own_plant.worker()
        status = await batch.ended(seconds=110)
        results = await batch.results()
    ended = sorted(each.ended_at.timestamp() for each in results if each.ended_at is not None)

    assert "completed" == status
    assert items == len(ended)
    assert {150} == {each.usage.total_tokens for each in results}
    assert 20 == most_in_a_minute(ended)
    assert ended[-1] - ended[0] < MINUTE + 20


async def test_the_only_lane_that_has_work_has_the_whole_rate(
    own_plant: Plant, data_dir: Path
) -> None:
    """Four lanes are there, in two processes, and one of them holds all items: ten requests a
    second go, as many as the limit allows all of them together.
    """
    lab, rpm, items = own_plant.lab, 600, 40
    for _ in range(2):
        await own_plant.worker()
    async with await open_ledger(Settings(data_dir=data_dir)) as lab.ledger:
        batch = Batch(lab)
        await batch.upload(new_threads(items), rpm=rpm)
        await batch.start(lanes=4, window=items)
        status = await batch.ended(seconds=90)
        results = await batch.results()
    at = [entry["at"] for entry in await received(own_plant)]
    # The first and the last moments are of few items.
    busy = at[5:-20]

    assert "completed" == status
    assert items == len(results)
    assert 1 == len({each.lane for each in results})
    assert 0.85 * rpm / MINUTE <= (len(busy) - 1) / (busy[-1] - busy[0]) <= rpm / MINUTE


async def test_a_429_holds_all_processes(own_plant: Plant, data_dir: Path) -> None:
    """One request of one lane is told to come again in eight seconds: within two of them all is
    still, in the other process, too, until they are over; then all goes on to its end.
    """
    lab, items = own_plant.lab, 300
    for _ in range(2):
        await own_plant.worker()
    async with await open_ledger(Settings(data_dir=data_dir)) as lab.ledger:
        batch = Batch(lab)
        await batch.upload(new_threads(items))
        await batch.start(lanes=6, window=3)
        at_work = await eventually(lambda: processes_at_work(batch), lambda who: len(who) == 2)
        await batch.until(lambda counts: counts.by_state[ItemState.COMPLETED] >= 20)
        lab.simulator.fault("runs.create", "rate_limit", retry_after=8)
        began = time.monotonic()

        async def told() -> list[float]:
            return [each["at"] for each in await received(own_plant) if each["status"] == 429]

        [since] = await eventually(told, lambda found: len(found) == 1)
        status = await batch.ended(seconds=110)
        results = await batch.results()
        upstream = await batch.upstream_runs()
        held_until = (await batch.record()).held_until
    at = [entry["at"] for entry in await received(own_plant)]
    still = [moment - since for moment in at if since + 2.0 < moment < since + 8.0]

    assert 2 == len(at_work)
    assert time.monotonic() - began > 8
    assert [] == still
    assert "completed" == status
    assert items == len(results) == len(upstream)
    assert {ItemState.COMPLETED} == {each.state for each in results}
    assert held_until is not None
    assert (
        timedelta(seconds=7)
        < held_until - datetime.fromtimestamp(since, UTC)
        < timedelta(seconds=9)
    )
