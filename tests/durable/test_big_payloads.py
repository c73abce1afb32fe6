import asyncio
import uuid
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    import pytest

    from runlane.embedded import EmbeddedTemporal
    from runlane.payload_store import PayloadStoreError
    from runlane.settings import Settings
    from runlane.temporal import connect, failure_message, payload_directory

SIX_MEGABYTES = 6 * 1024 * 1024


@activity.defn(name="test.double")
async def double(text: str) -> str:
    return text + text


@workflow.defn(name="Carrier")
class CarrierWorkflow:
    """Takes a big text through every kind of message Temporal has."""

    def __init__(self) -> None:
        self._signalled: str | None = None
        self._updated: str | None = None

    @workflow.run
    async def run(self, text: str, generation: int = 0) -> str:
        if generation == 0:
            workflow.continue_as_new(args=[text, 1])
        doubled = await workflow.execute_activity(
            double, text[: len(text) // 2], start_to_close_timeout=timedelta(seconds=30)
        )
        await workflow.wait_condition(lambda: None not in {self._signalled, self._updated})
        assert doubled == text == self._signalled == self._updated
        return text

    @workflow.signal
    def signalled(self, text: str) -> None:
        self._signalled = text

    @workflow.update
    def updated(self, text: str) -> str:
        self._updated = text
        return text

    @workflow.query
    def view(self) -> str | None:
        return self._updated


@pytest.fixture
def task_queue() -> str:
    return f"big-{uuid.uuid4()}"


async def _start(
    client: Client, task_queue: str, text: str
) -> WorkflowHandle[CarrierWorkflow, str]:
    return await client.start_workflow(
        CarrierWorkflow.run, args=[text], id=str(uuid.uuid4()), task_queue=task_queue
    )


async def _until_continued(handle: WorkflowHandle[CarrierWorkflow, str]) -> None:
    async with asyncio.timeout(30):
        while (await handle.describe()).run_id == handle.first_execution_run_id:
            await asyncio.sleep(0.05)


async def test_a_six_megabyte_payload_passes_everywhere(
    client: Client, data_dir: Path, task_queue: str
) -> None:
    """Input, continue-as-new, activity, signal, update, query and result carry 6 MB; history none.

    The cache is off, so each workflow task reads all of it back from the files.
    """
    text = uuid.uuid4().hex * (SIX_MEGABYTES // 32)
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[CarrierWorkflow],
        activities=[double],
        max_cached_workflows=0,
    ):
        handle = await _start(client, task_queue, text)
        await _until_continued(handle)
        await handle.signal(CarrierWorkflow.signalled, text)
        assert text == await handle.execute_update(CarrierWorkflow.updated, text)
        assert text == await handle.query(CarrierWorkflow.view)
        assert text == await handle.result()

    history = await client.get_workflow_handle(handle.id).fetch_history()
    assert sum(event.ByteSize() for event in history.events) < 20_000
    files = list(payload_directory(data_dir).glob(f"*/{handle.id}/*"))
    # The same text is one file for all of its messages; the activity's input is the other.
    assert 2 == len(files)
    assert SIX_MEGABYTES * 3 // 2 < sum(file.stat().st_size for file in files)


async def test_a_run_waits_for_a_missing_file(
    client: Client, data_dir: Path, task_queue: str
) -> None:
    """A payload that can't be read fails the task, not the run: put back, the run goes on."""
    handle = await _start(client, task_queue, "z" * 100_000)
    [file] = payload_directory(data_dir).glob(f"*/{handle.id}/*")
    hidden = file.rename(file.with_name("hidden"))
    async with Worker(
        client, task_queue=task_queue, workflows=[CarrierWorkflow], activities=[double]
    ):
        async with asyncio.timeout(20):
            while True:
                events = (await handle.fetch_history()).events
                failures = [e.workflow_task_failed_event_attributes for e in events]
                converter = (await handle.describe()).data_converter
                texts = [
                    await failure_message(converter, failed.failure)
                    for failed in failures
                    if failed.failure.message
                ]
                if texts:
                    break
                await asyncio.sleep(0.1)
        assert str(file) in texts[0]
        assert "RUNLANE_DATA_DIR" in texts[0]

        hidden.rename(file)
        await _until_continued(handle)
    await client.get_workflow_handle(handle.id).terminate()


async def test_a_client_without_the_store_says_what_to_set(
    client: Client, temporal_server: EmbeddedTemporal, tmp_path: Path, task_queue: str
) -> None:
    """Another data directory than the writer's is reported with the file and the remedy."""
    async with Worker(
        client, task_queue=task_queue, workflows=[CarrierWorkflow], activities=[double]
    ):
        text = "w" * 100_000
        handle = await _start(client, task_queue, text)
        await _until_continued(handle)
        await handle.signal(CarrierWorkflow.signalled, text)
        await handle.execute_update(CarrierWorkflow.updated, text)
        assert text == await handle.result()

    stranger = await connect(
        Settings(data_dir=tmp_path), environ={"TEMPORAL_ADDRESS": temporal_server.address}
    )
    with pytest.raises(PayloadStoreError, match=rf"{tmp_path}.*is missing.*RUNLANE_DATA_DIR"):
        await stranger.get_workflow_handle(handle.id).result()
