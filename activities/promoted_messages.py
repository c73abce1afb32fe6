"""What was said in an item's run that became a `Run` of its own, for its line."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from temporalio import activity

from activities import item_messages
from activities.batch_contract import BatchOptions, RecordInput
from activities.lane_failures import PauseBatch, Trouble, of_error
from activities.promotion import Ended
from ledger.batch_item import ItemOutcome, ItemState
from ledger.batch_record import BatchRecord
from runsapi import Assistants, RunsAPIError

AWAY_FOR = 3600.0
"""Seconds for which an upstream that answers nobody is waited for."""


class Said:
    """Reads the messages of promoted runs, within the activity that writes their results.

    Args:
        upstream: where runs are executed.
    """

    def __init__(self, upstream: Assistants) -> None:
        self._upstream = upstream

    async def added_to(
        self, outcome: ItemOutcome, batch: BatchRecord, ended: RecordInput | Ended
    ) -> ItemOutcome:
        """Return the outcome with its run's messages, where it completed and the batch asks so."""
        options = BatchOptions.model_validate(batch.options)
        if not options.with_messages or outcome.state is not ItemState.COMPLETED:
            return outcome
        return replace(outcome, messages=await self._read(ended))

    async def _read(self, ended: RecordInput | Ended) -> str:
        run = ended.run or {}
        here, there = self._upstream.url, ended.upstream_url
        if there is not None and there != here:
            text = f"They stand on {there}; this worker is set up for {here}."
            return item_messages.missing("other_upstream", text)
        if ended.upstream_run_id is None:
            return item_messages.missing("no_upstream_run", "Nobody knows its upstream run.")
        try:
            return await item_messages.patiently(
                partial(self._ask, str(run.get("thread_id") or "")),
                upstream_run_id=ended.upstream_run_id,
                run_id=str(run.get("id") or ""),
                nap=asyncio.sleep,
                is_away=_is_away,
            )
        except PauseBatch as error:
            # The run has ended, and is not to live on until somebody mends it.
            return item_messages.missing(error.kind, str(error))

    async def _ask(self, thread_id: str, query: item_messages.Query) -> Any:
        try:
            return await item_messages.page_of(self._upstream, thread_id, query)
        except RunsAPIError as error:
            raise of_error(error, creating=False) from None


def _is_away(trouble: Trouble, _: float) -> bool:
    since = activity.info().scheduled_time
    return trouble.is_outage and (datetime.now(UTC) - since).total_seconds() < AWAY_FOR
