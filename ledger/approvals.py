"""The calls of all runs that wait for people: one row each, so that a list asks no workflow."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)

from ledger import limits
from ledger.approval import Approval, ApprovalKey, ApprovalPage, ApprovalQuery, Standing
from ledger.audit import Appending
from ledger.chain import Event
from ledger.contents import Contents, checked
from ledger.database import Database
from ledger.errors import LedgerRefused
from ledger.tables import approvals, contents

_arguments = contents.alias()
_reason = contents.alias()
_bare = select(approvals)
_with_contents = (
    select(approvals, _arguments.c.body.label("arguments"), _reason.c.body.label("reason"))
    .outerjoin(
        _arguments,
        and_(
            _arguments.c.run_id == approvals.c.run_id,
            _arguments.c.digest == approvals.c.arguments_digest,
        ),
    )
    .outerjoin(
        _reason,
        and_(_reason.c.run_id == approvals.c.run_id, _reason.c.digest == approvals.c.reason_digest),
    )
)
_PLACE = tuple(approvals.c[name] for name in ("since", "run_id", "call_id", "attempt", "round"))


class Approvals:
    """The approvals of all runs."""

    def __init__(self, database: Database, contents: Contents) -> None:
        """Read and write through this database."""
        self._database = database
        self._contents = contents

    async def record(
        self,
        run_id: str,
        given: Sequence[Approval],
        events: Sequence[Event] = (),
        *,
        again: bool = False,
    ) -> None:
        """Write how calls of one run stand, all or none.

        Of one that is there already, groups, deadline, count and claim change as long as it waits;
        what is decided or closed stands.

        Args:
            run_id: the run of all of them.
            given: the approvals.
            events: for the audit trail, written with them.
            again: also where it is decided: people are asked about it once more.

        Raises:
            LedgerRefused: something given can't be stored.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        for each in given:
            each.check()
            checked("arguments", each.arguments)
            checked("reason", each.reason)
            if each.key.run_id != run_id:
                raise LedgerRefused("all approvals must be of one run.")
        appending = Appending(run_id, events)

        def work(connection: Connection) -> None:
            for each in given:
                write(connection, self._contents, each, again=again)
            appending.write(connection, self._contents)

        await self._database.write(run_id, work)

    async def close(
        self,
        run_id: str,
        *,
        outcome: str,
        keep: Sequence[ApprovalKey] = (),
        events: Sequence[Event] = (),
    ) -> int:
        """Say that nobody has to decide a run's calls any more; return how many still waited.

        Args:
            run_id: the run.
            outcome: why; a fixed word.
            keep: those that wait on.
            events: for the audit trail, written with it.

        Raises:
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        values = {
            "state": Standing.CLOSED.value,
            "outcome": limits.name("outcome", outcome),
            "changed_at": limits.now(),
        }
        waits = and_(
            approvals.c.run_id == run_id,
            approvals.c.state == Standing.WAITING.value,
            *(~_is(key) for key in keep),
        )
        appending = Appending(run_id, events)

        def work(connection: Connection) -> int:
            closed = connection.execute(update(approvals).where(waits).values(values)).rowcount
            appending.write(connection, self._contents)
            return closed

        return await self._database.write(run_id, work)

    async def waiting_runs(self, run_ids: Sequence[str]) -> list[str]:
        """Return those of the runs that have calls waiting.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        query = (
            select(approvals.c.run_id)
            .where(
                approvals.c.state == Standing.WAITING.value,
                approvals.c.run_id.in_(bindparam("runs", expanding=True)),
            )
            .distinct()
        )
        return await self._database.read(
            lambda connection: list(
                connection.execute(query, {"runs": list(run_ids)}).scalars().all()
            )
        )

    async def find(self, key: ApprovalKey) -> Approval | None:
        """Return what stands about a call, with its contents; None where nothing does.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """

        def work(connection: Connection) -> Approval | None:
            row = connection.execute(_with_contents.where(_is(key))).first()
            return None if row is None else self._read(row)

        return await self._database.read(work)

    async def of_run(self, run_id: str) -> list[Approval]:
        """Return every approval of a run with its contents, in the order in which they came.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        query = _with_contents.where(approvals.c.run_id == run_id).order_by(*_PLACE)
        return await self._database.read(
            lambda connection: [self._read(row) for row in connection.execute(query)]
        )

    async def list(self, query: ApprovalQuery) -> ApprovalPage:
        """Return a page of approvals.

        Raises:
            LedgerRefused: a parameter is out of its range, or `after` names none.
            LedgerUnavailable: the ledger doesn't answer.
        """
        query.check()

        def work(connection: Connection) -> ApprovalPage:
            found = _with_contents if query.contents else _bare
            found = found.where(*_wanted(connection, query))
            found = found.order_by(
                *(each.asc() if query.order == "asc" else each.desc() for each in _PLACE)
            )
            rows = connection.execute(found.limit(query.limit + 1)).all()
            page = [self._read(row) for row in rows[: query.limit]]
            return ApprovalPage(page, len(rows) > query.limit)

        return await self._database.read(work)

    def _read(self, row: Row[Any]) -> Approval:
        # A comparison of each name for each of thousands of rows would take longer than the query.
        found = row._mapping
        return Approval(
            key=ApprovalKey(
                run_id=found["run_id"],
                attempt=found["attempt"],
                round=found["round"],
                call_id=found["call_id"],
            ),
            owner=found["owner"],
            tool=found["tool"],
            tool_digest=found["tool_digest"],
            arguments_digest=found["arguments_digest"],
            arguments=self._contents.opened(found.get("arguments")),
            reason=self._contents.opened(found.get("reason")),
            groups=tuple(json.loads(found["groups"])),
            approvers=tuple(json.loads(found["approvers"])),
            need=found["need"],
            have=found["have"],
            since=found["since"],
            deadline=found["deadline"],
            state=Standing(found["state"]),
            claimed_by=found["claimed_by"],
            decided_by=found["decided_by"],
            outcome=found["outcome"],
            changed_at=found["changed_at"],
        )


def write(
    connection: Connection, kept: Contents, approval: Approval, *, again: bool = False
) -> None:
    """Write an approval within a transaction that has its run's turn; it must be checked."""
    there = connection.execute(select(approvals.c.state).where(_is(approval.key))).scalar()
    now = limits.now()
    values = _changing(approval, now)
    if there is None:
        reason = None
        for text in (approval.arguments, approval.reason):
            if text is not None:
                reason = kept.keep(connection, approval.key.run_id, text, now)
        fixed = {
            "owner": approval.owner,
            "tool": approval.tool,
            "tool_digest": approval.tool_digest,
            "arguments_digest": approval.arguments_digest,
            "reason_digest": None if approval.reason is None else reason,
            "since": approval.since,
        }
        connection.execute(insert(approvals).values(**asdict(approval.key), **fixed, **values))
    elif there == Standing.WAITING.value or again:
        if again and approval.reason is not None:
            reason = kept.keep(connection, approval.key.run_id, approval.reason, now)
            values["reason_digest"] = reason
        connection.execute(update(approvals).where(_is(approval.key)).values(values))


