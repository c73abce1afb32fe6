"""The turns of a batch's requests, which all its lanes share: each is given out once.

They stand by the database's clock, so that machines whose clocks differ don't come together.
"""

import time
from collections.abc import Sequence

from sqlalchemy import BigInteger, Connection, cast, func, insert, select, update

from ledger.database import Database
from ledger.tables import batch_paces

_SECOND = 1_000_000
_AHEAD = 120 * _SECOND
_AHEAD_TURNS = 200
"""How far ahead turns stand at the most: a clock that was set back holds nobody up for longer."""


class BatchPaces:
    """The paces of all batches."""

    def __init__(self, database: Database) -> None:
        """Read and write through this database."""
        self._database = database

    async def take(
        self, batch_id: str, turns: int, *, interval: float, lead: float = 0.0
    ) -> Sequence[float]:
        """Take turns that nobody else has, one after another; unused ones are lost.

        Args:
            batch_id: which.
            turns: how many.
            interval: seconds between two of them, whoever takes them.
            lead: seconds from now before which none can be used.

        Returns:
            When they are, by this process's `time.monotonic()`.

        Raises:
            LedgerUnavailable: the ledger doesn't answer; some may be lost.
        """
        gap = max(round(interval * _SECOND), 1)

        def work(connection: Connection) -> Sequence[float]:
            its = batch_paces.c
            query = select(its.next_at).where(its.batch_id == batch_id)
            next_at = connection.execute(query).scalar()
            now = _now(connection)
            here = time.monotonic()
            first = now + round(lead * _SECOND)
            if next_at is not None:
                latest = first + _AHEAD + _AHEAD_TURNS * gap
                first = min(max(first, next_at), latest)
            after = first + turns * gap
            if next_at is None:
                connection.execute(insert(batch_paces).values(batch_id=batch_id, next_at=after))
            else:
                mine = update(batch_paces).where(its.batch_id == batch_id)
                connection.execute(mine.values(next_at=after))
            return [here + (first - now + number * gap) / _SECOND for number in range(turns)]

        # A turn of its own: the batch's may be taken by a long write.
        return await self._database.write(f"pace\0{batch_id}", work)


def _now(connection: Connection) -> int:
    """Return the database's time in microseconds since 1970."""
    if connection.dialect.name == "sqlite":
        # It has one machine, and that has one clock.
        return time.time_ns() // 1_000
    seconds = func.extract("epoch", func.clock_timestamp())
    return connection.execute(select(cast(seconds * _SECOND, BigInteger))).scalar_one()
