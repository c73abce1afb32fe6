"""The store of big payloads fails: at the caller's, at the worker's, for a while, or is slow."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.converter import (
    ExternalStorage,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
)

from runlane import Runlane
from runlane.embedded import EmbeddedTemporal
from runlane.payload_store import PAYLOAD_SIZE_THRESHOLD, FilePayloadStore, PayloadStoreError
from runlane.settings import Settings
from runlane.temporal import connect, payload_directory
from tests.histories import chain
from tests.lab import Lab, LabRun, eventually
from tests.outsider import Outsider
from tests.simulator_process import SimulatorProcess
from tests.temporal_server import encrypting
from workflows.contract import RunView
from workflows.run import RunWorkflow

LARGE = "x" * 100_000
BACK = 90.0
"""Seconds within which a run has gone on: a failing task is tried again after ten, then later."""
DONE = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}

pytestmark = pytest.mark.slow


def asking(name: str, arguments: str = "{}") -> dict[str, object]:
    """Return a round that asks for one call."""
    return {
        "queued": 0.02,
        "in_progress": 0.02,
        "calls": [{"name": name, "arguments": arguments}],
    }


class Store:
    """A data directory of the test's own, whose payloads can be taken away and brought back."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._payloads = payload_directory(data_dir)
        self._aside = data_dir / "aside"

    def fail(self) -> None:
        """Put a file where the directory was, which stops whoever may write anywhere too."""
        if self._payloads.exists():
            self._payloads.rename(self._aside)
        self._payloads.write_text("not a directory")

    def recover(self) -> None:
        """Bring everything back."""
        self._payloads.unlink()
        if self._aside.exists():
            self._aside.rename(self._payloads)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that can fail."""
    return Store(tmp_path)


@pytest_asyncio.fixture
async def lab(
    temporal_server: EmbeddedTemporal, simulator: SimulatorProcess, store: Store
) -> AsyncIterator[Lab]:
    """A lab whose client and worker keep their payloads there."""
    client = await connect(
        encrypting(store.data_dir), environ={"TEMPORAL_ADDRESS": temporal_server.address}
    )
    laboratory = Lab(client, simulator)
    async with laboratory.worker(workers=1):
        yield laboratory


@pytest.fixture
def runlane(lab: Lab) -> Runlane:
    """The product's client, on this lab's queue."""
    return Runlane(lab.client, Settings(task_queue=lab.task_queue))


async def test_a_store_that_is_down_is_told_to_the_caller(
    lab: Lab, runlane: Runlane, store: Store
) -> None:
    """On create and on submit: which directory it is, and nothing was sent; later it goes through.

    What is small goes through meanwhile.
    """
    await lab.scenario(rounds=[asking("a"), DONE])
    store.fail()
    with pytest.raises(PayloadStoreError, match=str(payload_directory(store.data_dir))):
        await runlane.runs.create(
            lab.thread_id, assistant_id=lab.assistant_id, instructions=LARGE, idempotency_key="k"
        )
    assert await lab.received("runs.create") == 0
    run = await lab.start()
    view = await run.until_status("requires_action")
    call = view.runlane.pending[0].tool_call_id
    outputs = [{"tool_call_id": call, "output": LARGE}]

    with pytest.raises(PayloadStoreError, match="can't be stored"):
        await runlane.runs.submit_tool_outputs(run.id, tool_outputs=outputs)
    assert [each.tool_call_id for each in (await run.view()).runlane.pending] == [call]
    store.recover()
    await runlane.runs.submit_tool_outputs(run.id, tool_outputs=outputs)

    assert (await run.result()).run.status == "completed"
    assert await lab.accepted("runs.submit_tool_outputs") == 1


async def test_a_store_that_fails_in_the_middle_is_waited_for(
    lab: Lab, store: Store, outsider: Outsider
) -> None:
    """The worker can neither store what it saw nor read what it needs: the run stands still, and
    goes on where it was once the store is back. Nothing is created or submitted twice.
    """
    await lab.scenario(rounds=[asking("a", f'"{LARGE}"'), asking("b", f'"{LARGE}"'), DONE])
    run = await lab.start(params={"instructions": LARGE})
    view = await run.until_status("requires_action")
    assert await run.submit((view.runlane.pending[0].tool_call_id, "1")) == ["accepted"]
    store.fail()
    await eventually(lambda: is_retried(run), bool, within=timedelta(seconds=BACK))
    store.recover()

    view = await run.until(
        lambda view: any(call.name == "b" for call in view.runlane.pending), seconds=BACK
    )
    await run.submit((view.runlane.pending[0].tool_call_id, "2"))
    result = await run.result(seconds=BACK)

    assert result.run.status == "completed"
    assert [answer.outcome for answer in result.runlane.answers] == ["submitted"] * 2
    assert await lab.accepted("runs.create") == 1
    assert await lab.accepted("runs.submit_tool_outputs") == 2


async def is_retried(run: LabRun) -> bool:
    """Tell whether a task of the run has failed, and is tried again."""
    raw = (await run.handle.describe()).raw_description
    return raw.pending_workflow_task.attempt > 1 or any(
        activity.attempt > 1 for activity in raw.pending_activities
    )


class Slow(FilePayloadStore):
    """A store behind a slow network."""

    async def store(
        self, context: StorageDriverStoreContext, payloads: Sequence[Payload]
    ) -> list[StorageDriverClaim]:
        """Store after a while."""
        await asyncio.sleep(0.4)
        return await super().store(context, payloads)

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """Retrieve after a while."""
        await asyncio.sleep(0.4)
        return await super().retrieve(context, claims)


async def test_a_slow_store_only_takes_time(
    temporal_server: EmbeddedTemporal, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    """A worker that waits for its payloads neither fails a task nor does anything twice."""
    settings = encrypting(tmp_path)
    plain = await connect(settings, environ={"TEMPORAL_ADDRESS": temporal_server.address})
    slow = ExternalStorage(
        drivers=[Slow(payload_directory(tmp_path))],
        payload_size_threshold=PAYLOAD_SIZE_THRESHOLD,
    )
    arguments = plain.config()
    arguments["data_converter"] = dataclasses.replace(plain.data_converter, external_storage=slow)
    lab = Lab(Client(**arguments), simulator)
    await lab.scenario(rounds=[asking("a"), DONE])
    async with lab.worker(workers=1):
        run = await lab.start(params={"instructions": LARGE})
        view = await run.until_status("requires_action", seconds=BACK)
        await run.submit((view.runlane.pending[0].tool_call_id, LARGE))
        result = await run.result(seconds=BACK)

    assert result.run.status == "completed"
    assert await lab.received("runs.create") == 1
    assert await lab.received("runs.submit_tool_outputs") == 1
    assert not {"WORKFLOW_TASK_FAILED", "ACTIVITY_TASK_FAILED"} & set(await run.events())


ROUNDS = 20
SUGGESTED_AT = 180
"""Events after which the server suggests to continue as new: twice and more in those rounds."""


async def in_round(run: LabRun, number: int) -> RunView:
    """Wait until the run asks for that round's answer."""
    return await run.until(lambda view: view.runlane.rounds == number, seconds=BACK)


