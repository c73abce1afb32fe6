"""What is known of an item while a lane drives it. Nothing here is sent or written."""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from activities.batch_outcomes import usage_of
from activities.contract import ATTEMPT_STAMP, CreateInput, derive_run_id, stamped
from ledger.batch_item import Item
from ledger.batch_record import BatchRecord
from ledger.run_record import Usage
from runsapi import Run


class Work:
    """An item under way."""

    def __init__(self, item: Item, run_id: str) -> None:
        self.item = item
        self.run_id = run_id
        self.thread_body: dict[str, Any] = {}
        self.params: Mapping[str, Any] = {}
        self.thread_id = item.thread_id or item.made_thread
        self.attempt = max(item.attempt, 1)
        self.may_exist = self.may_exist_before = item.intended_at is not None
        """Whether an upstream run of this attempt may have been created."""
        self.run: Run | None = None
        self.after_ms: int | None = None
        self.simulated = False
        self.past_usage: Usage | None = None
        """Of the upstream run before, until it is written."""
        self.began_at = (item.intended_at or datetime.now(UTC)).timestamp()

    def read(self) -> None:
        """Read the line's body: the thread to make, if any, and the run's own parameters."""
        body: dict[str, Any] = json.loads(self.item.body or "{}")
        body.pop("stream", None)
        thread = body.pop("thread", None) or {}
        resources = body.pop("tool_resources", None)
        if resources is not None:
            thread.setdefault("tool_resources", resources)
        self.thread_body, self.params = thread, body

    @property
    def age(self) -> float:
        """Seconds since the item's run was intended."""
        return max(time.time() - self.began_at, 0.0)

    def take(self, run: Run, after_ms: int | None) -> None:
        """Take the upstream run as it is now."""
        self.run, self.after_ms = run, after_ms
        stamp = (run.metadata or {}).get(ATTEMPT_STAMP, "")
        if stamp.isdecimal():
            self.attempt = int(stamp)

    def expire(self) -> None:
        """Make ready for another upstream run in the place of this one."""
        assert self.run is not None
        self.past_usage = usage_of(self.run)
        self.run, self.attempt, self.began_at = None, self.attempt + 1, time.time()

    def create_input(self, thread_id: str) -> CreateInput:
        """Return what the next create is told, and by what an earlier one is found."""
        params = dict(self.params)
        params["metadata"] = stamped(self.run_id, self.attempt, params.get("metadata") or {})
        if self.attempt > 1:
            # The first upstream run added them to the thread, where they still stand.
            params.pop("additional_messages", None)
        return CreateInput(
            run_id=self.run_id,
            attempt=self.attempt,
            thread_id=thread_id,
            params=params,
            age=self.age,
            # So that what is refused while looking tells what must be mended.
            find_only=True,
        )


def run_id(batch: BatchRecord, item: Item) -> str:
    """Return the id of an item's run; a retry of what has failed is another run."""
    key = item.custom_id if item.generation == 1 else f"{item.custom_id}\0{item.generation}"
    return derive_run_id(f"batch:{batch.id}", key)
