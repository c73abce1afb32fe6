"""Reading items: those that have ended with what they answered, and those that live."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, exists, or_, select

from ledger import batch_rows
from ledger.batch_contents import ANSWERS, BatchContents, Part
from ledger.batch_item import UNFINISHED, Item, ItemState
from ledger.tables import batch_items


def has_unfinished(connection: Connection, batch_id: str) -> bool:
    """Tell whether an item of a batch has not ended."""
    its = batch_items.c
    query = select(exists().where(its.batch_id == batch_id, its.state.in_(UNFINISHED)))
    return bool(connection.execute(query).scalar())


def promoted(
    connection: Connection, batch_id: str, limit: int, after: int | None
) -> Sequence[Item]:
    """Return items as `BatchItems.promoted` does."""
    its = batch_items.c
    query = select(batch_items).where(
        its.batch_id == batch_id, its.state == ItemState.PROMOTED, its.is_behind.is_(False)
    )
    if after is not None:
        query = query.where(its.item_index > after)
    found = connection.execute(query.order_by(its.item_index).limit(limit))
    return [batch_rows.read(row) for row in found]


def by_end(
    connection: Connection, contents: BatchContents, batch_id: str, after: int, limit: int
) -> Sequence[Item]:
    """Return items as `BatchItems.results` does."""
    its = batch_items.c
    query = select(batch_items).where(its.batch_id == batch_id, its.seq > after)
    return _read(connection, contents, batch_id, query.order_by(its.seq).limit(limit))


def by_index(
    connection: Connection, contents: BatchContents, batch_id: str, after: int, limit: int
) -> Sequence[Item]:
    """Return items as `BatchItems.ordered` does."""
    its = batch_items.c
    query = select(batch_items).where(
        its.batch_id == batch_id, its.item_index > after, its.seq.is_not(None)
    )
    return _read(connection, contents, batch_id, query.order_by(its.item_index).limit(limit))


def of_run(connection: Connection, run_id: str) -> Item | None:
    """Return the item as `BatchItems.of_run` does."""
    query = select(batch_items).where(batch_items.c.run_id == run_id)
    row = connection.execute(query).first()
    return None if row is None else batch_rows.read(row)


def runs_of_thread(connection: Connection, thread_id: str) -> Sequence[str]:
    """Return ids as `BatchItems.runs_of_thread` does."""
    its = batch_items.c
    query = select(its.run_id).where(
        or_(its.thread_id == thread_id, its.made_thread == thread_id), its.run_id.is_not(None)
    )
    return connection.execute(query.order_by(its.batch_id, its.item_index)).scalars().all()


def _read(
    connection: Connection, contents: BatchContents, batch_id: str, query: Select[Any]
) -> Sequence[Item]:
    rows = connection.execute(query).all()
    found = contents.find(connection, batch_id, [row.item_index for row in rows], ANSWERS)
    return [
        batch_rows.read(
            row,
            response=found.get((row.item_index, Part.RESPONSE)),
            error=found.get((row.item_index, Part.ERROR)),
            messages=found.get((row.item_index, Part.MESSAGES)),
        )
        for row in rows
    ]
