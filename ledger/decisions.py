"""What people said, with the signatures that prove it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, insert, select

from ledger import limits, spent
from ledger.approval import Approval
from ledger.approvals import write
from ledger.audit import Appending
from ledger.chain import Event
from ledger.contents import Contents, checked
from ledger.database import Database
from ledger.errors import ApprovalSpent, LedgerRefused
from ledger.tables import decisions


@dataclass(frozen=True, kw_only=True)
class DecisionRecord:
    """A decision as it was signed."""

    id: str
    run_id: str
    call_id: str
    """The upstream's; one that can't be stored stands here by its digest."""
    kind: str
    by: str
    at: datetime
    """By the face's clock."""
    face: str = ""
    token: str | None = None
    """Its name."""
    token_made_by: str | None = None
    """Whoever made it, where it is somebody else than the person."""
    tool_digest: str | None = None
    arguments_digest: str | None = None
    shown: str | None = None
    """Digest of what the person was shown."""
    for_rest_of_run: bool = False
    groups: tuple[str, ...] = ()
    key_id: str
    signature: str
    note: str | None = field(default=None, repr=False)
    arguments: str | None = field(default=None, repr=False)
    """Edited ones."""
    output: str | None = field(default=None, repr=False)
    note_digest: str | None = None
    """This and the two that follow are set by the ledger; contents may be erased."""
    edited_digest: str | None = None
    output_digest: str | None = None

    def __post_init__(self) -> None:
        """Make the call's id one that can be stored."""
        object.__setattr__(self, "call_id", limits.short(self.call_id))

    def check(self) -> None:
        """Refuse what can't be stored.

        Raises:
            LedgerRefused: it names the field and its limit.
        """
        for name in ("id", "run_id", "kind", "by", "key_id"):
            limits.name(name, getattr(self, name))
        limits.text("face", self.face)
        limits.optional("token", self.token)
        limits.optional("token_made_by", self.token_made_by)
        for name in ("tool_digest", "arguments_digest", "shown"):
            if getattr(self, name) is not None:
                limits.digest(name, getattr(self, name))
        for each in self.groups:
            limits.name("groups", each)
        for name in ("note", "arguments", "output"):
            checked(name, getattr(self, name))
        limits.instant("at", self.at)


class Decisions:
    """The decisions of all runs."""

    def __init__(self, database: Database, contents: Contents) -> None:
        """Read and write through this database."""
        self._database = database
        self._contents = contents

    async def record(
        self,
        record: DecisionRecord,
        *,
        approval: Approval | None = None,
        events: Sequence[Event] = (),
    ) -> DecisionRecord:
        """Write a decision, and with it how its call stands; return what stands.

        A decision whose id is there already stands as it is.

        Args:
            record: the decision.
            approval: how its call stands afterwards; see `Approvals.record`.
            events: for the audit trail, written with it.

        Raises:
            LedgerRefused: something given can't be stored.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        record.check()
        if approval is not None:
            approval.check()
            if approval.key.run_id != record.run_id:
                raise LedgerRefused("approval must be of the decision's run.")
        appending = Appending(record.run_id, events)

        def work(connection: Connection) -> DecisionRecord:
            its = decisions.c.id == record.id
            if self._one(connection, its) is None:
                self._insert(connection, record)
            if approval is not None:
                write(connection, self._contents, approval)
            appending.write(connection, self._contents)
            found = self._one(connection, its)
            assert found is not None
            return found

        return await self._database.write(record.run_id, work)

    async def find(self, decision_id: str) -> DecisionRecord | None:
        """Return a decision with its contents; None where there is none.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        its = decisions.c.id == decision_id
        return await self._database.read(lambda connection: self._one(connection, its))

    async def check_unrevoked(self, decision_ids: Sequence[str]) -> None:
        """Refuse decisions that let nothing run any more, for what may run twice.

        What may not is refused, and by more than this, where its intent is begun.

        Raises:
            ApprovalSpent: one was for the rest of its run, and is revoked.
            LedgerUnavailable: the ledger doesn't answer.
        """
        problem = await self._database.read(
            lambda connection: spent.revocation(connection, decision_ids)
        )
        if problem is not None:
            raise ApprovalSpent(problem)

    async def of_run(self, run_id: str) -> list[DecisionRecord]:
        """Return every decision of a run with its contents, oldest first.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        query = (
            select(decisions)
            .where(decisions.c.run_id == run_id)
            .order_by(decisions.c.at, decisions.c.id)
        )
        return await self._database.read(
            lambda connection: [self._read(connection, row) for row in connection.execute(query)]
        )

    def _insert(self, connection: Connection, record: DecisionRecord) -> None:
        now, kept = limits.now(), self._contents
        digests = {
            column: None if text is None else kept.keep(connection, record.run_id, text, now)
            for column, text in (
                ("note_digest", record.note),
                ("edited_digest", record.arguments),
                ("output_digest", record.output),
            )
        }
        names = (
            "id", "run_id", "call_id", "kind", "by", "at", "face", "token", "token_made_by",
            "tool_digest", "arguments_digest", "shown", "for_rest_of_run", "key_id", "signature",
        )  # fmt: skip
        values = {name: getattr(record, name) for name in names}
        connection.execute(
            insert(decisions).values(
                **values, **digests, groups=json.dumps(record.groups), recorded_at=now
            )
        )

    def _one(self, connection: Connection, which: ColumnElement[bool]) -> DecisionRecord | None:
        row = connection.execute(select(decisions).where(which)).first()
        return None if row is None else self._read(connection, row)

    def _read(self, connection: Connection, row: Row[Any]) -> DecisionRecord:
        found = dict(row._mapping)
        del found["recorded_at"]
        found["groups"] = tuple(json.loads(found["groups"]))
        for name, column in (
            ("note", "note_digest"), ("arguments", "edited_digest"), ("output", "output_digest")
        ):  # fmt: skip
            found[name] = self._contents.find(connection, row.run_id, found[column])
        return DecisionRecord(**found)
