"""A key that is rotated: what it stopped goes on by itself, and nothing is done twice."""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.client import Client

from runlane import blocked
from runlane.embedded import EmbeddedTemporal
from tests.lab import Lab, eventually
from tests.processes import Plant
from tests.simulator_process import SimulatorProcess
from workflows.contract import BlockedKind, Timing

RUNS = 500
BACK_WITHIN = 60.0
"""Seconds from the new key in the file until every run has gone on. They are told fifty a second,
and a worker looks every few seconds."""
PATIENCE = timedelta(seconds=240)
"""For the rest, on a machine that has other things to do."""
AT_ONCE = 50
RARELY = Timing(blocked_floor=900.0)
"""So that nobody comes back by the curve."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def guarded() -> Iterator[SimulatorProcess]:
    """An upstream that demands a key."""
    with SimulatorProcess("--api-key", "old", "--no-bodies") as process:
        yield process


async def test_five_hundred_runs_come_back_after_a_rotation(  # noqa: PLR0917 - fixtures
    guarded: SimulatorProcess,
    temporal_server: EmbeddedTemporal,
    client: Client,
    data_dir: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """The upstream takes another key and the file follows: no restart, nothing lost or doubled."""
    file = tmp_path / "key"
    file.write_text("old")
    plant = Plant(temporal_server.address, client, guarded, data_dir)
    plant._environ["RUNLANE_UPSTREAM_API_KEY_FILE"] = str(file)
    lab = plant.lab
    await lab.scenario(rounds=[{"queued": 0.0, "in_progress": 0.0, "says": "Done."}])
    # The old key may create still, so that each run is refused once it exists.
    faults = [
        guarded.fault(each, "unauthorized", times=0) for each in ("runs.retrieve", "runs.list")
    ]
    try:
        await asyncio.gather(plant.worker(), plant.worker())
        await started(lab)
        await eventually(lambda: count_blocked(lab), lambda count: count == RUNS, within=PATIENCE)
        guarded.demand("new")
        for fault in faults:
            guarded.remove_fault(fault)

        # As secrets are put in place: a new file takes the old one's name.
        mended = tmp_path / "mended"
        mended.write_text("new\n")
        mended.replace(file)
        since = time.monotonic()
        await eventually(lambda: completed(lab), lambda count: count == RUNS, within=PATIENCE)
        took = time.monotonic() - since
    finally:
        await plant.dispose()

    record_property("back_after", took)
    assert took < BACK_WITHIN
    assert await count_blocked(lab) == 0
    runs = guarded.runs()
    assert len(runs) == len({run["metadata"]["runlane_run_id"] for run in runs}) == RUNS
    report = guarded.requests(operation="runs.create")
    assert report["counts"] == report["accepted"] == {"runs.create": RUNS}


async def started(lab: Lab) -> None:
    """Start the runs, each on a thread of its own."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def start(number: int) -> None:
        async with slots:
            await lab.start(timing=RARELY, thread_id=f"{lab.thread_id}_{number}")

    await asyncio.gather(*(start(number) for number in range(RUNS)))


async def count_blocked(lab: Lab) -> int:
    """Return how many of the runs are blocked."""
    return await blocked.count(lab.client, BlockedKind.CREDENTIALS, task_queue=lab.task_queue)


async def completed(lab: Lab) -> int:
    """Return how many of the runs have completed."""
    query = f"TaskQueue = '{lab.task_queue}' AND RunlaneStatus = 'completed'"
    return (await lab.client.count_workflows(query)).count
