"""One worker full of attached polls and of waiting runs: what changes something goes at once."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from runlane.embedded import EmbeddedTemporal
from runlane.temporal import connect
from runsapi import Assistants
from tests.e2e.test_metrics import SERVED, scrape, total
from tests.handed_on import Starter
from tests.lab import LabRun, eventually
from tests.processes import Plant, WorkerProcess
from tests.simulator_process import SimulatorProcess
from tests.temporal_server import encrypting
from worker import MAX_CACHED_WORKFLOWS
from workflows.contract import RunOptions, RunRequest, Timing
from workflows.run import RunWorkflow
from workflows.task_queues import poll_task_queue

POLLS = 500
WAITING = 300
EACH = 3
"""Creates, submits and cancels, all at once."""
INTERVAL = 5.0
"""Seconds between the polls of a run, fixed by its caller: so it stays attached however old."""
WAITED_FOR = 8 * 3600.0
"""Seconds: at this age a run looks at its upstream every quarter of an hour, and here never."""
WITHIN = timedelta(seconds=300)
"""For what takes seconds: the machine has other tests to run."""
LOOK_SECONDS = 0.5

ENDLESS = {"queued": 0.0, "ends": "never"}
ASK = {"queued": 0.0, "in_progress": 0.0, "calls": [{"name": "look"}]}

Change = Callable[[], Awaitable[tuple[str, str]]]
"""Makes a change; returns its thread and the upstream's operation."""


@pytest_asyncio.fixture
async def own_plant(tmp_path: Path) -> AsyncIterator[Plant]:
    """A plant on a server and an upstream of its own, which go with the hundreds of its runs."""
    settings = encrypting(tmp_path)
    with SimulatorProcess("--no-bodies") as simulator:
        async with EmbeddedTemporal(tmp_path) as server:
            client = await connect(settings, environ={"TEMPORAL_ADDRESS": server.address})
            plant = Plant(server.address, client, simulator, tmp_path)
            try:
                yield plant
            finally:
                await plant.dispose()


class Load:
    """The runs that fill a worker, and changes to some of them."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._waiting: list[str] = []
        self._calls: dict[str, tuple[str, str]] = {}
        """Thread and call of each run that waits."""
        self._legs: list[tuple[str, str]] = []
        """Run and thread."""
        self._polled: set[str] = set()
        """The threads of all of them, ended ones too."""

    async def wait(self, starter: Starter) -> None:
        """Start the runs that wait for an answer."""
        lab = self._plant.another_lab()
        await lab.scenario(rounds=[ASK, ENDLESS], expires_after=0)
        requests = [request(lab.assistant_id, f"wait_{number}") for number in range(WAITING)]
        await asyncio.gather(*(starter.waiting(r, age=WAITED_FOR) for r in requests))
        self._waiting = list(starter.taken_up)
        for run in await asyncio.to_thread(lambda: self._plant.simulator.runs(live=True)):
            (call,) = run["required_action"]["submit_tool_outputs"]["tool_calls"]
            self._calls[run["metadata"]["runlane_run_id"]] = run["thread_id"], call["id"]

    async def poll(self, starter: Starter) -> None:
        """Start the runs with a leg that never ends; the upstream lets their polls hang."""
        lab = self._plant.lab
        await lab.scenario(rounds=[ENDLESS], expires_after=0)
        requests = [request(lab.assistant_id, f"poll_{number}") for number in range(POLLS)]
        threads = [r.thread_id for r in requests]
        for thread_id in threads:
            # Not all retrieves: a submit looks whether its round is still open.
            await lab.fault("runs.retrieve", "hold_before", thread_id=thread_id, times=0)
        run_ids = await asyncio.gather(*(starter.in_leg(r) for r in requests))
        self._legs = list(zip(run_ids, threads, strict=True))
        self._polled = set(threads)

    async def hanging(self) -> int:
        """Return how many of these have asked the upstream, and none has had an answer."""
        await asyncio.sleep(LOOK_SECONDS)
        polls = await self._received(operation="runs.retrieve")
        found = [p for p in polls if p["thread_id"] in self._polled]
        assert all(poll["status"] is None for poll in found)
        return len({poll["thread_id"] for poll in found})

    async def change(self) -> dict[str, list[int]]:
        """Create, submit and cancel; return how many polls the upstream got before each of them.

        Answered are the runs that were started first, so that the worker has put them away for
        others; cancelled are some with a poll under way.
        """
        changes = {"create": self._create, "submit": self._submit, "cancel": self._cancel}
        polls = await asyncio.gather(
            *(self._polls_before(change) for change in changes.values() for _ in range(EACH))
        )
        return {kind: polls[n * EACH : (n + 1) * EACH] for n, kind in enumerate(changes)}

    async def _polls_before(self, change: Change) -> int:
        began = time.time()
        thread_id, operation = await change()

        async def accepted_at() -> float:
            await asyncio.sleep(LOOK_SECONDS)
            found = await self._received(thread_id=thread_id, operation=operation)
            return next((entry["at"] for entry in found if entry["accepted"]), 0.0)

        at = await eventually(accepted_at, bool, within=WITHIN)
        polls = await self._received(operation="runs.retrieve")
        return sum(began < p["at"] < at and p["thread_id"] in self._polled for p in polls)

    async def _received(self, **wanted: str) -> list[dict[str, Any]]:
        report = await asyncio.to_thread(lambda: self._plant.simulator.requests(**wanted))
        return list(report["data"])

    async def _create(self) -> tuple[str, str]:
        lab = self._plant.another_lab()
        await lab.scenario(rounds=[ENDLESS])
        await lab.start(timing=Timing())
        return lab.thread_id, "runs.create"

    async def _submit(self) -> tuple[str, str]:
        run_id = self._waiting.pop(0)
        thread_id, call_id = self._calls[run_id]
        assert ["accepted"] == await self._run(run_id).submit((call_id, "ok"))
        return thread_id, "runs.submit_tool_outputs"

    async def _cancel(self) -> tuple[str, str]:
        run_id, thread_id = self._legs.pop()
        await self._run(run_id).cancel()
        return thread_id, "runs.cancel"

    def _run(self, run_id: str) -> LabRun:
        return LabRun(self._plant.client.get_workflow_handle_for(RunWorkflow.run, run_id))


def request(assistant_id: str, thread: str) -> RunRequest:
    """Ask for a run on a thread of the assistant's own."""
    return RunRequest(
        thread_id=f"{assistant_id}_{thread}",
        params={"assistant_id": assistant_id},
        options=RunOptions(poll_interval_ms=int(INTERVAL * 1000)),
        created_at=time.time(),
    )


