"""The runs that the ledger knows: listed at any age, and found by their idempotency keys."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, insert, or_, select, update

from ledger import limits
from ledger.audit import Appending
from ledger.chain import Event
from ledger.contents import Contents, checked
from ledger.database import Database, take_turn
from ledger.errors import KeyTaken, RunNotKnown
from ledger.run_record import RecordPage, RunQuery, RunRecord, Usage
from ledger.tables import recorded, runs

_AT_ONCE = 500
_KNOWN_ONCE = ("prompt_tokens", "completion_tokens", "total_tokens", "contents_digest")


class Runs:
    """The runs of all owners."""

    def __init__(self, database: Database, contents: Contents) -> None:
        """Read and write through this database."""
        self._database = database
        self._contents = contents

    async def record(self, record: RunRecord, events: Sequence[Event] = ()) -> RunRecord:
        """Write what is known of a run; return what stands.

        Owner, key, thread, assistant and creation are those of the first record. An end stands:
        a later record can only add usage and contents to it.

        Args:
            record: the run.
            events: for the audit trail, written with it.

        Raises:
            KeyTaken: the owner's key belongs to another run.
            LedgerRefused: something given can't be stored.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        record.check()
        checked("contents", record.contents)
        appending = Appending(record.run_id, events)

        def work(connection: Connection) -> RunRecord:
            there = _row(connection, record.run_id)
            values = self._changing(connection, record)
            if there is None:
                _claim_key(connection, record)
                connection.execute(insert(runs).values(**_fixed(record), **values))
            else:
                _update(connection, there, values)
            appending.write(connection, self._contents)
            row = _row(connection, record.run_id)
            assert row is not None
            return self._read(connection, row)

        return await self._database.write(record.run_id, work)

    async def find(self, run_id: str, *, owner: str | None = None) -> RunRecord | None:
        """Return a run with its contents; None where there is none, or another owner's.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        mine = [] if owner is None else [runs.c.owner == owner]
        return await self._one(and_(runs.c.run_id == run_id, *mine))

    async def find_key(self, owner: str, idempotency_key: str) -> RunRecord | None:
        """Return the run that an owner's key stands for; None where it is not known.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        its = and_(runs.c.owner == owner, runs.c.idempotency_key == idempotency_key)
        return await self._one(its)

    async def list(self, query: RunQuery) -> RecordPage:
        """Return a page of runs, without their contents.

        Raises:
            RunNotKnown: `after` or `before` names a run that isn't there, or another owner's.
            LedgerRefused: a parameter is out of its range.
            LedgerUnavailable: the ledger doesn't answer.
        """
        query.check()
        return await self._database.read(lambda connection: _page(connection, query))

    async def of_thread(self, thread_id: str, *, owner: str | None = None) -> Sequence[str]:
        """Return the ids of all runs of a thread, oldest first.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        found = select(runs.c.run_id).where(runs.c.thread_id == thread_id)
        if owner is not None:
            found = found.where(runs.c.owner == owner)
        found = found.order_by(runs.c.created_at, runs.c.run_id)
        return await self._ids(found)

    async def ended(self, run_ids: Sequence[str]) -> set[str]:
        """Return those of the runs whose end stands here.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        found = set[str]()
        for start in range(0, len(run_ids), _AT_ONCE):
            query = select(runs.c.run_id).where(
                runs.c.run_id.in_(run_ids[start : start + _AT_ONCE]), runs.c.ended_at.is_not(None)
            )
            found.update(await self._ids(query))
        return found

    async def recorded_until(self, source: str) -> datetime | None:
        """Return up to when the ends of a source's runs are recorded; None: nobody has said.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        query = select(recorded.c.until).where(recorded.c.source == source)
        return await self._database.read(lambda connection: connection.execute(query).scalar())

    async def set_recorded_until(self, source: str, until: datetime) -> None:
        """Say up to when the ends of a source's runs are recorded; the latest word stands.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        until = limits.instant("until", until)
        limits.name("source", source)

        def work(connection: Connection) -> None:
            its = recorded.c.source == source
            there = connection.execute(select(recorded.c.until).where(its)).scalar()
            if there is None:
                connection.execute(insert(recorded).values(source=source, until=until))
            elif there < until:
                connection.execute(update(recorded).where(its).values(until=until))

        await self._database.write(f"recorded\0{source}", work)

    async def _ids(self, query: Select[str]) -> Sequence[str]:
        return await self._database.read(
            lambda connection: connection.execute(query).scalars().all()
        )

    async def _one(self, which: ColumnElement[bool]) -> RunRecord | None:
        def work(connection: Connection) -> RunRecord | None:
            row = connection.execute(select(runs).where(which)).first()
            return None if row is None else self._read(connection, row)

        return await self._database.read(work)

    def _read(self, connection: Connection, row: Row[Any]) -> RunRecord:
        text = self._contents.find(connection, row.run_id, row.contents_digest)
        return replace(_record(row), contents=text)

    def _changing(self, connection: Connection, record: RunRecord) -> dict[str, Any]:
        usage, digest = record.usage, None
        if record.contents is not None:
            digest = self._contents.keep(connection, record.run_id, record.contents, limits.now())
        return {
            "status": record.status,
            "updated_at": record.updated_at,
            "ended_at": record.ended_at,
            "prompt_tokens": usage and usage.prompt_tokens,
            "completion_tokens": usage and usage.completion_tokens,
            "total_tokens": usage and usage.total_tokens,
            "contents_digest": digest,
        }


