"""Taking lanes, and beginning items."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, or_, select, update

from ledger import batch_rows
from ledger.batch_contents import BatchContents, Part
from ledger.batch_item import Claim, Item, ItemState, Withheld
from ledger.batch_record import BatchRecord, BatchStatus, from_columns
from ledger.errors import BatchNotKnown
from ledger.tables import batch_items, batch_lanes, batches

_UNKNOWN = 4
"""Items that may be under way while none has told what one uses."""


def take(connection: Connection, batch_id: str, lane: int, holder: str) -> int:
    """Take a lane as `BatchItems.take_lane` does, in a transaction that has the batch's turn."""
    _batch(connection, batch_id)
    its = batch_lanes.c
    mine = (its.batch_id == batch_id, its.lane == lane)
    there = connection.execute(select(its.epoch, its.holder).where(*mine)).first()
    if there is not None and there.holder == holder:
        return int(there.epoch)
    latest = connection.execute(select(func.max(its.epoch)).where(its.batch_id == batch_id))
    epoch = (latest.scalar() or 0) + 1
    taken = {"epoch": epoch, "holder": holder}
    if there is None:
        connection.execute(insert(batch_lanes).values(batch_id=batch_id, lane=lane, **taken))
    else:
        connection.execute(update(batch_lanes).where(*mine).values(taken))
    return epoch


def is_current(connection: Connection, batch_id: str, epoch: int) -> bool:
    """Tell whether no other attempt has taken the lane of an epoch."""
    its = batch_lanes.c
    query = select(its.lane).where(its.batch_id == batch_id, its.epoch == epoch)
    return connection.execute(query).first() is not None


def claim(
    connection: Connection,
    contents: BatchContents,
    batch_id: str,
    *,
    holder: tuple[int, int],
    limit: int,
    now: datetime,
    tokens_up_to: float | None = None,
) -> Claim:
    """Begin items as `BatchItems.claim` does, in a transaction that has the batch's turn."""
    batch = _batch(connection, batch_id)
    lane, epoch = holder
    its = batch_lanes.c
    mine = (its.batch_id == batch_id, its.lane == lane, its.epoch == epoch)
    if connection.execute(select(its.lane).where(*mine)).first() is None:
        return Claim(items=[], withheld=Withheld.EPOCH)
    old = connection.execute(_left(batch_id, lane, epoch).limit(limit)).all()
    withheld = _withheld(from_columns(dict(batch._mapping)), now)
    new: Sequence[Row[Any]] = []
    if withheld is None and len(old) < limit:
        new = connection.execute(_next(batch_id, now).limit(limit - len(old))).all()
        room = None if tokens_up_to is None else _room(connection, batch, tokens_up_to)
        if room is not None and room < len(new):
            new, withheld = new[:room], Withheld.PACE
    found = [row.item_index for row in (*old, *new)]
    begun = {"state": ItemState.BEGUN, "lane": lane, "epoch": epoch}
    batch_rows.change_alike(connection, batch_id, found, begun)
    next_at = None
    if withheld is None and len(found) < limit:
        next_at = _earliest(connection, batch_id)
    items = _items(connection, contents, batch_id, found)
    return Claim(items=items, withheld=withheld, next_at=next_at)


def held(
    connection: Connection, contents: BatchContents, batch_id: str, epoch: int
) -> Sequence[Item]:
    """Return items as `BatchItems.held` does."""
    its = batch_items.c
    query = select(its.item_index).where(
        its.batch_id == batch_id, its.state == ItemState.BEGUN, its.is_behind.is_(False),
        its.epoch == epoch,
    )  # fmt: skip
    found = connection.execute(query.order_by(its.item_index)).scalars().all()
    return _items(connection, contents, batch_id, found)


def _batch(connection: Connection, batch_id: str) -> Row[Any]:
    query = select(batches).where(batches.c.batch_id == batch_id)
    found = connection.execute(query).first()
    if found is None:
        raise BatchNotKnown(batch_id)
    return found


def _withheld(batch: BatchRecord, now: datetime) -> Withheld | None:
    if batch.status is not BatchStatus.IN_PROGRESS:
        return Withheld.STATUS
    if batch.paused_at is not None:
        return Withheld.PAUSED
    if batch.deadline is not None and batch.deadline <= now:
        return Withheld.DEADLINE
    return Withheld.BUDGET if batch.is_spent else None


def _room(connection: Connection, batch: Row[Any], tokens_up_to: float) -> int:
    """Return how many items may begin, if each one under way uses what others have used."""
    its = batch_items.c
    under_way = select(func.count()).where(
        its.batch_id == batch.batch_id, its.state == ItemState.BEGUN, its.is_behind.is_(False)
    )
    begun: int = connection.execute(under_way).scalar_one()
    left = tokens_up_to - batch.total_tokens
    if left <= 0:
        return 0
    if not batch.last_seq or not batch.total_tokens:
        return max(_UNKNOWN - begun, 0)
    room = int(left * batch.last_seq / batch.total_tokens) - begun
    # One alone may use more than a minute's: else it would never begin.
    return max(room, 0 if begun else 1)


def _left(batch_id: str, lane: int, epoch: int) -> Any:
    its = batch_items.c
    return (
        select(its.item_index)
        .where(
            # Never behind: by that the index is used which has them in their order.
            its.batch_id == batch_id, its.state == ItemState.BEGUN, its.is_behind.is_(False),
            its.lane == lane, its.epoch < epoch,
        )
        .order_by(its.item_index)
    )  # fmt: skip


def _next(batch_id: str, now: datetime) -> Any:
    its = batch_items.c
    return (
        select(its.item_index)
        .where(
            its.batch_id == batch_id, its.state == ItemState.WAITING, its.is_behind.is_(False),
            or_(its.not_before.is_(None), its.not_before <= now),
        )
        .order_by(its.item_index)
    )  # fmt: skip


def _earliest(connection: Connection, batch_id: str) -> datetime | None:
    its = batch_items.c
    query = select(func.min(its.not_before)).where(
        its.batch_id == batch_id, its.state == ItemState.WAITING, its.is_behind.is_(False)
    )
    found: datetime | None = connection.execute(query).scalar()
    return found


def _items(
    connection: Connection, contents: BatchContents, batch_id: str, indexes: Sequence[int]
) -> list[Item]:
    rows = batch_rows.whole(connection, batch_id, indexes)
    bodies = contents.find(connection, batch_id, indexes, [Part.BODY])
    return [batch_rows.read(rows[index], body=bodies.get((index, Part.BODY))) for index in indexes]
