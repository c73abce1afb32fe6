"""A batch of a test's own: put into a lab's ledger, started, and read from there."""

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle

from ledger.batch_item import Item, NewItem
from ledger.batch_record import BatchCounts, BatchRecord, batch_id
from tests.lab import Lab, eventually
from workflows.batch import BatchWorkflow
from workflows.batch_contract import (
    BatchInput,
    BatchResult,
    BatchTiming,
    CancelOrder,
    PauseOrder,
)

QUICK = BatchTiming(poll_floor=0.05, look_floor=0.2, retry_floor=0.1)
"""The product's timing, with the shortest waits shortened."""

Line = tuple[str | None, dict[str, Any]]
"""The thread, where the line names one, and the body."""


class Batch:
    """A batch in the lab's ledger, whose workers drive it once it is started."""

    def __init__(self, lab: Lab, name: str | None = None) -> None:
        self.lab = lab
        self.name = name or f"batch-{secrets.token_hex(4)}"
        self.id = batch_id("", self.name)
        self.handle: WorkflowHandle[BatchWorkflow, BatchResult]

    async def upload(
        self, lines: Sequence[Line], *, deadline: datetime | None = None, **options: Any
    ) -> None:
        """Write the batch and its lines; their custom ids are `item-0`, `item-1` and so on."""
        record = BatchRecord(
            id=self.id,
            name=self.name,
            input_digest=_digest(self.name),
            total=len(lines),
            options=options,
            deadline=deadline,
            created_at=datetime.now(UTC),
        )
        await self.lab.ledger.batches.create(record)
        items = [
            NewItem(
                index=index,
                custom_id=f"item-{index}",
                thread_id=thread_id,
                digest=_digest(f"{self.name}:{index}"),
                body=json.dumps({"assistant_id": self.lab.assistant_id, **body}),
            )
            for index, (thread_id, body) in enumerate(lines)
        ]
        await self.lab.ledger.batch_items.add(self.id, items)

    async def start(self, *, lanes: int = 2, window: int = 16, timing: BatchTiming = QUICK) -> None:
        """Start the workflow."""
        self.handle = await self.lab.client.start_workflow(
            BatchWorkflow.run,
            BatchInput(batch_id=self.id, lanes=lanes, window=window, timing=timing),
            id=self.id,
            task_queue=self.lab.task_queue,
        )

    async def run(
        self, lines: Sequence[Line], *, lanes: int = 2, window: int = 16, **options: Any
    ) -> str:
        """Upload, start, and wait for the end; return the batch's status."""
        await self.upload(lines, **options)
        await self.start(lanes=lanes, window=window)
        return await self.ended()

    async def ended(self, *, seconds: float = 60.0) -> str:
        """Wait for the end; return the batch's status."""
        try:
            return (await asyncio.wait_for(self.handle.result(), seconds)).status
        except TimeoutError:
            raise AssertionError(f"still {await self.counts()}") from None

    async def pause(self, reason: str, *, by: str) -> None:
        """Ask for a pause."""
        await self.handle.signal(BatchWorkflow.pause, PauseOrder(reason=reason, by=by))

    async def resume(self) -> None:
        """Ask to go on."""
        await self.handle.signal(BatchWorkflow.resume)

    async def cancel(self) -> None:
        """Ask for the end."""
        await self.handle.signal(BatchWorkflow.cancel, CancelOrder(by="ann"))

    async def until_upstream(self, count: int) -> None:
        """Wait until the upstream has so many runs of this lab's assistant."""
        await eventually(self.upstream_runs, lambda runs: len(runs) == count)

    async def counts(self) -> BatchCounts:
        """Return how many items stand where."""
        return await self.lab.ledger.batches.counts(self.id)

    async def record(self) -> BatchRecord:
        """Return the batch as the ledger has it."""
        found = await self.lab.ledger.batches.find(self.id)
        assert found is not None
        return found

    async def until(
        self, condition: Callable[[BatchCounts], bool], *, seconds: float = 40.0
    ) -> BatchCounts:
        """Wait until the counts fulfil the condition."""
        deadline = time.monotonic() + seconds
        while not condition(counts := await self.counts()):
            assert time.monotonic() < deadline, f"still {counts}"
            await asyncio.sleep(0.03)
        return counts

    async def until_paused(self) -> str:
        """Wait for a pause; return its reason."""
        found = await eventually(self.record, lambda record: record.paused_at is not None)
        return found.paused_reason or ""

    async def until_resumed(self) -> None:
        """Wait until a pause is over."""
        await eventually(self.record, lambda record: record.paused_at is None)

    async def results(self) -> list[Item]:
        """Return the items that have ended, in the order of their ends."""
        found: list[Item] = []
        while page := await self.lab.ledger.batch_items.results(
            self.id, after_seq=(found[-1].seq or 0) if found else 0, limit=1000
        ):
            found += page
        return found

    async def upstream_runs(self) -> list[dict[str, Any]]:
        """Return the upstream's runs of this lab's assistant, the oldest first."""
        runs = await asyncio.to_thread(self.lab.simulator.runs)
        return [run for run in runs if run["assistant_id"] == self.lab.assistant_id]

    async def events(self) -> list[str]:
        """Return the workflow's event types, as words."""
        history = await self.handle.fetch_history()
        return [
            EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in history.events
        ]


def new_threads(count: int, **body: Any) -> list[Line]:
    """Return lines that make a thread of their own each."""
    thread = {"messages": [{"role": "user", "content": "Where is my order?"}]}
    return [(None, {"thread": thread, **body}) for _ in range(count)]


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