async def slots_used(worker: WorkerProcess, task_queue: str) -> float:
    """Return how many activities the worker has under way for a task queue."""
    await asyncio.sleep(LOOK_SECONDS)
    samples = await scrape(worker)
    labels = ('worker_type="ActivityWorker"', f'task_queue="{task_queue}"')
    return total(samples, "temporal_worker_task_slots_used", *labels)


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_nothing_waits_behind_polls(
    own_plant: Plant, record_property: Callable[[str, object], None]
) -> None:
    """Create, submit and cancel reach the upstream before any of 500 polls is through.

    First while the upstream lets all of them hang, each with its request under way; then while
    limits let them queue for their turn. More runs live than the worker keeps in memory, and
    those that it has put away take their answer all the same.
    """
    plant, simulator, load = own_plant, own_plant.simulator, Load(own_plant)
    poll_queue = poll_task_queue(plant.lab.task_queue)
    first = await plant.worker(**SERVED, RUNLANE_UPSTREAM_TIMEOUT="10m")
    async with Assistants(simulator.url) as upstream:
        await load.wait(Starter(plant.client, upstream, plant.lab.task_queue))
        await load.poll(Starter(plant.client, upstream, plant.lab.task_queue))

    await eventually(load.hanging, lambda count: count == POLLS, within=WITHIN)
    await load.change()
    kept = total(await scrape(first), "temporal_sticky_cache_size")
    mb = round(psutil.Process(first.pid).memory_info().rss / 1e6)
    first.terminate()
    await first.wait(seconds=120)
    simulator.clear_faults()

    second = await plant.worker(
        **SERVED, RUNLANE_UPSTREAM_MAX_CONCURRENCY="4", RUNLANE_UPSTREAM_RPS="1"
    )
    polling = POLLS - EACH
    await eventually(
        partial(slots_used, second, poll_queue), lambda count: count >= polling, within=WITHIN
    )
    # Each waits out its interval, and then for its turn, which comes once in eight minutes.
    await asyncio.sleep(INTERVAL)
    before = await load.change()

    record_property("load", {"polls_before": before, "kept": kept, "mb": mb})
    assert MAX_CACHED_WORKFLOWS / 2 < kept <= MAX_CACHED_WORKFLOWS < POLLS + WAITING
    assert max(max(polls) for polls in before.values()) < POLLS / 2, before
