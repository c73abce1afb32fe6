"""The intents of all runs; what one means stands in `ledger.intent`."""

from collections.abc import Sequence

from sqlalchemy import Connection

from ledger import limits, spent
from ledger.audit import Appending
from ledger.chain import Event
from ledger.contents import Contents, checked, digest_of
from ledger.database import Database
from ledger.errors import ApprovalSpent, LedgerRefused
from ledger.intent import Begin, Execution, Intent, IntentKey, State, check, check_key
from ledger.intent_rows import NOTHING_KNOWN, SELECT, IntentRows, add, begun, put
from ledger.tables import intents


class Intents:
    """The intents of all runs."""

    def __init__(self, database: Database, contents: Contents) -> None:
        """Read and write through this database."""
        self._database = database
        self._contents = contents
        self._rows = IntentRows(contents)

    async def begin(
        self,
        key: IntentKey,
        *,
        call_id: str,
        execution: Execution,
        arguments: str | None = None,
        decisions: Sequence[str] = (),
        events: Sequence[Event] = (),
    ) -> tuple[Begin, Intent]:
        """Say that a call is about to run; it may only once this has returned.

        Args:
            key: which call.
            call_id: the upstream's id of it.
            execution: who is about to run it.
            arguments: as canonical JSON, of which `key` has the digest.
            decisions: ids of those that let it run.
            events: for the audit trail, written where this is `NEW` or `MINE`, and with it.

        Raises:
            ApprovalSpent: it would be `NEW`, and the decisions let it run no more.
            LedgerRefused: something given can't be stored.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        check(key, execution)
        call_id = limits.short(call_id)
        if checked("arguments", arguments) is not None and (
            digest_of(arguments or "") != key.arguments_digest
        ):
            raise LedgerRefused("arguments have another digest than the intent's key.")
        appending = Appending(key.run_id, events)
        now = limits.now()

        def work(connection: Connection) -> tuple[Begin, Intent]:
            there = self._rows.find(connection, key)
            how = Begin.NEW if there is None else there.found_by(execution)
            problem = spent.refusal(connection, key, decisions) if how is Begin.NEW else None
            if problem is not None:
                raise ApprovalSpent(problem)
            if how is Begin.NEW or how is Begin.MINE:
                if arguments is not None:
                    self._contents.keep(connection, key.run_id, arguments, now)
                if there is None:
                    add(connection, key, begun(call_id, execution, now))
                elif there.state is State.VOID:
                    put(connection, key, {**NOTHING_KNOWN, **begun(call_id, execution, now)})
                else:
                    latest = {"attempt": execution.attempt, "latest_nonce": execution.nonce}
                    put(connection, key, latest)
                appending.write(connection, self._contents)
            return how, self._rows.standing(connection, key)

        return await self._database.write(key.run_id, work)

    async def finish(
        self,
        key: IntentKey,
        *,
        call_id: str,
        execution: Execution,
        outcome: str,
        result: str | None = None,
        events: Sequence[Event] = (),
    ) -> Intent:
        """Say that a call has run, and how it ended; return what stands.

        The first result stands. Another execution's stands too, unless it gave the call up as
        uncertain: compare `outcome` and `result_digest` with what was given.

        Args:
            key: which call.
            call_id: the upstream's id of it.
            execution: who ran it.
            outcome: a word of the caller's.
            result: what it gave.
            events: for the audit trail; they happened whatever stands, so they are written.

        Raises:
            LedgerRefused: something given can't be stored.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        check(key, execution)
        call_id = limits.short(call_id)
        limits.name("outcome", outcome)
        checked("result", result)
        appending = Appending(key.run_id, events)
        now = limits.now()

        def work(connection: Connection) -> Intent:
            there = self._rows.find(connection, key)
            if there is None:
                # Only a ledger that was restored from a backup has forgotten its beginning.
                add(connection, key, begun(call_id, execution, now))
            if there is None or (
                there.execution.id == execution.id and there.state is not State.FINISHED
            ):
                self._rows.end(connection, key, outcome, result, now)
            appending.write(connection, self._contents)
            return self._rows.standing(connection, key)

        return await self._database.write(key.run_id, work)

    async def uncertain(
        self, key: IntentKey, *, reason: str, events: Sequence[Event] = ()
    ) -> Intent | None:
        """Say that nobody knows whether a call ran; return what stands, None where nothing does.

        Nothing stands where no attempt came as far as its intent: then it never ran. What is
        finished stays finished.

        Raises:
            LedgerRefused: the reason can't be stored.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        check_key(key)
        values = {"state": State.UNCERTAIN.value, "reason": limits.name("reason", reason)}
        appending = Appending(key.run_id, events)

        def work(connection: Connection) -> Intent | None:
            there = self._rows.find(connection, key)
            if there is not None and there.state is State.BEGUN:
                put(connection, key, values)
                appending.write(connection, self._contents)
            return self._rows.find(connection, key)

        return await self._database.write(key.run_id, work)

    async def withdraw(
        self, key: IntentKey, *, execution: Execution, events: Sequence[Event] = ()
    ) -> Intent | None:
        """Say that this execution did not run the call that it has begun, and is not going to.

        Raises:
            LedgerRefused: something given can't be stored.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        check(key, execution)
        appending = Appending(key.run_id, events)
        now = limits.now()

        def work(connection: Connection) -> Intent | None:
            there = self._rows.find(connection, key)
            # A later attempt may have run it since.
            if (
                there is not None
                and there.state is State.BEGUN
                and there.found_by(execution) is Begin.NEW
                and there.latest_nonce == execution.nonce
            ):
                put(connection, key, {"state": State.VOID.value, "ended_at": now})
                appending.write(connection, self._contents)
            return self._rows.find(connection, key)

        return await self._database.write(key.run_id, work)

    async def settle(
        self,
        key: IntentKey,
        *,
        by: str,
        ran: bool,
        outcome: str | None = None,
        result: str | None = None,
        events: Sequence[Event] = (),
    ) -> Intent | None:
        """Say, as a person, what happened to an uncertain call; return what stands.

        What is finished stays finished, and the first person's word stands.

        Args:
            key: which call.
            by: the person.
            ran: whether it ran. If not, it may be begun anew.
            outcome: a word of the caller's; needed where it ran.
            result: what it gave, as far as the person knows.
            events: for the audit trail, written where this word is the one that stands.

        Raises:
            LedgerRefused: something given can't be stored, or the outcome is missing.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        check_key(key)
        limits.name("by", by)
        if ran != (outcome is not None):
            raise LedgerRefused("outcome must be given where the call ran, and only there.")
        checked("result", result)
        appending = Appending(key.run_id, events)
        now = limits.now()

        def work(connection: Connection) -> Intent | None:
            there = self._rows.find(connection, key)
            if there is not None and there.state is State.UNCERTAIN:
                if ran:
                    self._rows.end(
                        connection, key, limits.name("outcome", outcome or ""), result, now
                    )
                    put(connection, key, {"settled_by": by})
                else:
                    void = {"state": State.VOID.value, "settled_by": by, "ended_at": now}
                    put(connection, key, void)
                appending.write(connection, self._contents)
            return self._rows.find(connection, key)

        return await self._database.write(key.run_id, work)

    async def find(self, key: IntentKey) -> Intent | None:
        """Return what stands about a call; None where nothing does.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        return await self._database.read(lambda connection: self._rows.find(connection, key))

    async def of_run(self, run_id: str) -> list[Intent]:
        """Return every intent of a run, in the order in which they were begun.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        query = SELECT.where(intents.c.run_id == run_id).order_by(
            intents.c.begun_at, intents.c.tool, intents.c.ordinal
        )

        def work(connection: Connection) -> list[Intent]:
            return [self._rows.read(row) for row in connection.execute(query).all()]

        return await self._database.read(work)
