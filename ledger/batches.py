"""The batches that the ledger knows; their items are in `batch_items`."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, insert, or_, select, update

from ledger import limits
from ledger.audit import Appending
from ledger.batch_counting import count
from ledger.batch_record import ENDS, BatchCounts, BatchRecord, BatchStatus, from_columns
from ledger.batch_results import has_unfinished
from ledger.batch_writes import TOKENS
from ledger.chain import Event
from ledger.contents import Contents
from ledger.database import Database, take_turn
from ledger.errors import BatchNotKnown, BatchTaken, LedgerRefused
from ledger.stops import TRAIL
from ledger.tables import batches

MAX_LIMIT = 100
"""Batches on one page."""


class Batches:
    """The batches of all owners.

    Events given with a change are for the trail `ledger.stops.TRAIL`, written with it, and only
    where there is one.
    """

    def __init__(self, database: Database, contents: Contents) -> None:
        """Read and write through this database."""
        self._database = database
        self._contents = contents

    async def create(self, record: BatchRecord, events: Sequence[Event] = ()) -> BatchRecord:
        """Write a batch, and return what stands; one of the same name and input stands as it is.

        Args:
            record: the batch, with status `validating` until its items are added.
            events: see the class.

        Raises:
            BatchTaken: the owner has a batch of this name with another input.
            LedgerRefused: something given can't be stored.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        record.check()
        appending = Appending(TRAIL, events)

        def work(connection: Connection) -> BatchRecord:
            named = and_(batches.c.owner == record.owner, batches.c.name == record.name)
            other = connection.execute(
                select(batches.c.batch_id)
                .where(named, batches.c.input_digest != record.input_digest)
                .limit(1)
            ).scalar()
            if other is not None:
                raise BatchTaken(record.name, other)
            there = _row(connection, record.id)
            if there is not None:
                return _read(there)
            connection.execute(insert(batches).values(_new(record)))
            self._append(connection, appending)
            return _standing(connection, record.id)

        return await self._database.write(f"batch\0{record.owner}\0{record.name}", work)

    async def find(self, batch_id: str, *, owner: str | None = None) -> BatchRecord | None:
        """Return a batch; None where there is none, or another owner's.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        mine = [] if owner is None else [batches.c.owner == owner]
        return await self._first(select(batches).where(batches.c.batch_id == batch_id, *mine))

    async def by_name(self, owner: str, name: str) -> BatchRecord | None:
        """Return an owner's latest batch of a name; None where there is none.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        named = select(batches).where(batches.c.owner == owner, batches.c.name == name)
        return await self._first(named.order_by(batches.c.generation.desc()).limit(1))

    async def list(
        self, owner: str | None = None, *, limit: int = 20, after: str | None = None
    ) -> Sequence[BatchRecord]:
        """Return batches, the newest first.

        Args:
            owner: whose; None: everybody's.
            limit: at most so many, up to 100.
            after: a batch's id: those that follow it.

        Raises:
            BatchNotKnown: `after` names a batch that isn't there, or another owner's.
            LedgerRefused: the limit is out of its range.
            LedgerUnavailable: the ledger doesn't answer.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise LedgerRefused(f"limit must be between 1 and {MAX_LIMIT}, got {limit}.")

        def work(connection: Connection) -> Sequence[BatchRecord]:
            where = [] if owner is None else [batches.c.owner == owner]
            if after is not None:
                place = _row(connection, after)
                if place is None or owner not in (None, place.owner):
                    raise BatchNotKnown(after)
                where.append(_before(place))
            order = (batches.c.created_at.desc(), batches.c.batch_id.desc())
            found = select(batches).where(*where).order_by(*order).limit(limit)
            return [_read(row) for row in connection.execute(found)]

        return await self._database.read(work)

    async def set_status(
        self, batch_id: str, status: BatchStatus, at: datetime, events: Sequence[Event] = ()
    ) -> BatchRecord:
        """Say how far a batch has come; return what stands.

        An end stands, and none but `failed` is written while an item is unfinished. After
        `cancelling` only an end counts.

        Args:
            batch_id: which.
            status: the new one.
            at: when; with a zone.
            events: see the class.

        Raises:
            BatchNotKnown: there is no such batch.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        limits.instant("at", at)
        appending = Appending(TRAIL, events)

        def work(connection: Connection) -> BatchRecord:
            there = _standing(connection, batch_id)
            if not _may_follow(connection, there, status):
                return there
            values: dict[str, Any] = {"status": status}
            if status is BatchStatus.IN_PROGRESS and there.started_at is None:
                values["started_at"] = at
            if status.is_end:
                values.update(ended_at=at, **_NOT_PAUSED)
            _put(connection, batch_id, values)
            self._append(connection, appending)
            return _standing(connection, batch_id)

        return await self._database.write(batch_id, work)

    async def pause(
        self, batch_id: str, reason: str, by: str, at: datetime, events: Sequence[Event] = ()
    ) -> BatchRecord:
        """Let nothing new begin; return what stands, which may be an earlier pause.

        Args:
            batch_id: which.
            reason: for people to read; no content.
            by: the person, or the part of Runlane.
            at: when; with a zone.
            events: see the class.

        Raises:
            BatchNotKnown: there is no such batch.
            LedgerRefused: something given can't be stored.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        limits.name("reason", reason)
        limits.name("by", by)
        limits.instant("at", at)
        paused = {"paused_reason": reason, "paused_by": by, "paused_at": at}
        return await self._pausing(batch_id, paused, Appending(TRAIL, events))

    async def resume(self, batch_id: str, events: Sequence[Event] = ()) -> BatchRecord:
        """End a pause, where there is one; return what stands.

        Raises:
            BatchNotKnown: there is no such batch.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        return await self._pausing(batch_id, _NOT_PAUSED, Appending(TRAIL, events))

    async def pause_spent(
        self, batch_id: str, reason: str, by: str, at: datetime, events: Sequence[Event] = ()
    ) -> BatchRecord:
        """Do as `pause`, where a budget is used up: it may have been raised meanwhile."""
        limits.name("reason", reason)
        limits.name("by", by)
        limits.instant("at", at)
        paused = {"paused_reason": reason, "paused_by": by, "paused_at": at}
        return await self._pausing(batch_id, paused, Appending(TRAIL, events), if_spent=True)

    async def set_limits(
        self, batch_id: str, *, tokens: int | None = None, cost: Decimal | None = None
    ) -> BatchRecord:
        """Give a batch other budgets; return what stands. One that was paused stays so.

        Args:
            batch_id: which.
            tokens: in all, those used included; None: as it was.
            cost: likewise, of all tokens.

        Raises:
            BatchNotKnown: there is no such batch.
            LedgerRefused: a limit can't be used, or the batch has no prices.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        given = {"token_limit": tokens, "cost_limit": cost}
        values: dict[str, Any] = {name: limit for name, limit in given.items() if limit is not None}

        def work(connection: Connection) -> BatchRecord:
            there = _standing(connection, batch_id)
            changed = replace(there, **values)
            changed.check()
            if values:
                _put(connection, batch_id, values)
            return changed

        return await self._database.write(batch_id, work)

    async def hold(self, batch_id: str, until: datetime) -> None:
        """Let all lanes leave the upstream alone until then; a later time that stands stays.

        Raises:
            LedgerRefused: the time can't be stored.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        limits.instant("until", until)
        its = batches.c
        earlier = or_(its.held_until.is_(None), its.held_until < until)
        statement = update(batches).where(its.batch_id == batch_id, earlier)

        def work(connection: Connection) -> None:
            connection.execute(statement.values(held_until=until))

        await self._database.write(batch_id, work)

    async def counts(self, batch_id: str) -> BatchCounts:
        """Count a batch's items by where they stand; of a batch that isn't there, none.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        return await self._database.read(lambda connection: count(connection, batch_id))

    async def _pausing(
        self,
        batch_id: str,
        values: dict[str, Any],
        appending: Appending,
        *,
        if_spent: bool = False,
    ) -> BatchRecord:
        def work(connection: Connection) -> BatchRecord:
            there = _standing(connection, batch_id)
            is_so = (there.paused_at is not None) == (values["paused_at"] is not None)
            if there.status.is_end or is_so or (if_spent and not there.is_spent):
                return there
            _put(connection, batch_id, values)
            self._append(connection, appending)
            return _standing(connection, batch_id)

        return await self._database.write(batch_id, work)

    def _append(self, connection: Connection, appending: Appending) -> None:
        # The batch's turn is taken before that of the trail, everywhere.
        take_turn(connection, TRAIL)
        appending.write(connection, self._contents)

    async def _first(self, query: Any) -> BatchRecord | None:
        def work(connection: Connection) -> BatchRecord | None:
            row = connection.execute(query).first()
            return None if row is None else _read(row)

        return await self._database.read(work)


_NOT_PAUSED = {"paused_reason": None, "paused_by": None, "paused_at": None}


def _may_follow(connection: Connection, there: BatchRecord, status: BatchStatus) -> bool:
    if there.status in ENDS or status is there.status:
        return False
    if status.is_end and status is not BatchStatus.FAILED:
        return not has_unfinished(connection, there.id)
    return there.status is not BatchStatus.CANCELLING or status.is_end


def _new(record: BatchRecord) -> dict[str, Any]:
    names = (
        "owner", "name", "generation", "input_digest", "status", "total", "deadline",
        "token_limit", "cost_limit", "created_at",
    )  # fmt: skip
    values = {name: getattr(record, name) for name in names}
    values["options"] = json.dumps(record.options)
    return {**values, "batch_id": record.id, "last_seq": 0, **dict.fromkeys(TOKENS, 0)}


def _put(connection: Connection, batch_id: str, values: dict[str, Any]) -> None:
    connection.execute(update(batches).where(batches.c.batch_id == batch_id).values(values))


def _row(connection: Connection, batch_id: str) -> Row[Any] | None:
    return connection.execute(select(batches).where(batches.c.batch_id == batch_id)).first()


def _standing(connection: Connection, batch_id: str) -> BatchRecord:
    row = _row(connection, batch_id)
    if row is None:
        raise BatchNotKnown(batch_id)
    return _read(row)


def _read(row: Row[Any]) -> BatchRecord:
    return from_columns(dict(row._mapping))


def _before(place: Row[Any]) -> ColumnElement[bool]:
    at, its = batches.c.created_at, batches.c.batch_id
    return or_(at < place.created_at, and_(at == place.created_at, its < place.batch_id))
