"""Uploaded files, in sealed chunks: none is ever held whole, neither on its way in nor out."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, insert, or_, select, update

from ledger import limits
from ledger.contents import Sealing
from ledger.database import Database
from ledger.errors import LedgerRefused
from ledger.tables import file_chunks, files

CHUNK_BYTES = 1024 * 1024
"""Of every chunk but the last."""
MAX_LIMIT = 1000
"""Files on one page."""
STANDING = "schedule"
"""Purpose of files that something reads again and again: their age removes none of them."""

_UNFINISHED_FOR = timedelta(days=1)
_SWEPT_AT_ONCE = 100


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file that is there as a whole."""

    id: str
    owner: str
    filename: str
    purpose: str
    bytes: int
    digest: str
    """Of all its bytes."""
    created_at: datetime
    expires_at: datetime | None = None
    """It is gone from then on; None: it stays until it is deleted."""


class Files:
    """The files of all owners."""

    def __init__(self, database: Database, sealing: Sealing) -> None:
        """Read and write through this database, and encrypt by this."""
        self._database = database
        self._sealing = sealing

    async def begin(self, file_id: str, owner: str, at: datetime) -> "Writing":
        """Make room for a file, which nobody sees before it is whole.

        What uploads that died have left for a day is removed, and files whose time is over.

        Args:
            file_id: a new one.
            owner: whose it will be.
            at: when; with a zone.

        Raises:
            LedgerRefused: something given can't be stored.
            LedgerUnavailable: the ledger doesn't answer.
        """
        limits.name("file_id", file_id)
        limits.text("owner", owner)
        limits.instant("at", at)
        values = {
            "file_id": file_id, "owner": owner, "filename": "", "purpose": "", "bytes": 0,
            "created_at": at,
        }  # fmt: skip

        def work(connection: Connection) -> None:
            if _row(connection, file_id) is None:
                connection.execute(insert(files).values(values))

        # By one at a time: two that remove the same rows might wait for each other.
        await self._database.write("files", lambda connection: _sweep(connection, at))
        await self._database.write(file_id, work)
        return Writing(self._database, self._sealing, file_id)

    async def find(
        self, file_id: str, at: datetime, *, owner: str | None = None
    ) -> StoredFile | None:
        """Return a file; None where there is none, it isn't whole, or it is another owner's.

        Args:
            file_id: which.
            at: when it must not have expired.
            owner: whose; None: anybody's.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """

        def work(connection: Connection) -> StoredFile | None:
            row = _row(connection, file_id)
            if row is None or row.digest is None or owner not in (None, row.owner):
                return None
            return None if _is_over(row, at) else _read(row)

        return await self._database.read(work)

    async def list(
        self,
        at: datetime,
        *,
        owner: str | None = None,
        purpose: str | None = None,
        limit: int = 20,
        after: StoredFile | None = None,
        oldest_first: bool = False,
    ) -> Sequence[StoredFile]:
        """Return whole files by creation.

        Args:
            at: when they must not have expired.
            owner: whose; None: everybody's.
            purpose: what for; None: for anything.
            limit: at most so many, up to 1000.
            after: those that follow it.
            oldest_first: else the newest.

        Raises:
            LedgerRefused: the limit is out of its range.
            LedgerUnavailable: the ledger doesn't answer.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise LedgerRefused(f"limit must be between 1 and {MAX_LIMIT}, got {limit}.")
        its = files.c
        where = [its.digest.is_not(None), or_(its.expires_at.is_(None), its.expires_at > at)]
        if owner is not None:
            where.append(its.owner == owner)
        if purpose is not None:
            where.append(its.purpose == purpose)
        if after is not None:
            same = its.created_at == after.created_at
            if oldest_first:
                beyond = or_(its.created_at > after.created_at, and_(same, its.file_id > after.id))
            else:
                beyond = or_(its.created_at < after.created_at, and_(same, its.file_id < after.id))
            where.append(beyond)
        by = (its.created_at, its.file_id)
        order = by if oldest_first else tuple(column.desc() for column in by)
        query = select(files).where(*where).order_by(*order).limit(limit)
        return await self._database.read(
            lambda connection: [_read(row) for row in connection.execute(query)]
        )

    async def chunk(self, file_id: str, number: int) -> bytes | None:
        """Return one chunk of a file, counted from 0; None after the last one, or of no file.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        its = file_chunks.c
        query = select(its.body).where(its.file_id == file_id, its.number == number)
        found = await self._database.read(lambda connection: connection.execute(query).scalar())
        return None if found is None else self._sealing.unseal(found)

    async def chunks(self, file_id: str) -> AsyncIterator[bytes]:
        """Yield a file's bytes, a chunk at a time.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        number = 0
        while (found := await self.chunk(file_id, number)) is not None:
            yield found
            number += 1

    async def set_expiry(self, file_id: str, expires_at: datetime | None) -> bool:
        """Say until when a file stays; return whether there is one that is whole.

        Args:
            file_id: which.
            expires_at: with a zone; None: it stays until it is deleted.

        Raises:
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        its = files.c
        which = (its.file_id == file_id, its.digest.is_not(None))
        statement = update(files).where(*which).values(expires_at=expires_at)
        return await self._database.write(
            file_id, lambda connection: bool(connection.execute(statement).rowcount)
        )

    async def delete(self, file_id: str) -> bool:
        """Remove a file, whole or not; return whether it was there.

        Raises:
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        found = await self._database.write(
            file_id, lambda connection: _remove(connection, [file_id])
        )
        await self._database.sweep()
        return bool(found)


async def remove_files(database: Database, until: datetime) -> int:
    """Remove files made before then, but for standing ones; return how many.

    Raises:
        LedgerUnavailable: the ledger doesn't answer; the same call again goes on.
    """
    removed = 0
    old = (
        select(files.c.file_id)
        .where(files.c.created_at < until, files.c.purpose != STANDING)
        .limit(_SWEPT_AT_ONCE)
    )

    def work(connection: Connection) -> int:
        return _remove(connection, connection.execute(old).scalars().all())

    while count := await database.write("files", work):
        removed += count
    return removed


class Writing:
    """A file on its way in."""

    def __init__(self, database: Database, sealing: Sealing, file_id: str) -> None:
        """Use `Files.begin`."""
        self.file_id = file_id
        self.size = 0
        self._database = database
        self._sealing = sealing
        self._hash = hashlib.sha256()
        self._held = bytearray()
        self._number = 0

    async def write(self, data: bytes | memoryview) -> None:
        """Add bytes, which reach the ledger by whole chunks.

        Raises:
            LedgerRefused: the file was removed meanwhile.
            LedgerUnavailable: the ledger doesn't answer: begin anew.
        """
        self._hash.update(data)
        self.size += len(data)
        self._held += data
        while len(self._held) >= CHUNK_BYTES:
            await self._put(bytes(self._held[:CHUNK_BYTES]))
            del self._held[:CHUNK_BYTES]

    async def finish(
        self, *, filename: str, purpose: str, expires_at: datetime | None = None
    ) -> StoredFile:
        """Let everybody see the file, whole; return it.

        Args:
            filename: as its owner calls it.
            purpose: what it is for.
            expires_at: with a zone; from then on it is gone.

        Raises:
            LedgerRefused: a name can't be stored, or the file was removed meanwhile.
            LedgerUnavailable: the ledger doesn't answer: begin anew.
        """
        limits.name("filename", filename)
        limits.name("purpose", purpose)
        if self._held:
            await self._put(bytes(self._held))
            self._held.clear()
        values = {
            "filename": filename, "purpose": purpose, "expires_at": expires_at,
            "bytes": self.size, "digest": "sha256:" + self._hash.hexdigest(),
        }  # fmt: skip

        def work(connection: Connection) -> StoredFile:
            _standing(connection, self.file_id)
            connection.execute(update(files).where(files.c.file_id == self.file_id).values(values))
            return _read(_standing(connection, self.file_id))

        return await self._database.write(self.file_id, work)

    async def _put(self, body: bytes) -> None:
        values = {
            "file_id": self.file_id, "number": self._number, "body": self._sealing.seal(body)
        }  # fmt: skip

        def work(connection: Connection) -> None:
            _standing(connection, self.file_id)
            connection.execute(insert(file_chunks).values(values))

        await self._database.write(self.file_id, work)
        self._number += 1


def _row(connection: Connection, file_id: str) -> Row[Any] | None:
    return connection.execute(select(files).where(files.c.file_id == file_id)).first()


def _standing(connection: Connection, file_id: str) -> Row[Any]:
    row = _row(connection, file_id)
    if row is None:
        raise LedgerRefused(f"{file_id} was removed while it was written.")
    return row


def _read(row: Row[Any]) -> StoredFile:
    found = dict(row._mapping)
    return StoredFile(id=found.pop("file_id"), **found)


def _is_over(row: Row[Any], at: datetime) -> bool:
    return row.expires_at is not None and bool(row.expires_at <= at)


def _sweep(connection: Connection, at: datetime) -> None:
    its = files.c
    unfinished = and_(its.digest.is_(None), its.created_at < at - _UNFINISHED_FOR)
    query = select(its.file_id).where(or_(unfinished, its.expires_at <= at))
    _remove(connection, connection.execute(query.limit(_SWEPT_AT_ONCE)).scalars().all())


def _remove(connection: Connection, file_ids: Sequence[str]) -> int:
    connection.execute(delete(file_chunks).where(file_chunks.c.file_id.in_(file_ids)))
    return connection.execute(delete(files).where(files.c.file_id.in_(file_ids))).rowcount
