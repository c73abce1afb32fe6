"""What a batch was given beside its input, and what was wrong with that: sealed, by batch."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, delete, exists, insert, select, update

from ledger import limits
from ledger.batch_record import BatchStatus
from ledger.contents import Sealing, checked
from ledger.database import Database
from ledger.tables import batch_notes, batches


class Note(StrEnum):
    """Which text it is; each is JSON."""

    METADATA = "metadata"
    ERRORS = "errors"
    TOOLS = "tools"
    """That each item is handed besides its own, as a run's `tools`."""
    SIZES = "sizes"
    """Of the files of its results."""


class BatchNotes:
    """The notes of all batches, and how an input's check ends."""

    def __init__(self, database: Database, sealing: Sealing) -> None:
        """Read and write through this database, and encrypt by this."""
        self._database = database
        self._sealing = sealing

    async def find(self, batch_id: str, note: Note) -> str | None:
        """Return a note; None where there is none.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        its = batch_notes.c
        query = select(its.body).where(its.batch_id == batch_id, its.part == note)
        found = await self._database.read(lambda connection: connection.execute(query).scalar())
        return None if found is None else self._sealing.unseal(found).decode()

    async def prepare(self, batch_id: str, notes: Mapping[Note, str]) -> None:
        """Write notes of a batch that is about to be created; one that is there keeps its own.

        Raises:
            LedgerRefused: one is too large.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        limits.name("batch_id", batch_id)
        for note, text in notes.items():
            checked(note, text)

        def work(connection: Connection) -> None:
            there = select(exists().where(batches.c.batch_id == batch_id))
            if connection.execute(there).scalar():
                return
            for note, text in notes.items():
                self._put(connection, batch_id, note, text)

        await self._database.write(batch_id, work)

    async def keep(self, batch_id: str, note: Note, text: str) -> None:
        """Write a note of a batch, in place of an earlier one; of none that isn't there.

        Raises:
            LedgerRefused: it is too large.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        checked(note, text)

        def work(connection: Connection) -> None:
            there = select(exists().where(batches.c.batch_id == batch_id))
            if connection.execute(there).scalar():
                self._put(connection, batch_id, note, text)

        await self._database.write(batch_id, work)

    async def pass_check(self, batch_id: str, total: int) -> None:
        """Say how many items a batch has whose input is still being read.

        Raises:
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        its = batches.c
        which = (its.batch_id == batch_id, its.status == BatchStatus.VALIDATING)
        statement = update(batches).where(*which).values(total=total)

        def work(connection: Connection) -> None:
            connection.execute(statement)

        await self._database.write(batch_id, work)

    async def fail_check(self, batch_id: str, errors: str, at: datetime) -> None:
        """End a batch whose input can't be used; one that is beyond its check stays as it is.

        Args:
            batch_id: which.
            errors: JSON, told to its owner.
            at: when; with a zone.

        Raises:
            LedgerRefused: they are too large.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        checked("errors", errors)
        limits.instant("at", at)
        its = batches.c
        which = (its.batch_id == batch_id, its.status == BatchStatus.VALIDATING)
        failed = {"status": BatchStatus.FAILED, "ended_at": at}

        def work(connection: Connection) -> None:
            if connection.execute(update(batches).where(*which).values(failed)).rowcount:
                self._put(connection, batch_id, Note.ERRORS, errors)

        await self._database.write(batch_id, work)

    def _put(self, connection: Connection, batch_id: str, note: Note, text: str) -> None:
        its = batch_notes.c
        connection.execute(delete(batch_notes).where(its.batch_id == batch_id, its.part == note))
        body = self._sealing.seal(text.encode())
        connection.execute(insert(batch_notes).values(batch_id=batch_id, part=note, body=body))
