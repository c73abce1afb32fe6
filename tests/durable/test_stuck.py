"""Runs whose workflow tasks fail: found with their cause and its remedy, and lost by none."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from runlane import Runlane, stuck
from runlane.doctor.runs import check_runs
from runlane.settings import Settings
from runlane.stuck import Stuck
from runlane.temporal import payload_directory
from tests.lab import Lab, eventually
from tests.simulator_process import SimulatorProcess
from workflows.contract import WORKFLOW

DONE = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}
WITHIN = timedelta(seconds=60)


@workflow.defn(name=WORKFLOW)
class Earlier:
    """A `Run` of an earlier version."""

    @workflow.run
    async def run(self) -> None:
        await asyncio.sleep(3600)


@workflow.defn(name=WORKFLOW)
class Later:
    """The same of a later one, which began otherwise."""

    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity("none", start_to_close_timeout=timedelta(seconds=5))


@workflow.defn(name=WORKFLOW)
class Buggy:
    """One with a bug."""

    @workflow.run
    async def run(self) -> None:
        raise ValueError("a bug")


async def found(client: Client, run_id: str) -> Stuck:
    """Wait until a run is found to be stuck."""

    async def look() -> list[Stuck]:
        return [each for each in await stuck.find(client) if each.run_id == run_id]

    (only,) = await eventually(look, bool, within=WITHIN)
    return only


def plain(client: Client, task_queue: str, workflow: type) -> Worker:
    """Return a worker of another version."""
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[workflow],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_cached_workflows=0,
    )


@pytest.mark.slow
async def test_a_payload_cleaned_too_early_is_named_and_put_back(
    client: Client, simulator: SimulatorProcess, data_dir: Path
) -> None:
    """Run, file and remedy are told; with the file back the run goes on, and nothing was lost."""
    lab = Lab(client, simulator)
    await lab.scenario(rounds=[DONE])
    run = await lab.start(params={"instructions": "x" * 100_000})
    (file,) = payload_directory(data_dir).glob(f"*/{run.id}/*")
    hidden = file.rename(data_dir / f"{run.id}.hidden")
    async with lab.worker():
        each = await found(client, run.id)
        said = [finding async for finding in check_runs(client) if run.id in finding.message]
        hidden.rename(file)
        result = await run.result(seconds=60)

    assert str(file) in each.message
    assert "Put the file back" in each.remedy
    assert [(finding.level, finding.remedy) for finding in said] == [("problem", each.remedy)]
    assert result.run.status == "completed"
    assert await lab.accepted("runs.create") == 1
    assert not [s for s in await stuck.find(client) if s.run_id == run.id]


async def test_a_worker_of_another_version_is_told(client: Client, lab: Lab) -> None:
    """Its history can't be replayed: deploy the version that can."""
    queue = f"{lab.task_queue}-plain"
    handle = await client.start_workflow(WORKFLOW, id=f"run_{lab.thread_id}", task_queue=queue)
    async with plain(client, queue, Earlier):
        await eventually(lambda: tasks_done(client, handle.id), bool)
    async with plain(client, queue, Later):
        await handle.signal("anything")
        each = await found(client, handle.id)
    await handle.terminate()

    assert each.cause == "non_deterministic_error"
    assert "earlier version" in each.remedy


async def test_a_bug_is_told(client: Client, lab: Lab) -> None:
    """With what the worker said, and how to give the run up."""
    queue = f"{lab.task_queue}-plain"
    handle = await client.start_workflow(WORKFLOW, id=f"run_{lab.thread_id}", task_queue=queue)
    async with plain(client, queue, Buggy):
        each = await found(client, handle.id)
    await handle.terminate()

    assert each.message == "a bug"
    assert f"temporal workflow terminate -w {handle.id}" in each.remedy


async def test_a_run_that_goes_on_is_not_stuck(lab: Lab) -> None:
    """Nor is one that waits, or for which there is no worker."""
    runlane = Runlane(lab.client, Settings(task_queue=f"{lab.task_queue}-nobody"))
    lonely = await runlane.runs.create(lab.thread_id, assistant_id=lab.assistant_id)
    await lab.scenario(rounds=[{"queued": 0.0, "ends": "never"}])
    run = await lab.start()
    await run.until(lambda view: view.runlane.upstream_run_id is not None)

    ids = {each.run_id for each in await stuck.find(lab.client)}

    assert not ids & {lonely.id, run.id}
    await lab.client.get_workflow_handle(lonely.id).terminate()


async def tasks_done(client: Client, run_id: str) -> bool:
    """Tell whether a worker has done a task of the run."""
    history = await client.get_workflow_handle(run_id).fetch_history()
    return any(e.HasField("workflow_task_completed_event_attributes") for e in history.events)