def _fixed(record: RunRecord) -> dict[str, Any]:
    names = (
        "run_id", "owner", "idempotency_key", "request_digest", "thread_id", "assistant_id",
        "created_at",
    )  # fmt: skip
    return {name: getattr(record, name) for name in names}


def _claim_key(connection: Connection, record: RunRecord) -> None:
    if record.idempotency_key is None:
        return
    take_turn(connection, f"key\0{record.owner}\0{record.idempotency_key}")
    taken = select(runs.c.run_id).where(
        runs.c.owner == record.owner, runs.c.idempotency_key == record.idempotency_key
    )
    other = connection.execute(taken).scalar()
    if other is not None:
        raise KeyTaken(record.run_id, other)


def _update(connection: Connection, there: Row[Any], values: dict[str, Any]) -> None:
    known = {name: value for name, value in values.items() if value is not None}
    if there.ended_at is not None:
        known = {name: known[name] for name in _KNOWN_ONCE if name in known}
        known = {name: value for name, value in known.items() if getattr(there, name) is None}
    elif values["ended_at"] is None and values["updated_at"] < there.updated_at:
        known = {}
    if known:
        connection.execute(update(runs).where(runs.c.run_id == there.run_id).values(known))


def _row(connection: Connection, run_id: str) -> Row[Any] | None:
    return connection.execute(select(runs).where(runs.c.run_id == run_id)).first()


def _record(row: Row[Any]) -> RunRecord:
    names = (
        "run_id", "owner", "idempotency_key", "request_digest", "thread_id", "assistant_id",
        "status", "created_at", "updated_at", "ended_at", "contents_digest",
    )  # fmt: skip
    usage = None
    if row.total_tokens is not None:
        usage = Usage(
            prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens,
            total_tokens=row.total_tokens,
        )
    return RunRecord(usage=usage, **{name: getattr(row, name) for name in names})


def _page(connection: Connection, query: RunQuery) -> RecordPage:
    where = [
        getattr(runs.c, name) == getattr(query, name)
        for name in ("owner", "thread_id", "assistant_id", "status")
        if getattr(query, name) is not None
    ]
    if query.created_from is not None:
        where.append(runs.c.created_at >= query.created_from)
    if query.created_until is not None:
        where.append(runs.c.created_at < query.created_until)
    # The page before a run is nearest to it: read away from it, and turn the page round.
    backwards = query.before is not None and query.after is None
    descending = (query.order == "desc") != backwards
    for field, follows in (("after", True), ("before", False)):
        run_id = getattr(query, field)
        if run_id is not None:
            place = _row(connection, run_id)
            if place is None or query.owner not in (None, place.owner):
                raise RunNotKnown(field, run_id)
            where.append(_beyond(place, newer=follows == (query.order == "asc")))
    columns = [runs.c.created_at, runs.c.run_id]
    order = [column.desc() if descending else column.asc() for column in columns]
    found = select(runs).where(*where).order_by(*order).limit(query.limit + 1)
    rows = list(connection.execute(found).all())
    has_more = len(rows) > query.limit
    rows = rows[: query.limit]
    if backwards:
        rows.reverse()
    return RecordPage([_record(row) for row in rows], has_more)


def _beyond(place: Row[Any], *, newer: bool) -> ColumnElement[bool]:
    at, run_id = runs.c.created_at, runs.c.run_id
    if newer:
        return or_(at > place.created_at, and_(at == place.created_at, run_id > place.run_id))
    return or_(at < place.created_at, and_(at == place.created_at, run_id < place.run_id))
