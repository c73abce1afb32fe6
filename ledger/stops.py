"""Stops: what somebody has ordered not to be begun, until it is resumed.

Whoever is about to act asks right before it, each time. So a stop holds on every machine from the
moment it is written, and over any restart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, insert, or_, select

from ledger import limits
from ledger.audit import Appending
from ledger.chain import Event
from ledger.contents import Contents
from ledger.database import Database
from ledger.tables import stops

TRAIL = "control"
"""Whose audit trail it is where it isn't a run's: stops and resumes, and tokens."""


class Scope(StrEnum):
    """What a stop is about; the order is that in which a stopped call names its stop."""

    ALL = "all"
    RUN = "run"
    TOOL = "tool"


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A stop that stands, or is about to."""

    scope: Scope
    target: str = ""
    """The run's id or the tool's name; empty with `all`."""
    by: str
    """The person."""
    reason: str
    since: datetime
    """With a zone."""

    def __post_init__(self) -> None:
        """Refuse what can't be stored.

        Raises:
            LedgerRefused: the field and its limit are named.
        """
        named = limits.text if self.scope is Scope.ALL else limits.name
        named("target", self.target)
        limits.name("by", self.by)
        limits.name("reason", self.reason)
        limits.instant("since", self.since)

    def __str__(self) -> str:
        """Return what it is about: `everything`, `tool refund`, `run run_1`."""
        return "everything" if self.scope is Scope.ALL else f"{self.scope} {self.target}"


class Stops:
    """The stops that stand."""

    def __init__(self, database: Database, contents: Contents) -> None:
        """Read and write through this database."""
        self._database = database
        self._contents = contents

    async def stop(self, wanted: Stop, events: Sequence[Event] = ()) -> Stop:
        """Order a stop; return the one that stands, which may be an earlier one of the same scope.

        Args:
            wanted: the stop.
            events: for the trail `TRAIL`, written with it, and only where it is new.

        Raises:
            LedgerRefused: an event can't be stored.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        appending = Appending(TRAIL, events)

        def work(connection: Connection) -> Stop:
            there = connection.execute(select(stops).where(_is(wanted.scope, wanted.target)))
            found = there.first()
            if found is not None:
                return _read(found)
            values = {
                "scope": wanted.scope.value, "target": wanted.target, "by": wanted.by,
                "reason": wanted.reason, "since": wanted.since,
            }  # fmt: skip
            connection.execute(insert(stops).values(values))
            appending.write(connection, self._contents)
            return wanted

        return await self._database.write(TRAIL, work)

    async def resume(
        self, scope: Scope, target: str = "", events: Sequence[Event] = ()
    ) -> Stop | None:
        """End a stop and return it; None where there is none.

        Args:
            scope: of the stop.
            target: of the stop.
            events: for the trail `TRAIL`, written with it, and only where there was a stop.

        Raises:
            LedgerRefused: an event can't be stored.
            LedgerUnavailable: the ledger doesn't answer; whether the stop ended is then not known.
        """
        appending = Appending(TRAIL, events)

        def work(connection: Connection) -> Stop | None:
            found = connection.execute(select(stops).where(_is(scope, target))).first()
            if found is None:
                return None
            connection.execute(delete(stops).where(_is(scope, target)))
            appending.write(connection, self._contents)
            return _read(found)

        return await self._database.write(TRAIL, work)

    async def standing(self) -> list[Stop]:
        """Return all stops that stand, the oldest first.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        query = select(stops).order_by(stops.c.since, stops.c.scope, stops.c.target)
        return await self._database.read(
            lambda connection: [_read(found) for found in connection.execute(query)]
        )

    async def against(self, run_id: str, tool: str | None = None) -> Stop | None:
        """Return a stop by which a run must not act now, or not run this tool.

        Args:
            run_id: ours.
            tool: its name, where one is to run.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        asked = [_is(Scope.ALL, ""), _is(Scope.RUN, run_id)]
        if tool is not None:
            asked.append(_is(Scope.TOOL, tool))

        def work(connection: Connection) -> Stop | None:
            found = [_read(each) for each in connection.execute(select(stops).where(or_(*asked)))]
            return min(found, key=lambda stop: list(Scope).index(stop.scope), default=None)

        return await self._database.read(work)


def _is(scope: Scope, target: str) -> Any:
    return and_(stops.c.scope == scope.value, stops.c.target == target)


def _read(row: Row[Any]) -> Stop:
    return Stop(
        scope=Scope(row.scope), target=row.target, by=row.by, reason=row.reason, since=row.since
    )
