"""What people and models wrote: the only table that holds it, so that it can be erased.

A content is named by its run and its digest. Once a run's contents are erased none is stored for
it again, also not by a writer that was late.
"""

import hashlib
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection, delete, exists, insert, literal, select

from ledger import limits
from ledger.database import Database
from ledger.tables import contents, erasures


class Sealing(Protocol):
    """How contents are encrypted where they lie."""

    def seal(self, body: bytes) -> bytes:
        """Return what is stored."""
        ...

    def unseal(self, stored: bytes) -> bytes:
        """Return what was given to `seal`."""
        ...


class Plain:
    """No encryption."""

    def seal(self, body: bytes) -> bytes:
        """Return the same."""
        return body

    def unseal(self, stored: bytes) -> bytes:
        """Return the same."""
        return stored


def digest_of(text: str) -> str:
    """Return the name of a content: `sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(_bytes(text)).hexdigest()


class Contents:
    """The contents of all runs."""

    def __init__(self, database: Database, sealing: Sealing) -> None:
        """Read and write through this database."""
        self._database = database
        self._sealing = sealing

    async def read(self, run_id: str, digest: str) -> str | None:
        """Return a content; None where it is erased or was never stored.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        return await self._database.read(lambda connection: self.find(connection, run_id, digest))

    def erase(self, connection: Connection, run_id: str, at: datetime) -> int:
        """Remove all contents of a run, within a transaction that has its turn; count them."""
        if not _erased(connection, run_id):
            connection.execute(insert(erasures).values(run_id=run_id, erased_at=at))
        return connection.execute(delete(contents).where(contents.c.run_id == run_id)).rowcount

    def find(self, connection: Connection, run_id: str, digest: str | None) -> str | None:
        """Do as `read` does, within a transaction; without a digest there is nothing."""
        if digest is None:
            return None
        query = select(contents.c.body).where(
            contents.c.run_id == run_id, contents.c.digest == digest
        )
        return self.opened(connection.execute(query).scalar())

    def opened(self, stored: bytes | None) -> str | None:
        """Return the text of what lies there; None where nothing does."""
        if stored is None:
            return None
        return self._sealing.unseal(stored).decode(errors="surrogatepass")

    def keep(self, connection: Connection, run_id: str, text: str, at: datetime) -> str:
        """Store a content within a transaction that has the run's turn; return its digest."""
        digest = digest_of(text)
        there = exists().where(contents.c.run_id == run_id, contents.c.digest == digest)
        erased = exists().where(erasures.c.run_id == run_id)
        values = {
            contents.c.run_id: run_id,
            contents.c.digest: digest,
            contents.c.body: self._sealing.seal(_bytes(text)),
            contents.c.stored_at: at,
        }
        row = select(*(literal(value, column.type) for column, value in values.items()))
        connection.execute(insert(contents).from_select(list(values), row.where(~there, ~erased)))
        return digest


def checked(field: str, text: str | None) -> str | None:
    """Return a content that isn't too large.

    Raises:
        LedgerRefused: it is.
    """
    if text is not None:
        limits.body(field, _bytes(text))
    return text


def _bytes(text: str) -> bytes:
    # A model's broken emoji stands in JSON as half a pair, which strict UTF-8 can't hold.
    return text.encode(errors="surrogatepass")


def _erased(connection: Connection, run_id: str) -> bool:
    query = select(erasures.c.run_id).where(erasures.c.run_id == run_id)
    return connection.execute(query).first() is not None