def _changing(approval: Approval, now: datetime) -> dict[str, Any]:
    return {
        "groups": _listed(approval.groups),
        "approvers": _listed(approval.approvers),
        "need": approval.need,
        "have": approval.have,
        "deadline": approval.deadline,
        "state": approval.state.value,
        "claimed_by": approval.claimed_by,
        "decided_by": approval.decided_by,
        "outcome": approval.outcome,
        "changed_at": now,
    }


def _listed(names: tuple[str, ...]) -> str:
    """Return JSON with each name on a line of its own, by which it is found."""
    return json.dumps(names, indent=0)


def _is(key: ApprovalKey) -> ColumnElement[bool]:
    return and_(*(approvals.c[name] == value for name, value in asdict(key).items()))


def _wanted(connection: Connection, query: ApprovalQuery) -> list[ColumnElement[bool]]:
    where = [
        approvals.c[name] == getattr(query, name)
        for name in ("owner", "run_id", "tool")
        if getattr(query, name) is not None
    ]
    if query.call_id is not None:
        where.append(approvals.c.call_id == limits.short(query.call_id))
    if query.state is not None:
        where.append(approvals.c.state == query.state.value)
    if query.since_from is not None:
        where.append(approvals.c.since >= query.since_from)
    if query.since_until is not None:
        where.append(approvals.c.since < query.since_until)
    place = func.instr if connection.dialect.name == "sqlite" else func.strpos
    for column, name in (("groups", query.group), ("approvers", query.approver)):
        if name is not None:
            where.append(place(approvals.c[column], f"\n{json.dumps(name)}") > 0)
    if query.after is not None:
        cursor = select(*_PLACE).where(_is(query.after))
        if query.owner is not None:
            # Whether another owner has such a call is not told either.
            cursor = cursor.where(approvals.c.owner == query.owner)
        here = connection.execute(cursor).first()
        if here is None:
            raise LedgerRefused("after names no approval that the ledger has.")
        values = [literal(value, column.type) for value, column in zip(here, _PLACE, strict=True)]
        place_of = tuple_(*_PLACE)
        follows = place_of > tuple_(*values) if query.order == "asc" else place_of < tuple_(*values)
        where.append(follows)
    return where
