"""A connection to PostgreSQL that doesn't wait for ever. Imports psycopg, which is an extra."""

from typing import Any, TypeVar

from psycopg import Connection, OperationalError
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

_T = TypeVar("_T")

WAIT_SECONDS = 40.0
"""Longer than the server's own limits: this ends only what the server no longer ends."""


class PatientConnection(Connection[Any]):
    """Gives up a server that is frozen, or a network that swallows what is sent."""

    def wait(self, gen: PQGen[_T], interval: float = 0.1, timeout: float | None = None) -> _T:
        """Wait as psycopg does, but not longer than `WAIT_SECONDS` for one answer."""
        try:
            return super().wait(gen, interval, timeout or WAIT_SECONDS)
        except OperationalError:
            if timeout is not None or self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            # The answer may still come, and would be taken for that of the next statement.
            self.pgconn.finish()
            raise OperationalError(f"no answer within {WAIT_SECONDS:g} s") from None
