"""What is done to many items of a batch at once: ended before they begin, or tried anew."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, select, update

from ledger import batch_ending, batch_rows
from ledger.batch_contents import BatchContents, Part
from ledger.batch_item import CANCELLED, CREATE_UNCERTAIN, EXPIRED, ItemOutcome, ItemState
from ledger.batch_record import BatchStatus
from ledger.errors import BatchNotKnown, LedgerRefused
from ledger.tables import batch_contents, batch_items, batches

AT_ONCE = 500
"""Items that are ended in one transaction; others write between two."""

_KINDS = {ItemState.EXPIRED: EXPIRED, ItemState.CANCELLED: CANCELLED}
_RETRIED = (ItemState.FAILED, ItemState.EXPIRED)
_CAN_RETRY = (
    BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.COMPLETED, BatchStatus.EXPIRED
)  # fmt: skip
_ANEW = {
    "state": ItemState.WAITING, "lane": None, "epoch": None, "not_before": None, "tries": 0,
    "generation": batch_items.c.generation + 1, "attempt": 0, "run_id": None,
    "intended_at": None, "made_thread": None, "upstream_run_id": None, "seq": None,
    "status_code": None, "error_kind": None, "response_digest": None, "ended_at": None,
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
    rows = {row.item_index: row._mapping for row in connection.execute(query)}
    ends = {index: _outcome(row, state, at) for index, row in rows.items()}
    if ends:
        batch_ending.end(connection, contents, batch_id, ends, rows)
    return len(ends)


def retry(connection: Connection, batch_id: str, deadline: datetime | None) -> int:
    """Try items anew as `BatchItems.retry_failed`, in a transaction that has the batch's turn."""
    its = batch_items.c
    status = connection.execute(
        select(batches.c.status).where(batches.c.batch_id == batch_id)
    ).scalar()
    if status is None:
        raise BatchNotKnown(batch_id)
    if status not in _CAN_RETRY:
        raise LedgerRefused(f"{batch_id} is {status}: nothing of it can be tried again.")
    retried = and_(its.batch_id == batch_id, its.state.in_(_RETRIED), _has_body())
    of_them = select(its.item_index).where(retried)
    old = batch_contents.c
    connection.execute(
        delete(batch_contents).where(
            old.batch_id == batch_id, old.part != Part.BODY, old.item_index.in_(of_them)
        )
    )
    threads = list(
        connection.execute(
            select(its.thread_id).where(retried, its.thread_id.is_not(None)).distinct()
        ).scalars()
    )
    count = connection.execute(update(batch_items).where(retried).values(_ANEW)).rowcount
    if threads:
        waiting = and_(its.batch_id == batch_id, its.state == ItemState.WAITING)
        behind = update(batch_items).where(waiting, its.thread_id.is_not(None))
        connection.execute(behind.values(is_behind=True))
        every = select(its.thread_id).where(waiting, its.thread_id.is_not(None)).distinct()
        batch_rows.let_on(connection, batch_id, connection.execute(every).scalars().all())
    if count and status != BatchStatus.IN_PROGRESS:
        again = {"status": BatchStatus.IN_PROGRESS, "ended_at": None, "deadline": deadline}
        connection.execute(update(batches).where(batches.c.batch_id == batch_id).values(again))
    return count


def _outcome(row: Any, state: ItemState, at: datetime) -> ItemOutcome:
    if row["intended_at"] is not None and row["upstream_run_id"] is None:
        # Its POST may have been sent, and nobody has read what came of it.
        return ItemOutcome(state=ItemState.UNCERTAIN, error_kind=CREATE_UNCERTAIN, at=at)
    return ItemOutcome(state=state, error_kind=_KINDS[state], at=at)


def _has_body() -> ColumnElement[bool]:
    its, old = batch_items.c, batch_contents.c
    return exists().where(
        old.batch_id == its.batch_id, old.item_index == its.item_index, old.part == Part.BODY
    )
