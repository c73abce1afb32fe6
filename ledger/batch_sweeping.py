"""What is done to many items of a batch at once: ended before they begin, or tried anew."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update

from ledger import batch_ending, batch_rows
from ledger.batch_contents import ANSWERS, BatchContents, Part, having, remove
from ledger.batch_item import CANCELLED, CREATE_UNCERTAIN, ERASED, EXPIRED, ItemOutcome, ItemState
from ledger.batch_record import BatchStatus
from ledger.errors import BatchNotKnown, LedgerRefused
from ledger.tables import batch_items, batches

AT_ONCE = 500
"""Items in one transaction; others write between two."""

_KINDS = {ItemState.EXPIRED: EXPIRED, ItemState.CANCELLED: CANCELLED}
_RETRIED = (ItemState.FAILED, ItemState.EXPIRED)
_CAN_RETRY = (
    BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.COMPLETED, BatchStatus.EXPIRED
)  # fmt: skip
_ANEW = {
    "state": ItemState.WAITING, "is_behind": False, "lane": None, "epoch": None,
    "not_before": None, "tries": 0, "generation": batch_items.c.generation + 1, "attempt": 0,
    "run_id": None, "intended_at": None, "made_thread": None, "upstream_run_id": None,
    "seq": None, "status_code": None, "error_kind": None, "response_digest": None,
    "ended_at": None,
}  # fmt: skip


def end_some(
    connection: Connection, contents: BatchContents, batch_id: str, state: ItemState, at: datetime
) -> int:
    """End some of the items that wait, in a transaction that has the batch's turn; count them."""
    its = batch_items.c
    names = (*batch_ending.OUTCOME, "intended_at", "upstream_run_id")
    query = (
        select(its.item_index, *(its[name] for name in names))
        .where(its.batch_id == batch_id, its.state == ItemState.WAITING)
        .order_by(its.is_behind, its.item_index)
        .limit(AT_ONCE)
    )
    rows = {row.item_index: dict(row._mapping) for row in connection.execute(query)}
    ends = {index: _outcome(row, state, at) for index, row in rows.items()}
    if ends:
        batch_ending.end(connection, contents, batch_id, ends, rows)
    return len(ends)


def retry_some(
    connection: Connection, batch_id: str, *, after: int, deadline: datetime | None
) -> tuple[int, int] | None:
    """Try some items anew as `BatchItems.retry_failed`, in a transaction with the batch's turn.

    Returns:
        How many it were, and the index after which to go on; None: there are no more.
    """
    its = batch_items.c
    status = connection.execute(
        select(batches.c.status).where(batches.c.batch_id == batch_id)
    ).scalar()
    if status is None:
        raise BatchNotKnown(batch_id)
    if status not in _CAN_RETRY:
        raise LedgerRefused(f"{batch_id} is {status}: nothing of it can be tried again.")
    query = select(its.item_index, its.thread_id).where(
        its.batch_id == batch_id, its.item_index > after, its.state.in_(_RETRIED)
    )
    found = connection.execute(query.order_by(its.item_index).limit(AT_ONCE)).all()
    if not found:
        return None
    with_body = having(connection, batch_id, [row.item_index for row in found], Part.BODY)
    retried = [row for row in found if row.item_index in with_body]
    indexes = [row.item_index for row in retried]
    remove(connection, batch_id, indexes, ANSWERS)
    batch_rows.change_alike(connection, batch_id, indexes, _ANEW)
    on_threads = {row.item_index: row.thread_id for row in retried if row.thread_id is not None}
    batch_rows.line_up(connection, batch_id, on_threads)
    if retried and status != BatchStatus.IN_PROGRESS:
        again = {"status": BatchStatus.IN_PROGRESS, "ended_at": None, "deadline": deadline}
        connection.execute(update(batches).where(batches.c.batch_id == batch_id).values(again))
    return len(retried), found[-1].item_index


def erase_item(
    connection: Connection, contents: BatchContents, batch_id: str, index: int, at: datetime
) -> int:
    """Remove all contents of an item, in a transaction that has the batch's turn; count them."""
    its = batch_items.c
    query = select(*(its[name] for name in batch_ending.OUTCOME)).where(
        its.batch_id == batch_id, its.item_index == index
    )
    row = dict(connection.execute(query).one()._mapping)
    if not ItemState(row["state"]).is_end:
        # Without its line nobody could go on with it.
        gone = ItemOutcome(state=ItemState.CANCELLED, error_kind=ERASED, at=at)
        batch_ending.end(connection, contents, batch_id, {index: gone}, {index: row})
    return remove(connection, batch_id, [index], list(Part))


def _outcome(row: Any, state: ItemState, at: datetime) -> ItemOutcome:
    if row["intended_at"] is not None and row["upstream_run_id"] is None:
        # Its POST may have been sent, and nobody has read what came of it.
        return ItemOutcome(state=ItemState.UNCERTAIN, error_kind=CREATE_UNCERTAIN, at=at)
    return ItemOutcome(state=state, error_kind=_KINDS[state], at=at)
