"""Bringing a batch's results from the ledger into files: as they come, or in the input's order."""

from pathlib import Path

from ledger import Ledger
from ledger.batch_item import ItemState
from ledger.batch_record import BatchCounts
from runlane.batches import presenting
from runlane.batches.outputs import ResultsFile, ResultsLost, mark_of

PAGE = 200
"""Items that are read at a time."""

_MARKS = 1_000


class Results:
    """The files of one batch's results, which follow its ledger."""

    def __init__(self, ledger: Ledger, batch_id: str, output: Path, errors: Path) -> None:
        """Open both, and look how far they have come.

        Raises:
            ResultsLost: one of them can't be used.
        """
        if output == errors:
            text = "Results and failures need two files."
            raise ResultsLost(text, param="--errors")
        self._ledger = ledger
        self._batch_id = batch_id
        self._output = ResultsFile(output, batch_id)
        try:
            self._errors = ResultsFile(errors, batch_id, failed_only=True)
        except BaseException:
            self._output.close()
            raise

    async def check_known(self) -> None:
        """Refuse files that have lines of a batch that isn't in the ledger.

        Raises:
            ResultsLost: they have. The ledger has forgotten it, and all of it would run once more.
            LedgerUnavailable: the ledger doesn't answer.
        """
        written = next((file for file in (self._output, self._errors) if file.lines), None)
        if written is None or await self._ledger.batches.find(self._batch_id) is not None:
            return
        text = (
            f"{written.path} holds results of {self._batch_id}, which the ledger doesn't know: it "
            "was restored from an older copy, has removed the batch, or is another one. Mend that. "
            "Or move the file away: then all of the batch is run once more."
        )
        raise ResultsLost(text, param="--output")

    async def follow(self) -> BatchCounts:
        """Write what has ended since the last time; return where the items stand now.

        Raises:
            ResultsLost: a file can't be written.
            LedgerUnavailable: the ledger doesn't answer; the same call again goes on.
        """
        await self._append(self._output, self._errors)
        counts = await self._ledger.batches.counts(self._batch_id)
        ended, failed = presenting.ended(counts), presenting.failed(counts)
        # More than have ended are there where something was tried anew after its line was written.
        if (
            self._output.lines > ended
            or self._errors.lines > failed
            or (not counts.unfinished and not await self._is_whole())
        ):
            await self._begin_anew(in_order=False)
        return counts

    async def write_in_order(self) -> None:
        """Write all that has ended, in the order of the input, in place of what is there.

        Raises:
            ResultsLost: a file can't be written; the one that is there stays.
            LedgerUnavailable: the ledger doesn't answer; the same call again does it.
        """
        await self._begin_anew(in_order=True)

    def close(self) -> None:
        """Put both onto the disk.

        Raises:
            ResultsLost: the disk fails.
        """
        try:
            self._output.close()
        finally:
            self._errors.close()

    async def _is_whole(self) -> bool:
        """Tell whether both files hold what has ended, once each.

        The last line alone doesn't say it: a ledger that was restored may have ended them in
        another order since.
        """
        output = errors = 0
        items, after = self._ledger.batch_items, -1
        while page := await items.ended(self._batch_id, after, _MARKS):
            for index, generation, state in page:
                mark = mark_of(self._batch_id, index, generation)
                output += mark
                errors += 0 if state is ItemState.COMPLETED else mark
            after = page[-1][0]
        return (self._output.mark, self._errors.mark) == (output, errors)

    async def _append(self, output: ResultsFile, errors: ResultsFile) -> None:
        items = self._ledger.batch_items
        while page := await items.results(self._batch_id, output.last_seq, PAGE):
            # Failures first: then theirs is never behind, and what it has is left out of it.
            errors.write(page)
            output.write(page)

    async def _begin_anew(self, *, in_order: bool) -> None:
        output = self._output.begin_anew()
        try:
            errors = self._errors.begin_anew()
        except BaseException:
            output.discard()
            raise
        try:
            if in_order:
                await self._put_in_order(output, errors)
            else:
                await self._append(output, errors)
            errors.take_place_of(self._errors)
            self._errors = errors
            output.take_place_of(self._output)
            self._output = output
        finally:
            for file in (output, errors):
                if file not in (self._output, self._errors):
                    file.discard()

    async def _put_in_order(self, output: ResultsFile, errors: ResultsFile) -> None:
        items, after = self._ledger.batch_items, -1
        while page := await items.ordered(self._batch_id, after, PAGE):
            after = page[-1].index
            errors.put(page)
            output.put(page)
