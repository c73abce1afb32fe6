"""The way to the database: connections, transactions, and errors that say what to do.

Everything runs in threads of its own, so that a waiting disk or server holds up no event loop.
All writes of one run take turns, on any number of machines: in PostgreSQL by an advisory lock, in
SQLite because there is only one writer. So a write may look first and then act.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from ledger.engines import make_engine
from ledger.errors import LedgerError, LedgerUnavailable
from ledger.location import Location

READERS = 4
WRITERS = 8
"""Connections to PostgreSQL that write at a time; SQLite has one."""

_T = TypeVar("_T")


class Database:
    """One ledger's connections."""

    def __init__(self, location: Location) -> None:
        """Connect to nothing yet.

        Raises:
            LedgerError: the driver for PostgreSQL isn't installed.
        """
        self.location = location
        self._writers = 1 if location.is_sqlite else WRITERS
        self._engine = make_engine(location, connections=self._writers + READERS)
        self._writing = self._engine.execution_options(writes=True)
        # SQLite's transactions see one state of the ledger as they are.
        one_state = {} if location.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        self._reading = self._engine.execution_options(**one_state)
        self._write_threads = ThreadPoolExecutor(self._writers, "ledger-write")
        self._read_threads = ThreadPoolExecutor(READERS, "ledger-read")
        self._closed = False

    async def read(self, work: Callable[[Connection], _T]) -> _T:
        """Do `work` in a transaction of its own that sees one state of the ledger.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        return await self._in(self._read_threads, partial(self._do, self._reading, None, work))

    async def write(self, turn: str, work: Callable[[Connection], _T]) -> _T:
        """Do `work` in a transaction of its own, alone among all that name the same turn.

        It is committed when this returns. Whoever is cancelled meanwhile doesn't know whether it
        was, so `work` must be such that it can be done again.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        return await self._in(self._write_threads, partial(self._do, self._writing, turn, work))

    async def sweep(self) -> None:
        """Overwrite in SQLite's own files what has been deleted; PostgreSQL does so by itself.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        if self.location.is_sqlite:
            await self._in(self._write_threads, self._sweep)

    async def close(self) -> None:
        """Give up every connection, once what is being done is done."""
        self._closed = True
        await asyncio.to_thread(self._close)

    async def _in(self, threads: ThreadPoolExecutor, job: Callable[[], _T]) -> _T:
        if self._closed:
            # By a worker that ends, while what it has left still writes.
            raise LedgerUnavailable(f"{self.location} is closed.")
        return await asyncio.get_running_loop().run_in_executor(threads, job)

    def _do(self, engine: Engine, turn: str | None, work: Callable[[Connection], _T]) -> _T:
        with self._told(), engine.begin() as connection:
            if turn is not None:
                take_turn(connection, turn)
            return work(connection)

    def _sweep(self) -> None:
        with self._told():
            raw = self._engine.raw_connection()
            try:
                raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                raw.close()

    def _close(self) -> None:
        self._write_threads.shutdown(cancel_futures=True)
        self._read_threads.shutdown(cancel_futures=True)
        with self._told():
            self._engine.dispose()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            # The driver's own error may hold a row's contents: it doesn't go into the chain.
            raise _explained(self.location, error) from None


def take_turn(connection: Connection, turn: str) -> None:
    """Wait, in a transaction that writes, until no other one has this turn; SQLite has one for all.

    A second turn may be taken only in the order run, then key: else two wait for each other.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(select(func.pg_advisory_xact_lock(_lock_number(turn))))


def _lock_number(turn: str) -> int:
    digest = hashlib.sha256(turn.encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _explained(location: Location, error: SQLAlchemyError) -> LedgerError:
    original = error.orig if isinstance(error, DBAPIError) else None
    name = type(original or error).__name__
    code = getattr(original, "sqlite_errorname", None) or getattr(original, "sqlstate", None)
    if isinstance(error, DataError | IntegrityError):
        return LedgerError(f"{location} refused what was to be written ({name}, {code}).")
    reason = f"{name}, {code}" if code else name
    if code is None and original is not None:
        # Before there is a connection no contents can stand in the text; a password might.
        said = " ".join(str(original).split())
        password = str(location.url.password or "")
        reason = f"{name}: {said.replace(password, '***') if password else said}"
    return LedgerUnavailable(f"{location} can't be used now ({reason}).")


def make_private(location: Location) -> None:
    """Make a ledger's file for its owner alone; SQLite gives its other files the same mode.

    Raises:
        LedgerUnavailable: the directory can't be written.
    """
    try:
        location.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(location.file, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise LedgerUnavailable(f"{location} can't be made: {error.strerror}.") from None
