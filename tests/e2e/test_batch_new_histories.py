"""A batch goes on in fresh histories while the workers that drive it are killed."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from ledger.batch_item import ItemState
from runlane.embedded import EmbeddedTemporal
from runlane.ledger_access import open_ledger
from runlane.settings import Settings
from runlane.temporal import connect
from tests.batches import Batch, new_threads
from tests.histories import chain
from tests.lab import LabRun, eventually
from tests.processes import Plant
from tests.simulator_process import SimulatorProcess
from tests.temporal_server import encrypting
from workflows.batch import BatchWorkflow
from workflows.run import RunWorkflow

ITEMS = 100
SLOW = {"queued": 0.1, "in_progress": 2.0, "says": "On its way."}


@pytest_asyncio.fixture
async def restless(simulator: SimulatorProcess, tmp_path: Path) -> AsyncIterator[Plant]:
    """A plant whose workflows continue as new after a few events."""
    settings = encrypting(tmp_path)
    config = {"limit.historyCount.suggestContinueAsNew": 15}
    async with EmbeddedTemporal(tmp_path, extra_dynamic_config=config) as server:
        client = await connect(settings, environ={"TEMPORAL_ADDRESS": server.address})
        plant = Plant(server.address, client, simulator, tmp_path)
        try:
            yield plant
        finally:
            await plant.dispose()


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_workers_die_while_lanes_are_called_back(restless: Plant, tmp_path: Path) -> None:
    """Each time that the lanes are called back, a worker is killed that may hold them, and at last
    all of them at once: no line is lost, none is run twice, and the batch ends.
    """
    lab = restless.lab
    await lab.scenario(rounds=[SLOW])
    workers = [await restless.worker() for _ in range(2)]
    async with await open_ledger(Settings(data_dir=tmp_path)) as lab.ledger:
        batch = Batch(lab)
        await batch.upload(new_threads(ITEMS))
        await batch.start(lanes=4, window=4)
        await batch.until(lambda counts: counts.by_state[ItemState.COMPLETED] >= 4)
        run = LabRun(restless.client.get_workflow_handle_for(RunWorkflow.run, batch.id))

        async def called_back() -> bool:
            await batch.handle.signal(BatchWorkflow.look)
            events = await batch.events()
            return "ACTIVITY_TASK_CANCEL_REQUESTED" in events

        for so_many in (1, 2):
            await eventually(called_back, bool, within=timedelta(seconds=60))
            for worker in workers[:so_many]:
                await worker.kill()
            workers = workers[so_many:] + [await restless.worker() for _ in range(so_many)]
            executions = len(await chain(restless.client, run, batch.handle.first_execution_run_id))

            async def gone_over(before: int = executions) -> bool:
                first = batch.handle.first_execution_run_id
                return len(await chain(restless.client, run, first)) > before

            await eventually(gone_over, bool, within=timedelta(seconds=60))
        status = await batch.ended(seconds=120)
        results = await batch.results()
        upstream = await batch.upstream_runs()

    assert "completed" == status
    assert {ItemState.COMPLETED: ITEMS} == Counter(each.state for each in results)
    assert {f"item-{number}" for number in range(ITEMS)} == {each.custom_id for each in results}
    assert ITEMS == len(results) == len(upstream)
    assert {each.run_id for each in results} == {
        each["metadata"]["runlane_run_id"] for each in upstream
    }
