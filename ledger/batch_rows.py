"""Rows of items, within transactions that have their batch's turn."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, exists, select, update

from ledger.batch_contents import in_pieces
from ledger.batch_item import UNFINISHED, Item, ItemState, NewItem
from ledger.batch_writes import Changes
from ledger.bulk import insert_rows, update_rows
from ledger.run_record import Usage
from ledger.tables import batch_items

_SAME = (
    "batch_id", "custom_id", "thread_id", "digest", "lane", "epoch", "not_before", "tries",
    "generation", "attempt", "run_id", "intended_at", "made_thread", "upstream_run_id", "seq",
    "status_code", "error_kind", "response_digest", "ended_at",
)  # fmt: skip


def read(
    row: Row[Any],
    *,
    body: str | None = None,
    response: str | None = None,
    error: str | None = None,
    messages: str | None = None,
) -> Item:
    """Return a whole row as an item."""
    return Item(
        index=row.item_index,
        state=ItemState(row.state),
        usage=Usage(
            prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens,
            total_tokens=row.total_tokens,
        ),
        **{name: getattr(row, name) for name in _SAME},
        body=body,
        response=response,
        error=error,
        messages=messages,
    )


def whole(connection: Connection, batch_id: str, indexes: Sequence[int]) -> dict[int, Row[Any]]:
    """Return rows by index."""
    its = batch_items.c
    found: dict[int, Row[Any]] = {}
    for some in in_pieces(indexes):
        query = select(batch_items).where(its.batch_id == batch_id, its.item_index.in_(some))
        found.update((row.item_index, row) for row in connection.execute(query))
    return found


def put_in(
    connection: Connection, batch_id: str, items: Iterable[NewItem], behind: set[int]
) -> None:
    """Insert items that wait; those of `behind` for another one of their thread."""
    rows = [
        {
            "batch_id": batch_id, "item_index": item.index, "custom_id": item.custom_id,
            "thread_id": item.thread_id, "digest": item.digest, "state": ItemState.WAITING,
            "is_behind": item.index in behind, "tries": 0, "generation": 1, "attempt": 0,
            "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0,
        }
        for item in items
    ]  # fmt: skip
    insert_rows(connection, batch_items, rows)


def change(connection: Connection, batch_id: str, changes: Mapping[int, Changes]) -> None:
    """Set columns of many rows, those that change the same ones by one statement."""
    alike: dict[tuple[str, ...], list[Changes]] = {}
    for index, values in changes.items():
        if values:
            row = {"item_index": index, **values}
            alike.setdefault(tuple(values), []).append(row)
    for rows in alike.values():
        update_rows(connection, batch_items, {"batch_id": batch_id}, "item_index", rows)


def change_alike(
    connection: Connection, batch_id: str, indexes: Sequence[int], values: Changes
) -> None:
    """Set columns of many rows to the same values."""
    its = batch_items.c
    for some in in_pieces(indexes):
        which = (its.batch_id == batch_id, its.item_index.in_(some))
        connection.execute(update(batch_items).where(*which).values(values))


def let_on(connection: Connection, batch_id: str, ended: Sequence[int]) -> None:
    """Let the first waiting item of each thread come next on which an item has just ended."""
    its, other = batch_items.alias(), batch_items.alias()
    same = and_(other.c.batch_id == batch_id, other.c.thread_id == its.c.thread_id)
    # One of a thread is begun, promoted, or the next; it has ended, or there is none to let on.
    is_next = and_(other.c.state == ItemState.WAITING, other.c.is_behind.is_(False))
    under_way = other.c.state.in_((ItemState.BEGUN, ItemState.PROMOTED))
    first = (
        select(other.c.item_index)
        .where(same, other.c.state == ItemState.WAITING, other.c.is_behind.is_(True))
        .order_by(other.c.item_index)
        .limit(1)
        .scalar_subquery()
    )
    for some in in_pieces(ended):
        query = select(first).where(
            its.c.batch_id == batch_id, its.c.item_index.in_(some),
            ~exists().where(same, is_next), ~exists().where(same, under_way),
        )  # fmt: skip
        found = {index for index in connection.execute(query).scalars() if index is not None}
        change_alike(connection, batch_id, sorted(found), {"is_behind": False})


def line_up(connection: Connection, batch_id: str, anew: Mapping[int, str]) -> None:
    """Put items that wait anew into the order of their threads.

    Args:
        connection: of a transaction that has the batch's turn.
        batch_id: which.
        anew: threads by index, in the order of the input, of items that wait already.
    """
    its = batch_items.c
    threads = sorted(set(anew.values()))
    nexts, busy = dict[str, int](), set[str]()
    for some in in_pieces(threads):
        on_them = (its.batch_id == batch_id, its.thread_id.in_(some))
        query = select(its.thread_id, its.item_index).where(
            *on_them, its.state == ItemState.WAITING, its.is_behind.is_(False),
            its.item_index.not_in(anew),
        )  # fmt: skip
        nexts.update((row.thread_id, row.item_index) for row in connection.execute(query))
        under_way = its.state.in_((ItemState.BEGUN, ItemState.PROMOTED))
        query_busy = select(its.thread_id).where(*on_them, under_way).distinct()
        busy.update(connection.execute(query_busy).scalars())
    behind = set[int]()
    for index, thread_id in anew.items():
        before = nexts.get(thread_id)
        if thread_id in busy or (before is not None and before < index):
            behind.add(index)
            continue
        nexts[thread_id] = index
        if before is not None:
            behind.add(before)
    change_alike(connection, batch_id, sorted(behind), {"is_behind": True})


def busy_threads(connection: Connection, batch_id: str, threads: Sequence[str]) -> set[str]:
    """Return those of the threads that have an unfinished item."""
    its = batch_items.c
    found = set[str]()
    for some in in_pieces(threads):
        query = (
            select(its.thread_id)
            .where(its.batch_id == batch_id, its.thread_id.in_(some), its.state.in_(UNFINISHED))
            .distinct()
        )
        found.update(connection.execute(query).scalars())
    return found
