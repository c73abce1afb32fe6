"""The files of a batch's results, which are written as they are asked for: the items hold them.

Their ids say whose they are, so that nothing is stored twice and a death between leaves nothing.
"""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

from ledger import Ledger
from ledger.batch_item import ItemState
from ledger.batch_notes import Note
from ledger.batch_record import BatchCounts, BatchRecord, BatchStatus
from runlane.api.access import Principal
from runlane.batches import presenting
from runlane.batches.outputs import encoded

PURPOSE = "batch_output"

_ID = re.compile(r"file-(output|errors)-([a-z2-7]{24})")
_FIRST_PAGE, _LARGEST_PAGE = 10, 500
"""Items that are read at a time: by how long those before were."""
_PAGE_BYTES = 1_000_000


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
        async for page in _pages(self.batch.id, ledger):
            lines = b"".join(line for state, line in page if self._takes(state))
            if lines:
                yield lines

    async def size(self, ledger: Ledger) -> int:
        """Return how many bytes it has: counted once, by writing all of it to nobody, and kept.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        # An ended batch changes by a retry of what failed, which ends anew, and by contents that
        # are erased or too old.
        contents = await ledger.batch_items.count_answers(self.batch.id)
        mark = [str(self.batch.ended_at), contents]
        kept = await ledger.batch_notes.find(self.batch.id, Note.SIZES)
        known = {} if kept is None else json.loads(kept)
        if known.get("mark") != mark:
            known = {"mark": mark, **await self._sizes(ledger)}
            await ledger.batch_notes.keep(self.batch.id, Note.SIZES, json.dumps(known))
        return int(known[self.kind])

    async def _sizes(self, ledger: Ledger) -> dict[str, int]:
        found = dict.fromkeys((kind.value for kind in Kind), 0)
        async for page in _pages(self.batch.id, ledger):
            for state, line in page:
                found[_kind_of(state)] += len(line)
        return found

    def _takes(self, state: ItemState) -> bool:
        return _kind_of(state) is self.kind


def _kind_of(state: ItemState) -> Kind:
    return Kind.OUTPUT if state is ItemState.COMPLETED else Kind.ERRORS


async def _pages(batch_id: str, ledger: Ledger) -> AsyncIterator[list[tuple[ItemState, bytes]]]:
    """Yield all lines in the order of their ends, about as many bytes at a time."""
    after, limit = 0, _FIRST_PAGE
    while page := await ledger.batch_items.results(batch_id, after, limit):
        after = page[-1].seq or after
        lines = [(item.state, encoded(item)) for item in page]
        each = sum(len(line) for _, line in lines) / len(lines)
        limit = min(max(int(_PAGE_BYTES / each), 1), 2 * limit, _LARGEST_PAGE)
        yield lines


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
