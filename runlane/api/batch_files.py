"""The files of a batch's results, which are written as they are asked for: the items hold them.

Their ids say whose they are, so that nothing is stored twice and a death between leaves nothing.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

from ledger import Ledger
from ledger.batch_item import ItemState
from ledger.batch_record import BatchCounts, BatchRecord, BatchStatus
from runlane.api.access import Principal
from runlane.batches import presenting
from runlane.batches.outputs import encoded

PURPOSE = "batch_output"

_ID = re.compile(r"file-(output|errors)-([a-z2-7]{24})")
_PAGE = 200


class Kind(StrEnum):
    """Which of a batch's two files it is."""

    OUTPUT = "output"
    """Lines of the items that have completed."""
    ERRORS = "errors"
    """Lines of all others."""


@dataclass(frozen=True)
class ResultFile:
    """A file of an ended batch."""

    batch: BatchRecord
    kind: Kind

    @property
    def id(self) -> str:
        """Its id, by which it is found again."""
        return f"file-{self.kind}-{self.batch.id.removeprefix('batch_')}"

    @property
    def filename(self) -> str:
        """What it is called."""
        return f"{self.batch.id}_{self.kind}.jsonl"

    async def lines(self, ledger: Ledger) -> AsyncIterator[bytes]:
        """Yield its bytes, some lines at a time, in the order in which the items ended.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        after = 0
        while page := await ledger.batch_items.results(self.batch.id, after, _PAGE):
            after = page[-1].seq or after
            lines = b"".join(encoded(each) for each in page if self._takes(each.state))
            if lines:
                yield lines

    async def size(self, ledger: Ledger) -> int:
        """Count its bytes, by writing all of it to nobody.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        size = 0
        async for lines in self.lines(ledger):
            size += len(lines)
        return size

    def _takes(self, state: ItemState) -> bool:
        return (state is ItemState.COMPLETED) == (self.kind is Kind.OUTPUT)


def ids(batch: BatchRecord, counts: BatchCounts) -> dict[str, str | None]:
    """Return the batch's keys that name its files; none before its end, and no empty one."""
    completed = counts.by_state[ItemState.COMPLETED]
    ended = batch.status.is_end and batch.status is not BatchStatus.FAILED
    output = ResultFile(batch, Kind.OUTPUT).id if ended and completed else None
    errors = ResultFile(batch, Kind.ERRORS).id if ended and presenting.failed(counts) else None
    return {"output_file_id": output, "error_file_id": errors}


async def find(ledger: Ledger, asking: Principal, file_id: str) -> ResultFile | None:
    """Return the file, if there is one and the asker may see it.

    Raises:
        LedgerUnavailable: the ledger doesn't answer.
    """
    match = _ID.fullmatch(file_id)
    if match is None:
        return None
    batch = await ledger.batches.find(f"batch_{match[2]}", owner=asking.scope)
    if batch is None or not batch.status.is_end:
        return None
    file = ResultFile(batch, Kind(match[1]))
    counts = await ledger.batches.counts(batch.id)
    return file if file.id in ids(batch, counts).values() else None
