"""Removing what is older than somebody wants to keep. Off unless a number of days is given.

A run that the ledger knows and that has not ended keeps everything: its intents are what keeps a
call from running twice.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, select, tuple_, update

from ledger import batch_pruning, limits
from ledger.approval import Standing
from ledger.database import Database
from ledger.errors import LedgerRefused
from ledger.files import remove_files
from ledger.intent import State
from ledger.tables import (
    approvals,
    audit_heads,
    audit_rows,
    contents,
    decisions,
    intents,
    runs,
)

BATCH = 500
"""Rows, or whole trails, removed in one transaction; others write between two."""


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How many days each table keeps what has ended; None for ever."""

    contents: int | None = None
    intents: int | None = None
    audit: int | None = None
    """Whole trails, by their last event. Their ends stay, so that an export can say so."""
    runs: int | None = None
    """With them their idempotency keys are forgotten."""
    approvals: int | None = None
    """Those that nobody has to decide any more."""
    decisions: int | None = None
    batches: int | None = None
    """With all of their items; what these were asked and answered goes with `contents` too."""


@dataclass(frozen=True)
class Pruned:
    """What was removed."""

    contents: int = 0
    intents: int = 0
    trails: int = 0
    runs: int = 0
    approvals: int = 0
    decisions: int = 0
    batches: int = 0


async def prune(database: Database, retention: Retention) -> Pruned:
    """Remove what is old enough.

    Raises:
        LedgerRefused: a number of days is below 1.
        LedgerUnavailable: the ledger doesn't answer; the same call again goes on.
    """
    now = limits.now()
    removed = {}
    works = {
        "contents": _contents, "intents": _intents, "audit": _trails, "approvals": _approvals,
        "decisions": _decisions, "runs": _runs,
    }  # fmt: skip
    for name, work in works.items():
        days = getattr(retention, name)
        removed[name] = 0
        if days is None:
            continue
        until = now - _days(name, days)
        batch = partial(work, until=until)
        while count := await database.write("retention", batch):
            removed[name] += count
    if retention.contents is not None:
        until = now - timedelta(days=retention.contents)
        removed["contents"] += await batch_pruning.remove_contents(database, until)
        removed["contents"] += await remove_files(database, until)
    removed["batches"] = 0
    if retention.batches is not None:
        until = now - _days("batches", retention.batches)
        removed["batches"] = await batch_pruning.remove_batches(database, until)
    await database.sweep()
    return Pruned(trails=removed.pop("audit"), **removed)


def _days(name: str, days: int) -> timedelta:
    if days < 1:
        raise LedgerRefused(f"retention_days of {name} must be at least 1, got {days}.")
    return timedelta(days=days)


def _ended(run_id: ColumnElement[str]) -> ColumnElement[bool]:
    return ~exists().where(runs.c.run_id == run_id, runs.c.ended_at.is_(None))


def _contents(connection: Connection, until: datetime) -> int:
    key = tuple_(contents.c.run_id, contents.c.digest)
    old = (
        select(contents.c.run_id, contents.c.digest)
        .where(contents.c.stored_at < until, _ended(contents.c.run_id))
        .limit(BATCH)
    )
    return connection.execute(delete(contents).where(key.in_(old))).rowcount


def _intents(connection: Connection, until: datetime) -> int:
    columns = (
        intents.c.run_id, intents.c.tool, intents.c.arguments_digest, intents.c.ordinal
    )  # fmt: skip
    known = intents.c.state.in_([State.FINISHED.value, State.VOID.value])
    old = (
        select(*columns)
        .where(known, intents.c.ended_at < until, _ended(intents.c.run_id))
        .limit(BATCH)
    )
    return connection.execute(delete(intents).where(tuple_(*columns).in_(old))).rowcount


def _trails(connection: Connection, until: datetime) -> int:
    old = (
        select(audit_heads.c.run_id)
        .where(
            and_(audit_heads.c.at < until, audit_heads.c.pruned_at.is_(None)),
            _ended(audit_heads.c.run_id),
        )
        .limit(BATCH)
    )
    found = list(connection.execute(old).scalars())
    connection.execute(delete(audit_rows).where(audit_rows.c.run_id.in_(found)))
    connection.execute(
        update(audit_heads).where(audit_heads.c.run_id.in_(found)).values(pruned_at=limits.now())
    )
    return len(found)


def _approvals(connection: Connection, until: datetime) -> int:
    columns = (
        approvals.c.run_id, approvals.c.attempt, approvals.c.round, approvals.c.call_id
    )  # fmt: skip
    waits = approvals.c.state == Standing.WAITING.value
    old = (
        select(*columns)
        .where(~waits, approvals.c.changed_at < until, _ended(approvals.c.run_id))
        .limit(BATCH)
    )
    return connection.execute(delete(approvals).where(tuple_(*columns).in_(old))).rowcount


def _decisions(connection: Connection, until: datetime) -> int:
    old = (
        select(decisions.c.id)
        .where(decisions.c.recorded_at < until, _ended(decisions.c.run_id))
        .limit(BATCH)
    )
    return connection.execute(delete(decisions).where(decisions.c.id.in_(old))).rowcount


def _runs(connection: Connection, until: datetime) -> int:
    old = select(runs.c.run_id).where(runs.c.ended_at < until).limit(BATCH)
    return connection.execute(delete(runs).where(runs.c.run_id.in_(old))).rowcount
