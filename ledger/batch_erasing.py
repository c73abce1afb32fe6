"""Erasing what the items of a whole batch were asked and have answered; the proof stays."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select

from ledger.audit import Appending
from ledger.batch_record import BatchStatus
from ledger.chain import Event
from ledger.contents import Contents
from ledger.database import Database, take_turn
from ledger.errors import BatchNotKnown, LedgerRefused
from ledger.stops import TRAIL
from ledger.tables import batch_contents, batch_items, batch_notes, batches, runs

AT_ONCE = 2000
"""Rows removed in one transaction; others write between two."""


async def erase_batch(
    database: Database, contents: Contents, batch_id: str, events: Sequence[Event] = ()
) -> int:
    """Remove all contents of a batch that has ended; return the number of those that were there.

    Digests stay, and so do the items with their states and tokens. None of them can be tried again.

    Args:
        database: the ledger's.
        contents: of what goes into the trail.
        batch_id: which.
        events: for the trail `ledger.stops.TRAIL`, written before the first content goes.

    Raises:
        BatchNotKnown: there is no such batch.
        LedgerRefused: it hasn't ended, or is tried again meanwhile.
        LedgerUnavailable: the ledger doesn't answer; the same call again goes on.
    """
    appending = Appending(TRAIL, events)

    def work(connection: Connection) -> int:
        _check_ended(connection, batch_id)
        # An event that stands there already is not written again.
        take_turn(connection, TRAIL)
        appending.write(connection, contents)
        connection.execute(delete(batch_notes).where(batch_notes.c.batch_id == batch_id))
        its = batch_contents.c
        some = (
            select(its.item_index)
            .where(its.batch_id == batch_id)
            .order_by(its.item_index)
            .limit(AT_ONCE)
        )
        found = delete(batch_contents).where(its.batch_id == batch_id, its.item_index.in_(some))
        return connection.execute(found).rowcount

    erased = 0
    while count := await database.write(batch_id, work):
        erased += count
    await database.sweep()
    return erased


async def recorded_runs(
    database: Database, batch_id: str, *, after: int = -1, limit: int = 100
) -> Sequence[tuple[int, str]]:
    """Return items that became runs of their own, by index and run, in the order of the input.

    Args:
        database: the ledger's.
        batch_id: which.
        after: an index: those that follow it.
        limit: at most so many.

    Raises:
        LedgerUnavailable: the ledger doesn't answer.
    """
    its = batch_items.c
    query = (
        select(its.item_index, its.run_id)
        .join(runs, runs.c.run_id == its.run_id)
        .where(its.batch_id == batch_id, its.item_index > after)
        .order_by(its.item_index)
        .limit(limit)
    )
    return await database.read(
        lambda connection: [(row.item_index, row.run_id) for row in connection.execute(query)]
    )


def _check_ended(connection: Connection, batch_id: str) -> None:
    query = select(batches.c.status).where(batches.c.batch_id == batch_id)
    status = connection.execute(query).scalar()
    if status is None:
        raise BatchNotKnown(batch_id)
    if not BatchStatus(status).is_end:
        raise LedgerRefused(f"{batch_id} is {status}: only what has ended can be erased.")
