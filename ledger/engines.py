"""SQLAlchemy's engines, set so that nothing waits without an end and nothing written is lost."""

import sqlite3
import time
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.pool import ConnectionPoolEntry

from ledger.errors import LedgerError
from ledger.location import Location

BUSY_SECONDS = 20
"""How long a writer waits for the others of a SQLite file, or for a row's lock."""
ANSWER_SECONDS = 30
"""How long PostgreSQL may take for one statement, lock included."""
CONNECT_SECONDS = 5

_PRAGMAS = (
    f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}",
    "PRAGMA foreign_keys = ON",
    # An intent must outlive a power cut, not only a crash of ours: NORMAL would lose the last ones.
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",
)


def make_engine(location: Location, *, connections: int) -> Engine:
    """Return an engine that opens at most so many connections, and none before the first is used.

    Raises:
        LedgerError: the driver for PostgreSQL isn't installed.
    """
    make = _sqlite if location.is_sqlite else _postgres
    return make(location, connections)


def _sqlite(location: Location, connections: int) -> Engine:
    engine = create_engine(
        location.url,
        hide_parameters=True,
        pool_size=connections,
        max_overflow=0,
        connect_args={"timeout": BUSY_SECONDS},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        # The driver would begin a transaction only before the first change, and none before DDL.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(pragma)
        _write_ahead(cursor)
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and then writes can't wait for its turn any more.
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _write_ahead(cursor: Any) -> None:
    """Set the journal's mode, which stays with the file; the busy timeout doesn't cover this."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


def _postgres(location: Location, connections: int) -> Engine:
    try:
        from ledger.postgres import PatientConnection  # noqa: PLC0415 # psycopg is an extra
    except ImportError:
        raise LedgerError(
            "A ledger in PostgreSQL needs psycopg: pip install 'runlane[postgres]'"
        ) from None
    engine = create_engine(
        location.url,
        hide_parameters=True,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=ANSWER_SECONDS,
        # A connection that the server has closed meanwhile is found out before it is used.
        pool_pre_ping=True,
        connect_args={
            "application_name": "runlane",
            "connect_timeout": CONNECT_SECONDS,
            # A pooler between us gives each transaction another connection.
            "prepare_threshold": None,
        },
    )

    @event.listens_for(engine, "do_connect")
    def connect(
        _dialect: Dialect, _entry: ConnectionPoolEntry, words: Any, options: Any
    ) -> DBAPIConnection:
        return PatientConnection.connect(*words, **options)  # type: ignore[return-value] # psycopg's own class

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        cursor.execute(
            f"SET lock_timeout = '{BUSY_SECONDS}s'; SET statement_timeout = '{ANSWER_SECONDS}s'; "
            # A machine that freezes in the middle must not hold a run's turn for ever.
            f"SET idle_in_transaction_session_timeout = '{ANSWER_SECONDS}s'"
        )
        cursor.close()
        connection.commit()

    return engine
