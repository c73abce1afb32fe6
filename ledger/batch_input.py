"""Adding the input of a batch, page by page."""

from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from ledger import batch_rows, limits
from ledger.batch_contents import BatchContents, Part, in_pieces
from ledger.batch_item import NewItem
from ledger.batch_record import ENDS, BatchStatus
from ledger.errors import BatchNotKnown, LedgerRefused
from ledger.tables import batch_items, batches


def add(
    connection: Connection, contents: BatchContents, batch_id: str, items: Sequence[NewItem]
) -> int:
    """Add items as `BatchItems.add` does, in a transaction that has the batch's turn."""
    status = connection.execute(
        select(batches.c.status).where(batches.c.batch_id == batch_id)
    ).scalar()
    if status is None:
        raise BatchNotKnown(batch_id)
    there = _there(connection, batch_id, [item.index for item in items])
    for item in items:
        if there.get(item.index, item.digest) != item.digest:
            raise LedgerRefused(f"index {item.index} stands there with another digest.")
    new = [item for item in items if item.index not in there]
    if not new:
        return 0
    if status in ENDS or status == BatchStatus.CANCELLING:
        raise LedgerRefused(f"{batch_id} is {status}, and takes no more items.")
    before = next_index(connection, batch_id) - 1
    for item in new:
        if item.index <= before:
            raise LedgerRefused(f"index {item.index} comes after {before}.")
        before = item.index
    _refuse_twice(connection, batch_id, new)
    batch_rows.put_in(connection, batch_id, new, _behind(connection, batch_id, new))
    texts = ((item.index, Part.BODY, item.body) for item in new)
    contents.keep(connection, batch_id, texts, limits.now())
    return len(new)


def next_index(connection: Connection, batch_id: str) -> int:
    """Return the lowest index that no item of the batch reaches."""
    its = batch_items.c
    last = connection.execute(select(func.max(its.item_index)).where(its.batch_id == batch_id))
    found = last.scalar()
    return 0 if found is None else found + 1


def _there(connection: Connection, batch_id: str, indexes: Sequence[int]) -> dict[int, str]:
    its = batch_items.c
    found: dict[int, str] = {}
    for some in in_pieces(indexes):
        query = select(its.item_index, its.digest).where(
            its.batch_id == batch_id, its.item_index.in_(some)
        )
        found.update((row.item_index, row.digest) for row in connection.execute(query))
    return found


def _refuse_twice(connection: Connection, batch_id: str, new: Sequence[NewItem]) -> None:
    its = batch_items.c
    seen = dict[str, int]()
    for item in new:
        if item.custom_id in seen:
            raise _twice(item, seen[item.custom_id])
        seen[item.custom_id] = item.index
    by_id = {item.custom_id: item for item in new}
    for some in in_pieces(list(by_id)):
        query = select(its.custom_id, its.item_index).where(
            its.batch_id == batch_id, its.custom_id.in_(some)
        )
        for row in connection.execute(query):
            raise _twice(by_id[row.custom_id], row.item_index)


def _twice(item: NewItem, first: int) -> LedgerRefused:
    return LedgerRefused(f"index {item.index} has the custom_id of index {first}.")


def _behind(connection: Connection, batch_id: str, new: Sequence[NewItem]) -> set[int]:
    threads = list(dict.fromkeys(item.thread_id for item in new if item.thread_id is not None))
    busy = batch_rows.busy_threads(connection, batch_id, threads)
    behind = set[int]()
    for item in new:
        if item.thread_id in busy:
            behind.add(item.index)
        elif item.thread_id is not None:
            busy.add(item.thread_id)
    return behind
