"""A key that is rotated: what it stopped goes on by itself, and nothing is done twice."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes

from runlane import blocked, search_attributes
from runlane.embedded import EmbeddedTemporal
from runsapi import Run
from tests.lab import Lab, eventually
from tests.processes import Plant
from tests.simulator_process import SimulatorProcess
from workflows.contract import (
    AttemptView,
    BlockedKind,
    BlockedView,
    RunRequest,
    UpstreamView,
)
from workflows.run import RunWorkflow
from workflows.state import RunInput, RunState

RUNS = 500
AT_ONCE = 20
BACK_WITHIN = 180.0
"""Seconds from the new key in the file until every run has come to its end: the worker looks every
few seconds, and tells fifty a second. The rest is the machine's, which has other tests to run."""
PATIENCE = timedelta(seconds=300)
HOURS = 14_400.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


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
    """The upstream takes another key and the file follows: no restart, nothing lost or doubled.

    All of them are hours from the next try of their own.
    """
    file = tmp_path / "key"
    file.write_text("old")
    plant = Plant(temporal_server.address, client, guarded, data_dir)
    plant._environ["RUNLANE_UPSTREAM_API_KEY_FILE"] = str(file)
    lab = plant.lab
    await lab.scenario(rounds=[{"queued": 0.0, "in_progress": 0.0, "says": "Done."}])
    async with httpx.AsyncClient(
        base_url=guarded.url, headers={"authorization": "Bearer old"}, trust_env=False, timeout=60
    ) as http:
        for first in range(0, RUNS, AT_ONCE):
            threads = [f"{lab.thread_id}_{number}" for number in range(first, first + AT_ONCE)]
            await asyncio.gather(*(begin(lab, http, thread) for thread in threads))
    guarded.demand("new")
    await eventually(lambda: count_blocked(lab), lambda count: count == RUNS, within=PATIENCE)
    try:
        await plant.worker()
        await eventually(lambda: refusals(guarded), lambda count: count > 0, within=PATIENCE)
        assert await count_blocked(lab) == RUNS

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
    stamps = [run["metadata"]["runlane_run_id"] for run in guarded.runs()]
    assert len(stamps) == len(set(stamps)) == RUNS


async def begin(lab: Lab, http: httpx.AsyncClient, thread_id: str) -> None:
    """Start a run in the state in which a continue-as-new hands on a blocked one."""
    run_id = f"run_{secrets.token_hex(8)}"
    stamps = {"runlane_run_id": run_id, "runlane_attempt": "1"}
    body = {"assistant_id": lab.assistant_id, "metadata": stamps}
    upstream_run = Run.model_validate(
        (await http.post(f"/threads/{thread_id}/runs", json=body)).raise_for_status().json()
    )
    now = time.time()
    state = RunState(
        deadline_at=now + 86_400,
        upstream=UpstreamView(name="upstream", url=lab.simulator.url),
        run=upstream_run,
        attempt=1,
        attempts=[AttemptView(attempt=1, upstream_run_id=upstream_run.id, status="queued")],
        leg_started_at=now,
        blocked=BlockedView(kind=BlockedKind.CREDENTIALS, message="401", since_at=now),
        blocked_until=now + HOURS,
    )
    request = RunRequest(
        thread_id=thread_id, params={"assistant_id": lab.assistant_id}, created_at=now
    )
    await lab.client.start_workflow(
        RunWorkflow.run,
        RunInput(request=request, state=state),
        id=run_id,
        task_queue=lab.task_queue,
        search_attributes=TypedSearchAttributes(
            [
                SearchAttributePair(search_attributes.STATUS, "queued"),
                SearchAttributePair(search_attributes.BLOCKED, "credentials"),
            ]
        ),
    )


async def count_blocked(lab: Lab) -> int:
    """Return how many of the runs are blocked."""
    return await blocked.count(lab.client, BlockedKind.CREDENTIALS, task_queue=lab.task_queue)


async def completed(lab: Lab) -> int:
    """Return how many of the runs have completed; asked oftener, Temporal would do nothing else."""
    await asyncio.sleep(0.5)
    query = f"TaskQueue = '{lab.task_queue}' AND RunlaneStatus = 'completed'"
    return (await lab.client.count_workflows(query)).count


async def refusals(simulator: SimulatorProcess) -> int:
    """Return how often a worker has asked whether its key is taken."""
    report = await asyncio.to_thread(lambda: simulator.requests(operation="runs.list"))
    return int(report["counts"].get("runs.list", 0))
