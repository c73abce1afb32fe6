"""The side effect of a schedule's start that begins a batch: the batch, written once."""

import json
from datetime import UTC, datetime
from decimal import Decimal

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import trail
from activities.heartbeat import heartbeating
from activities.intake import FILE
from activities.scheduled_batch_contract import BeginBatchInput, BegunBatch
from ledger import Ledger
from ledger.batch_notes import Note
from ledger.batch_record import BatchRecord, batch_id
from ledger.errors import BatchTaken

NAME_TAKEN = "BatchNameTaken"
"""Type of the error by which a start ends whose batch's name belongs to another input."""

_LANES, _WINDOW = "lanes", "window"


class ScheduledBatchActivities:
    """The activity of one worker that begins batches by the clock.

    Args:
        ledger: where the batches stand.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @activity.defn(name="schedule.batch")
    async def begin(self, input: BeginBatchInput) -> BegunBatch:
        """Write the batch, unless it is there; say how it stands.

        Raises:
            ApplicationError: its name belongs to another input, final; or the ledger doesn't
                answer, retryable.
        """
        async with heartbeating():
            with trail.waiting_for_ledger():
                try:
                    found = await self._begin(input)
                except BatchTaken as error:
                    raise ApplicationError(
                        str(error), type=NAME_TAKEN, non_retryable=True
                    ) from None
        return BegunBatch(
            batch_id=found.id,
            status=found.status.value,
            lanes=found.options[_LANES],
            window=found.options[_WINDOW],
        )

    async def _begin(self, input: BeginBatchInput) -> BatchRecord:
        asked, now = input.batch, datetime.now(UTC)
        its_id = batch_id(asked.owner, input.name)
        if asked.tools is not None:
            await self._ledger.batch_notes.prepare(its_id, {Note.TOOLS: json.dumps(asked.tools)})
        record = BatchRecord(
            id=its_id,
            owner=asked.owner,
            name=input.name,
            input_digest=asked.digest,
            total=asked.total,
            options={**asked.options, FILE: asked.file_id},
            # By the scheduled time: what is made up for late is late for its deadline, too.
            deadline=None if asked.deadline is None else asked.deadline.after(input.scheduled_at),
            token_limit=asked.token_limit,
            cost_limit=None if asked.cost_limit is None else Decimal(asked.cost_limit),
            created_at=now,
        )
        event = trail.control(
            what="create",
            scope=f"batch {its_id}",
            by=asked.requested_by or "runlane",
            reason=None,
            at=now,
            facts={"name": record.name, "input": record.input_digest, "total": record.total},
        )
        return await self._ledger.batches.create(record, [event])
