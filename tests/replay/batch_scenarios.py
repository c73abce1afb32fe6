"""Batches, and what comes of them, whose histories are recorded for the replay test.

Each serves its own lab, as the scenarios with tools do.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from activities.scheduled_batch_contract import AskedBatch
from ledger.batch_item import ItemState
from ledger.files import STANDING
from runlane.batches.wanted import Wanted
from runlane.orchestrator import Runlane
from runlane.settings import Settings
from tests.api import serving
from tests.batches import Batch, new_threads
from tests.lab import Lab, LabRun, eventually
from tests.restless import SUGGESTED_AT
from workflows.batch import BatchWorkflow
from workflows.run import RunWorkflow
from workflows.scheduled import ScheduledWorkflow
from workflows.scheduled_batch import ScheduledBatchWorkflow
from workflows.scheduled_contract import ID_PREFIX, ScheduledBatchInput, ScheduledInput

_QUICK: dict[str, Any] = {"queued": 0.05, "in_progress": 0.1, "says": "On its way."}
_LONG: dict[str, Any] = {"queued": 0.05, "in_progress": 600}
_ASKS: dict[str, Any] = {**_QUICK, "calls": [{"name": "lookup_order"}]}


def _workflow(lab: Lab, id: str, first: str | None = None) -> LabRun:
    return LabRun(
        lab.client.get_workflow_handle_for(RunWorkflow.run, id, first_execution_run_id=first)
    )


def _of(batch: Batch) -> LabRun:
    return _workflow(batch.lab, batch.id, batch.handle.first_execution_run_id)


async def batch_of_plain_items(lab: Lab) -> LabRun:
    """Look, lanes, look, end."""
    await lab.scenario(rounds=[_QUICK])
    batch = Batch(lab)
    async with lab.worker():
        await batch.run(new_threads(6), window=2)
    return _of(batch)


async def batch_paused_and_resumed(lab: Lab) -> LabRun:
    """By a person, while lanes are at work; it stands for some looks, and goes on."""
    await lab.scenario(rounds=[_QUICK])
    batch = Batch(lab)
    async with lab.worker():
        await batch.upload(new_threads(12))
        await batch.start(window=2)
        await batch.until(lambda counts: counts.by_state[ItemState.COMPLETED] >= 2)
        await batch.pause("lunch", by="ann")
        await batch.until_paused()
        await batch.until(lambda counts: counts.in_flight == 0)
        await asyncio.sleep(1.0)
        await batch.resume()
        await batch.ended()
    return _of(batch)


async def batch_cancelled(lab: Lab) -> LabRun:
    """With items that run upstream, and others that wait."""
    await lab.scenario(rounds=[_LONG])
    batch = Batch(lab)
    async with lab.worker():
        await batch.upload(new_threads(6))
        await batch.start(lanes=1, window=2)
        await batch.until_upstream(2)
        await batch.cancel()
        await batch.ended()
    return _of(batch)


@asynccontextmanager
async def _with_a_promoted_item(lab: Lab) -> AsyncIterator[tuple[Batch, str]]:
    """Serve a batch whose one item has become a run, and answer that in the end."""
    await lab.scenario(rounds=[_ASKS, _QUICK])
    batch = Batch(lab)
    runs = Runlane(lab.client, Settings(task_queue=lab.task_queue)).runs
    async with lab.worker():
        await batch.upload(new_threads(1))
        await batch.start()
        await batch.until(lambda counts: counts.promoted == 1)
        [item] = await lab.ledger.batch_items.promoted(batch.id)
        run = await runs.retrieve(item.run_id or "")
        outputs = [{"tool_call_id": call.id, "output": "shipped"} for call in run.tool_calls]
        await runs.submit_tool_outputs(run.id, tool_outputs=outputs)
        await batch.ended()
        yield batch, run.id


async def batch_with_a_promoted_item(lab: Lab) -> LabRun:
    """The batch, which waits for its run."""
    async with _with_a_promoted_item(lab) as (batch, _):
        return _of(batch)


async def promoted_run(lab: Lab) -> LabRun:
    """The run, which begins with its upstream run and writes its line's result."""
    async with _with_a_promoted_item(lab) as (_, run_id):
        await _workflow(lab, run_id).result()
        return _workflow(lab, run_id)


