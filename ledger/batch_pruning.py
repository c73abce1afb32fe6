"""Removing batches that have ended, and what their items were asked and answered.

A batch that has not ended keeps everything.
"""

from datetime import datetime
from functools import partial

from sqlalchemy import Connection, delete, select, tuple_

from ledger.database import Database
from ledger.tables import (
    batch_contents,
    batch_items,
    batch_lanes,
    batch_notes,
    batch_paces,
    batches,
)

AT_ONCE = 2000
"""Rows removed in one transaction; others write between two."""


async def remove_contents(database: Database, until: datetime) -> int:
    """Remove contents stored before then, of batches that have ended; return how many.

    Raises:
        LedgerUnavailable: the ledger doesn't answer; the same call again goes on.
    """
    its = batch_contents.c
    old = (
        select(its.batch_id)
        .join(batches, batches.c.batch_id == its.batch_id)
        .where(its.stored_at < until, batches.c.ended_at.is_not(None))
        .limit(1)
    )
    removed = 0
    while batch_id := await database.read(lambda connection: connection.execute(old).scalar()):
        some = partial(_contents, batch_id=batch_id, until=until)
        while count := await database.write(batch_id, some):
            removed += count
    return removed


async def remove_batches(database: Database, until: datetime) -> int:
    """Remove batches that have ended before then, with their items; return how many.

    Raises:
        LedgerUnavailable: the ledger doesn't answer; the same call again goes on.
    """
    removed = 0
    old = select(batches.c.batch_id).where(batches.c.ended_at < until).limit(1)
    while batch_id := await database.read(lambda connection: connection.execute(old).scalar()):
        one = partial(_batch, batch_id=batch_id, until=until)
        while await database.write(batch_id, one):
            pass
        removed += 1
    return removed


def _contents(connection: Connection, batch_id: str, until: datetime) -> int:
    # Asked again with the batch's turn: it may be tried anew meanwhile.
    ended = select(batches.c.ended_at).where(batches.c.batch_id == batch_id)
    if connection.execute(ended).scalar() is None:
        return 0
    its = batch_contents.c
    key = tuple_(its.item_index, its.part)
    some = (
        select(its.item_index, its.part)
        .where(its.batch_id == batch_id, its.stored_at < until)
        .limit(AT_ONCE)
    )
    found = delete(batch_contents).where(its.batch_id == batch_id, key.in_(some))
    return connection.execute(found).rowcount


def _batch(connection: Connection, batch_id: str, until: datetime) -> bool:
    """Remove some of a batch; tell whether there is more."""
    of_it = batches.c.batch_id == batch_id
    still = select(batches.c.batch_id).where(of_it, batches.c.ended_at < until)
    if connection.execute(still).first() is None:
        # It is tried anew meanwhile, or somebody else has removed it.
        return False
    for table in (batch_contents, batch_items):
        its = table.c
        some = (
            select(its.item_index)
            .where(its.batch_id == batch_id)
            .order_by(its.item_index)
            .limit(AT_ONCE)
        )
        found = delete(table).where(its.batch_id == batch_id, its.item_index.in_(some))
        if connection.execute(found).rowcount:
            return True
    for table in (batch_lanes, batch_notes, batch_paces):
        connection.execute(delete(table).where(table.c.batch_id == batch_id))
    connection.execute(delete(batches).where(of_it))
    return False
