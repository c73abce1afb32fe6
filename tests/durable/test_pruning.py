"""Payload files outlive their runs' retention until they are pruned, and nothing else goes."""

import os
import secrets
import time
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.service import RPCError

from runlane import Runlane, pruning
from runlane.pruning import Forgotten
from runlane.settings import Settings
from runlane.temporal import payload_directory
from tests.lab import Lab, eventually
from tests.simulator_process import SimulatorProcess

LARGE = "x" * 100_000
TWO_DAYS = 2 * 86_400.0


@pytest.fixture
def runlane(client: Client) -> Runlane:
    """The product's client, on a queue that nobody serves."""
    return Runlane(client, Settings(task_queue=f"nobody-{secrets.token_hex(4)}"))


@pytest.fixture
def key() -> str:
    """An idempotency key: its run has the same id whenever it is made."""
    return secrets.token_hex(8)


async def start(runlane: Runlane, key: str) -> str:
    """Start a run with a payload that lies in a file; return its id."""
    run = await runlane.runs.create(
        "thread_1", assistant_id="asst_1", instructions=LARGE, idempotency_key=key
    )
    return run.id


def files_of(data_dir: Path, run_id: str) -> list[Path]:
    """Return a run's payload files."""
    return list(payload_directory(data_dir).glob(f"*/{run_id}/*"))


def make_old(files: list[Path]) -> None:
    """Have files last needed two days ago."""
    for file in files:
        os.utime(file, (time.time() - TWO_DAYS, time.time() - TWO_DAYS))


async def forget(client: Client, run_id: str) -> None:
    """Have Temporal forget a run, as after its retention."""
    await client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=run_id),
        )
    )

    async def is_gone() -> bool:
        try:
            await client.get_workflow_handle(run_id).describe()
        except RPCError:
            return True
        return False

    await eventually(is_gone, bool, within=timedelta(seconds=60))


async def left_by(client: Client, data_dir: Path, run_id: str) -> list[Forgotten]:
    """Return what pruning would delete of a run's."""
    root = payload_directory(data_dir)
    return [left async for left in pruning.forgotten(client, root) if left.run_id == run_id]


async def test_what_a_forgotten_run_left_is_deleted(
    client: Client, data_dir: Path, runlane: Runlane, key: str
) -> None:
    """Old files of a run that Temporal doesn't know go, with their directory; twice is as good."""
    run_id = await start(runlane, key)
    (file,) = files_of(data_dir, run_id)
    await forget(client, run_id)
    assert await left_by(client, data_dir, run_id) == []

    make_old([file])
    (left,) = await left_by(client, data_dir, run_id)

    assert (left.files, left.bytes) == (1, file.stat().st_size)
    assert await pruning.delete(client, left) == (1, left.bytes)
    assert not file.parent.exists()
    assert await left_by(client, data_dir, run_id) == []


@pytest.mark.parametrize("state", ["waits", "terminated"])
async def test_what_an_execution_refers_to_stays(
    client: Client, data_dir: Path, runlane: Runlane, key: str, state: str
) -> None:
    """However old: as long as Temporal knows the workflow, its history can be asked for."""
    run_id = await start(runlane, key)
    files = files_of(data_dir, run_id)
    make_old(files)
    if state == "terminated":
        await client.get_workflow_handle(run_id).terminate()

    assert await left_by(client, data_dir, run_id) == []
    left = Forgotten(run_id, files[0].parent, 1, 1)
    assert await pruning.delete(client, left) == (0, 0)

    assert files[0].exists()
    if state == "waits":
        await client.get_workflow_handle(run_id).terminate()


async def test_what_a_link_leads_to_is_not_deleted(
    client: Client, tmp_path: Path, key: str
) -> None:
    """Whoever may write to the store must not have us delete what lies elsewhere."""
    elsewhere = tmp_path / "letters"
    elsewhere.mkdir()
    file = elsewhere / "letter"
    file.touch()
    make_old([file])
    shelf = payload_directory(tmp_path) / client.namespace
    shelf.mkdir(parents=True)
    (shelf / f"run_{key}").symlink_to(elsewhere)

    assert await left_by(client, tmp_path, f"run_{key}") == []


async def test_a_run_that_is_being_started_again_keeps_its_payload(
    client: Client, simulator: SimulatorProcess, data_dir: Path, key: str
) -> None:
    """The same request with the same key, after the retention, stores nothing new: what is there
    is needed from then on, though the prune has chosen it already.
    """
    lab = Lab(client, simulator)
    await lab.scenario(rounds=[{"queued": 0.05, "in_progress": 0.05, "says": "Done."}])
    runlane = Runlane(client, Settings(task_queue=lab.task_queue))

    async def create() -> str:
        run = await runlane.runs.create(
            lab.thread_id, assistant_id=lab.assistant_id, instructions=LARGE, idempotency_key=key
        )
        return run.id

    run_id = await create()
    (file,) = files_of(data_dir, run_id)
    await forget(client, run_id)
    make_old([file])
    (left,) = await left_by(client, data_dir, run_id)

    # The moment in which its payloads are stored, and the workflow isn't started yet.
    os.utime(file)
    assert await pruning.delete(client, left) == (0, 0)
    assert file.exists()

    assert await create() == run_id
    async with lab.worker():
        result = await runlane.runs.poll(run_id, timeout=60)
    assert result.status == "completed"