async def test_twenty_rounds_of_400_kilobytes_through_continue_as_news(
    simulator: SimulatorProcess, tmp_path: Path
) -> None:
    """8 MB of answers go upstream whole and once, and no history holds any of them."""
    config = {"limit.historyCount.suggestContinueAsNew": SUGGESTED_AT}
    async with EmbeddedTemporal(tmp_path, extra_dynamic_config=config) as server:
        client = await connect(encrypting(tmp_path), environ={"TEMPORAL_ADDRESS": server.address})
        lab = Lab(client, simulator)
        outsider = Outsider(lab)
        await lab.scenario(rounds=[*(asking(f"tool_{n}") for n in range(ROUNDS)), DONE])
        runlane = Runlane(client, Settings(task_queue=lab.task_queue))
        async with lab.worker(workers=1):
            created = await runlane.runs.create(lab.thread_id, assistant_id=lab.assistant_id)
            run = LabRun(client.get_workflow_handle_for(RunWorkflow.run, created.id))
            first = (await run.handle.describe()).run_id
            for number in count(1):
                view = await in_round(run, number)
                output = f"{number:02}" * 200_000
                call = view.runlane.pending[0].tool_call_id
                await runlane.runs.submit_tool_outputs(
                    run.id, tool_outputs=[{"tool_call_id": call, "output": output}]
                )
                if number == ROUNDS:
                    break
            result = await run.result(seconds=BACK)
        histories = await chain(client, run, first)
        sent = [
            body["tool_outputs"][0]["output"]
            for body in outsider.bodies("runs.submit_tool_outputs")
        ]
        outsider.close()

    assert result.run.status == "completed"
    assert sent == [f"{number:02}" * 200_000 for number in range(1, ROUNDS + 1)]
    assert len(histories) > 2
    assert max(sum(event.ByteSize() for event in events) for events in histories) < 1_000_000
