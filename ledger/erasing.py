"""Erasing what people and models wrote in a run, while the proof of what happened stays."""

from collections.abc import Sequence

from sqlalchemy import Connection

from ledger import limits
from ledger.audit import Appending
from ledger.chain import Event
from ledger.contents import Contents
from ledger.database import Database


async def erase_run(
    database: Database, contents: Contents, run_id: str, events: Sequence[Event] = ()
) -> int:
    """Remove all contents of a run for good; return the number of those that were there.

    Digests stay, in intents, trail and run. What a late writer still brings is not stored.
    A run that the ledger doesn't know is erased too: nothing of it will be stored.

    Args:
        database: the ledger's.
        contents: the ledger's.
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
        return contents.erase(connection, run_id, now)

    erased = await database.write(run_id, work)
    await database.sweep()
    return erased
