"""Erasing a whole batch: its lines, results and messages, its runs, and the file it came from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from activities import trail
from activities.intake import FILE
from ledger import Ledger
from ledger.batch_record import BatchRecord
from ledger.errors import LedgerRefused
from ledger.files import STANDING
from runlane.batches.running import scope_of
from runlane.erasing import Erased, Erasing
from runlane.errors import Refused


@dataclass(frozen=True, kw_only=True)
class ErasedBatch:
    """What was removed of a batch."""

    batch_id: str
    contents: int
    """Removed from the ledger: lines, results, messages; those of its runs are theirs."""
    runs: Sequence[Erased]
    """Items that were runs of their own."""
    file_id: str | None
    """The uploaded input that was deleted."""
    file_left: str | None
    """The uploaded input that a schedule still reads."""


async def erase(
    ledger: Ledger,
    erasing: Erasing,
    batch: BatchRecord,
    by: str,
    moved: Callable[[str], object] = lambda run_id: None,
) -> ErasedBatch:
    """Remove what people and models wrote in a batch that has ended; again does no harm.

    Args:
        ledger: the batch's.
        erasing: of runs.
        batch: which.
        by: the person.
        moved: is told of each run before it is erased, which takes up to a minute.

    Raises:
        Refused: it hasn't ended.
        LedgerUnavailable: the ledger doesn't answer; the same call again goes on.
    """
    event = trail.control(
        what="erase", scope=scope_of(batch), by=by, reason=None, at=datetime.now(UTC)
    )
    try:
        contents = await ledger.erase_batch(batch.id, [event])
    except LedgerRefused as error:
        raise Refused(str(error), code="batch_alive") from None
    runs: list[Erased] = []
    after = -1
    while page := await ledger.recorded_runs(batch.id, after=after):
        for after, run_id in page:  # noqa: B007 - the last one is gone on from
            moved(run_id)
            runs.append(await erasing.erase(run_id, by=by))
    deleted, left = await _file(ledger, batch)
    return ErasedBatch(
        batch_id=batch.id, contents=contents, runs=runs, file_id=deleted, file_left=left
    )


async def _file(ledger: Ledger, batch: BatchRecord) -> tuple[str | None, str | None]:
    """Delete the uploaded input; return its id, or that of one which is read again."""
    file_id = batch.options.get(FILE)
    if file_id is None:
        return None, None
    found = await ledger.files.find(str(file_id), datetime.now(UTC))
    if found is not None and found.purpose == STANDING:
        return None, found.id
    return (str(file_id) if await ledger.files.delete(str(file_id)) else None), None
