"""A checked input on its way into the ledger, in pages."""

from collections.abc import Callable

from activities.contract import canonical_json
from ledger import Ledger
from ledger.batch_item import NewItem
from ledger.batch_record import BatchRecord
from runlane.batches.checked_line import Added, CheckedLine
from runlane.batches.checking import Checking, Totals
from runlane.batches.lines import InputFile
from runlane.errors import RunlaneError


class InputChanged(RunlaneError):
    """The file was changed while it was read. Give the command again once it is at rest."""

    code = "input_changed"


async def upload(
    ledger: Ledger,
    batch: BatchRecord,
    source: InputFile,
    totals: Totals,
    moved: Callable[[int], object],
    *,
    added: Added | None = None,
) -> None:
    """Read the input once more, and put into the ledger what isn't there yet.

    Args:
        ledger: the batch's.
        batch: whose items they are.
        source: the file that was checked.
        totals: what was found then.
        moved: is told of each line how many were read.
        added: as it was for the check.

    Raises:
        InputChanged: the file isn't what it was. Nothing of another content was added.
    """
    checking = Checking(source, added)
    begin = await ledger.batch_items.next_index(batch.id)
    page: list[NewItem] = []
    for found in checking.lines():
        if isinstance(found, CheckedLine) and found.number > begin:
            page.append(new_item(found))
        if checking.at_page_end:
            read = len(checking.totals.marks)
            if checking.totals.marks[-1:] != totals.marks[read - 1 : read]:
                raise _changed(source)
            await _add(ledger, batch, page)
        moved(checking.totals.usable + checking.totals.unusable)
    if checking.totals.digest != totals.digest:
        raise _changed(source)
    await _add(ledger, batch, page)


def new_item(line: CheckedLine) -> NewItem:
    """Return a line as the ledger takes it."""
    return NewItem(
        index=line.number - 1,
        custom_id=line.custom_id,
        thread_id=line.thread_id,
        digest=line.digest,
        body=canonical_json(line.body),
    )


async def _add(ledger: Ledger, batch: BatchRecord, page: list[NewItem]) -> None:
    if page:
        await ledger.batch_items.add(batch.id, page)
        page.clear()


def _changed(source: InputFile) -> InputChanged:
    text = (
        f"{source.path} was changed while it was read; nothing was begun. Give the command again "
        "once nobody writes to it."
    )
    return InputChanged(text, param="INPUT")
