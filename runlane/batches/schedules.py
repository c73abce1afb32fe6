"""Schedules that begin batches: their inputs in the ledger, and what became of their starts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ledger import Ledger
from ledger.batch_record import BatchRecord, BatchStatus, batch_id
from runlane.batches.lines import InputFile
from runlane.batches.scheduling import WantedBatches
from runlane.batches.stored_inputs import StoredInputs
from runlane.batches.uploading import InputChanged
from runlane.errors import Refused, RunlaneError, Unreachable
from runlane.schedule_facts import Described, Known
from runlane.schedules import Schedules
from workflows.scheduled_contract import ScheduledBatchInput

_SHOWN = 3


@dataclass(frozen=True)
class Begun:
    """One start of a schedule, and its batch."""

    name: str
    id: str
    scheduled_at: datetime
    status: BatchStatus | None
    """None: no worker has begun it yet, or it was removed since."""


class BatchSchedules:
    """Schedules of batches, which need a ledger beside Temporal."""

    def __init__(self, schedules: Schedules, ledger: Ledger) -> None:
        """Share both."""
        self._schedules = schedules
        self._ledger = ledger
        self._inputs = StoredInputs(ledger)

    async def create(
        self, wanted: WantedBatches, source: InputFile, *, raw_digest: str, paused: bool = False
    ) -> Described:
        """Store the input, and make the schedule; the same again is the one that there is.

        Args:
            wanted: its input's place is filled in.
            source: the input, which was checked.
            raw_digest: of its bytes before that.
            paused: let it begin nothing yet.

        Raises:
            InvalidRequest: something can't be used; nothing was made.
            InputChanged: the input isn't what was checked; nothing was made.
            Refused: the name belongs to another schedule, or its input is gone.
            TemporalUnreachable: the same call again does no harm.
        """
        made = await self._schedules.same(wanted)
        if made is None:
            file = await self._inputs.store(source, wanted.batch.filename)
            try:
                if file.digest != raw_digest:
                    text = f"{source.path} was changed while it was read; no schedule was made."
                    raise InputChanged(text, param="--batch")
                batch = wanted.batch.model_copy(update={"file_id": file.id})
                made = await self._schedules.create(replace(wanted, batch=batch), paused=paused)
            except RunlaneError as error:
                # Where nobody knows what was made, the file goes in a day by itself.
                if not isinstance(error, Unreachable):
                    await self._inputs.remove(file.id)
                raise
            if _input_of(made) != file.id:
                # The same command, given twice at once.
                await self._inputs.remove(file.id)
        # Not before: dying between leaves no input that nothing knows of.
        if not await self._inputs.keep(_input_of(made)):
            text = f"The input of {wanted.name} is gone. Delete the schedule, and make it anew."
            raise Refused(text, param="--batch", code="input_gone")
        return made

    async def delete(self, found: Described) -> None:
        """Delete a schedule. What it has begun goes on; its input goes in a day.

        Raises:
            ScheduleNotFound: there is none.
            TemporalUnreachable: give the same call again.
        """
        # Before: dying between leaves a schedule that is there to be deleted, and not an input
        # that nothing knows of.
        await self._inputs.let_go(_input_of(found))
        await self._schedules.delete(found.name)

    async def goes_at(self, found: Described) -> datetime | None:
        """Return when a schedule's input goes; None: it stays, as it should.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        return await self._inputs.expiry(_input_of(found))

    async def begun(self, found: Known, limit: int = _SHOWN) -> Sequence[Begun]:
        """Return the latest starts with their batches, the latest first.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        told = []
        for start in reversed(found.recent[-limit:]):
            batch = await self._batch(start.batch or "")
            told.append(
                Begun(
                    name=start.batch or "",
                    id=batch_id("", start.batch or ""),
                    scheduled_at=start.scheduled_at,
                    status=None if batch is None else batch.status,
                )
            )
        return told

    async def _batch(self, name: str) -> BatchRecord | None:
        return await self._ledger.batches.find(batch_id("", name))


def _input_of(found: Described) -> str:
    assert isinstance(found.request, ScheduledBatchInput)
    return found.request.batch.file_id