async def batch_over_http(lab: Lab) -> LabRun:
    """Its items are read from an uploaded file first."""
    await lab.scenario(rounds=[_QUICK])
    body = {"assistant_id": lab.assistant_id}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/threads/runs", "body": body}
    async with lab.worker(), serving(lab) as api:
        sdk = api.sdk()
        content = json.dumps(line).encode() + b"\n"
        file = await sdk.files.create(file=("in.jsonl", content), purpose="batch")
        made = await sdk.batches.create(
            input_file_id=file.id,
            endpoint="/v1/threads/runs",  # type: ignore[arg-type] # as Runlane has it
            completion_window="24h",
        )

        async def status() -> str:
            return (await sdk.batches.retrieve(made.id)).status

        await eventually(status, lambda now: now == "completed")
        workflow = _workflow(lab, made.id)
        await lab.client.get_workflow_handle(made.id).result()
        return workflow


async def streamed_run(lab: Lab) -> LabRun:
    """Begun, and answered, by streams of the API; what its caller was asked for is kept."""
    await lab.scenario(rounds=[_ASKS, _QUICK])
    async with lab.worker(), serving(lab) as api:
        http = api.http()
        path = f"/threads/{lab.thread_id}/runs"
        created = {"assistant_id": lab.assistant_id, "stream": True}
        asked = (await http.post(path, json=created)).text
        [*_, last] = [line for line in asked.splitlines() if '"thread.run"' in line]
        run = json.loads(last.removeprefix("data: "))
        calls = run["required_action"]["submit_tool_outputs"]["tool_calls"]
        outputs = [{"tool_call_id": call["id"], "output": "shipped"} for call in calls]
        answer = {"tool_outputs": outputs, "stream": True}
        await http.post(f"{path}/{run['id']}/submit_tool_outputs", json=answer)
        started = _workflow(lab, run["id"])
        await started.result()
        return started


async def scheduled_start(lab: Lab) -> LabRun:
    """One start of a schedule, and the run that is its child."""
    await lab.scenario(rounds=[_QUICK])
    its_id = f"{ID_PREFIX}nightly-2026-12-01T06:00:00Z"
    given = ScheduledInput(schedule="nightly", params={"assistant_id": lab.assistant_id})
    async with lab.worker():
        handle = await lab.client.start_workflow(
            ScheduledWorkflow.run, given, id=its_id, task_queue=lab.task_queue
        )
        await handle.result()
    return _workflow(lab, its_id, handle.first_execution_run_id)


async def scheduled_batch(lab: Lab) -> LabRun:
    """One start of a schedule, and the batch that is its child."""
    await lab.scenario(rounds=[_QUICK])
    its_id = f"{ID_PREFIX}nightly-2026-12-01T06:00:00Z"
    body = {"assistant_id": lab.assistant_id}
    lines = b"".join(
        json.dumps(
            {"custom_id": f"t{n}", "method": "POST", "url": "/v1/threads/runs", "body": body}
        ).encode()
        + b"\n"
        for n in range(3)
    )
    async with lab.worker():
        writing = await lab.ledger.files.begin(f"file-{lab.thread_id}", "", datetime.now(UTC))
        await writing.write(lines)
        file = await writing.finish(filename="in.jsonl", purpose=STANDING)
        asked = AskedBatch(
            file_id=file.id,
            filename=file.filename,
            digest=file.digest,
            total=3,
            options=Wanted(name="nightly").stored_options(),
        )
        handle = await lab.client.start_workflow(
            ScheduledBatchWorkflow.run,
            ScheduledBatchInput(schedule="nightly", batch=asked),
            id=its_id,
            task_queue=lab.task_queue,
        )
        await handle.result()
    return _workflow(lab, its_id, handle.first_execution_run_id)


async def batch_over_continue_as_new(lab: Lab) -> LabRun:
    """Words without end make its history long while lanes are at work; then it is paused."""
    await lab.scenario(rounds=[_QUICK])
    batch = Batch(lab)
    async with lab.worker():
        await batch.upload(new_threads(60))
        await batch.start(window=2)
        await batch.until(lambda counts: counts.by_state[ItemState.COMPLETED] >= 2)
        for _ in range(2 * SUGGESTED_AT):
            await batch.handle.signal(BatchWorkflow.look)
            await asyncio.sleep(0.05)
        await batch.pause("lunch", by="ann")
        await batch.until_paused()
        await batch.resume()
        await batch.ended()
    return _of(batch)


SCENARIOS = (
    batch_of_plain_items,
    batch_paused_and_resumed,
    batch_cancelled,
    batch_with_a_promoted_item,
    promoted_run,
    batch_over_http,
    streamed_run,
    scheduled_start,
    scheduled_batch,
)
IN_SHORT_HISTORIES = (batch_over_continue_as_new,)
