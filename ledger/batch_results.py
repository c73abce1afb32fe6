"""Reading items: those that have ended with what they answered, and those that live."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, exists, func, or_, select

from ledger import batch_rows
from ledger.batch_contents import ANSWERS, BatchContents, Part
from ledger.batch_item import UNFINISHED, Item, ItemState
from ledger.tables import batch_contents, batch_items

_LAST_ENDS = 20_000
"""Ends that are looked at, where those of a while are asked for."""


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


def ended_since(
    connection: Connection, batch_id: str, at: datetime
) -> Sequence[tuple[datetime, int]]:
    """Return ends as `BatchItems.ended_since` does."""
    its = batch_items.c
    ended = select(func.max(its.seq)).where(its.batch_id == batch_id)
    last = connection.execute(ended).scalar() or 0
    # By their numbers, for which there is an index.
    query = select(its.ended_at, its.total_tokens).where(
        its.batch_id == batch_id, its.seq > last - _LAST_ENDS, its.ended_at >= at
    )
    return [(row.ended_at, row.total_tokens) for row in connection.execute(query.order_by(its.seq))]


def ended(
    connection: Connection, batch_id: str, after: int, limit: int
) -> Sequence[tuple[int, int, ItemState]]:
    """Return ends as `BatchItems.ended` does."""
    its = batch_items.c
    query = select(its.item_index, its.generation, its.state).where(
        its.batch_id == batch_id, its.item_index > after, its.seq.is_not(None)
    )
    found = connection.execute(query.order_by(its.item_index).limit(limit))
    return [(row.item_index, row.generation, ItemState(row.state)) for row in found]


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


def result_of_run(connection: Connection, contents: BatchContents, run_id: str) -> Item | None:
    """Return the item as `BatchItems.result_of_run` does."""
    query = select(batch_items).where(batch_items.c.run_id == run_id).limit(1)
    row = connection.execute(query).first()
    if row is None:
        return None
    return next(iter(_read(connection, contents, row.batch_id, query)), None)


def count_answers(connection: Connection, batch_id: str) -> int:
    """Count contents as `BatchItems.count_answers` does."""
    its = batch_contents.c
    query = select(func.count()).where(its.batch_id == batch_id, its.part.in_(ANSWERS))
    return int(connection.execute(query).scalar() or 0)


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
