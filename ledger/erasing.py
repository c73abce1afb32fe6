"""Erasing what people and models wrote in a run, while the proof of what happened stays."""

from collections.abc import Sequence

from sqlalchemy import Connection

from ledger import limits
from ledger.audit import Appending
from ledger.batch_contents import BatchContents, items_of_run
from ledger.batch_sweeping import erase_item
from ledger.chain import Event
from ledger.contents import Contents
from ledger.database import Database, take_turn


async def erase_run(
    database: Database,
    contents: Contents,
    of_batches: BatchContents,
    run_id: str,
    events: Sequence[Event] = (),
) -> int:
    """Remove all contents of a run for good; return the number of those that were there.

    Digests stay, in intents, trail and run. What a late writer still brings is not stored.
    A run that the ledger doesn't know is erased too: nothing of it will be stored. Where it is an
    item of a batch, the line that it was asked by goes too, so it can't be tried again; an item
    that has not ended is cancelled.

    Args:
        database: the ledger's.
        contents: the ledger's.
        of_batches: the ledger's.
        run_id: the run.
        events: for the audit trail, written with the erasure.

    Raises:
        LedgerRefused: an event can't be stored.
        LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
    """
    appending = Appending(run_id, events)
    now = limits.now()

    def work(connection: Connection) -> int:
        # Contents of these events would be erased with the others: they are written before.
        appending.write(connection, contents)
        erased = contents.erase(connection, run_id, now)
        for batch_id, index in items_of_run(connection, run_id):
            # A run's turn is taken before a batch's, everywhere.
            take_turn(connection, batch_id)
            erased += erase_item(connection, of_batches, batch_id, index, now)
        return erased

    erased = await database.write(run_id, work)
    await database.sweep()
    return erased
