"""One call of a tool on its way: begun once, run, and its end written down, whatever happens.

What changes something has its intent in the ledger before it runs, and its result after. So a
worker that finds an intent knows that the tool may have run; see `ledger.intent`.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import cached_property
from typing import TypeVar

from pydantic_core import to_json
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import stops, trail
from activities.approved import Approved, NotApproved, approved
from activities.asking import waiting
from activities.attached import earlier_progress
from activities.contract import canonical_arguments
from activities.decision import Verifier
from activities.tools import (
    Busy,
    Call,
    Called,
    CallInput,
    Facts,
    Handling,
    Ran,
    Toolbox,
)
from ledger import Ledger, LedgerUnavailable
from ledger.chain import Event
from ledger.contents import digest_of
from ledger.errors import ApprovalSpent
from ledger.intent import Begin, Execution, Intent, IntentKey, State
from ledger.limits import MAX_NAME

TOO_LARGE = "The tool ran. Its output is too large for this round of calls."
"""The answer in the place of one that doesn't fit."""
NOT_HERE = "ToolNotHere"
"""The type of the error by which a call is given to another worker: this one may not run it."""

_OTHERS_WITHIN = timedelta(seconds=10)
"""How long a worker that may run it is looked for before the call is classified anew."""
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
"""Seconds between two tries at a tool that fails."""
_LEDGER_PAUSE = 2.0
_MAX_DEATHS = 5
"""Workers that may end while they run one call; it may be what ends them."""

_DIED = "its worker ended while it ran"
_NOT_OURS = "it was begun by an execution that this one doesn't know"
_NO_ANSWER = "it gave no answer in time"

_T = TypeVar("_T")


class ToolRun:
    """One attempt of the activity `tools.call`."""

    def __init__(
        self,
        ledger: Ledger,
        toolbox: Toolbox,
        verifier: Verifier,
        input: CallInput,
        progress: dict[str, object],
    ) -> None:
        """Take what it works with.

        Args:
            ledger: where the intent stands.
            toolbox: of this process.
            verifier: of decisions.
            input: the activity's.
            progress: what its heartbeats carry.
        """
        info = activity.info()
        self._ledger, self._toolbox, self._input = ledger, toolbox, input
        self._progress = progress
        # Not what the input says: anybody may start a workflow that says what he likes.
        self._run_id = info.workflow_id or ""
        self._verifier = verifier
        self._call = input.call
        """With edited arguments, where people have edited them."""
        self._approved: Approved | None = None
        self._execution = Execution(
            id=f"{info.workflow_run_id}/{info.activity_id}",
            attempt=info.attempt,
            nonce=secrets.token_hex(16),
        )
        deaths = earlier_progress().get("begun", 0)
        self._deaths = deaths if isinstance(deaths, int) else 0
        progress["begun"] = self._deaths

    async def answer(self) -> Called:
        """Run the tool if it may run; return its answer, or why there is none."""
        handling = await self._toolbox.handling(self._call, 0.0)
        hindrance = self._hindrance(handling)
        if hindrance is not None:
            if _age() < _OTHERS_WITHIN:
                # Workers may be about to be replaced by others.
                pause = timedelta(seconds=2)
                raise ApplicationError(hindrance, type=NOT_HERE, next_retry_delay=pause)
            return Called(outcome="changed", reason=hindrance)
        if handling.output is not None:
            return Called(output=handling.output)
        # Before its intent is written: one that stands says that the tool may have run.
        await stops.check(self._ledger, self._run_id, self._call.name)
        try:
            return await (self._read() if self._input.rule.read_only else self._once())
        except ApprovalSpent as error:
            return Called(outcome="changed", reason=str(error))

    def _hindrance(self, handling: Handling) -> str | None:
        """Say why the call may not run here, by what its tool is here and now.

        Policy and decisions are looked at again: who can write into Temporal must not get around
        them.
        """
        name, now, then = self._call.name, handling.rule, self._input.rule
        if now is None:
            return f"This worker has no tool {name}"
        here = now.tool_digest, now.arguments_digest, now.read_only, now.at_most_once
        if here != (then.tool_digest, then.arguments_digest, then.read_only, then.at_most_once):
            return f"This worker has another tool {name} than the one that the call was meant for"
        decisions = self._input.decisions
        if handling.by == "worker" and not decisions:
            return None
        try:
            self._approved = approved(decisions, self._verifier, run_id=self._run_id, rule=now)
        except NotApproved as error:
            return str(error)
        if self._approved.arguments is not None:
            self._call = self._call.model_copy(update={"arguments": self._approved.arguments})
        return None

    @cached_property
    def _key(self) -> IntentKey:
        return IntentKey(
            run_id=self._run_id,
            tool=self._call.name,
            arguments_digest=digest_of(canonical_arguments(self._call.arguments)),
            ordinal=self._input.ordinal,
        )

    async def _read(self) -> Called:
        """Run what changes nothing, as often as it takes."""
        if self._deaths >= _MAX_DEATHS:
            name = self._input.call.name
            return Called(output=f"The tool {name} failed: each worker that ran it ended.")
        if self._approved is not None:
            given = self._approved.decisions
            await self._patiently(lambda: self._ledger.decisions.check_unrevoked(given))
        ran = await self._run()
        output = self._fitting(ran.output)
        await self._patiently(
            lambda: self._ledger.audit.append(self._run_id, [self._finished(ran, output)])
        )
        return Called(output=output, failure=ran.error)

    async def _once(self) -> Called:
        """Run what must not run twice by accident."""
        how, intent = await self._patiently(self._begin)
        if how is Begin.FINISHED:
            return self._found(intent)
        if how is Begin.UNCERTAIN:
            return await self._ask(intent.reason or _NOT_OURS)
        if how is Begin.OTHERS:
            return await self._uncertain(_NOT_OURS)
        again = how is Begin.MINE
        if again and (self._input.rule.at_most_once or self._deaths >= _MAX_DEATHS):
            return await self._uncertain(_DIED)
        # Whoever cancels us, Temporal too once the run has ended: it is seen through to its end.
        work = asyncio.ensure_future(self._run_and_finish())
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            if details is None or details.worker_shutdown:
                work.cancel()
                raise
            return await work

    async def _run_and_finish(self) -> Called:
        try:
            ran = await self._run()
        except Busy:
            await self._patiently(
                lambda: self._ledger.intents.withdraw(self._key, execution=self._execution)
            )
            raise
        if ran.kind == "timed_out" and self._input.rule.at_most_once:
            return await self._uncertain(_NO_ANSWER)
        output = self._fitting(ran.output)
        intent = await self._patiently(
            lambda: self._ledger.intents.finish(
                self._key,
                call_id=_short(self._input.call.id),
                execution=self._execution,
                outcome=ran.kind,
                result=output,
                events=[self._finished(ran, output)],
            )
        )
        if intent.state is State.FINISHED and intent.result_digest != digest_of(output):
            # Another attempt, which was taken for dead, has written down another one before.
            return self._found(intent)
        return Called(output=output, failure=ran.error)

    async def _run(self) -> Ran:
        """Run the tool, again after a failure as often as its options say."""
        call = self._call
        self._progress["begun"] = self._deaths + 1
        activity.heartbeat(self._progress)
        people = None if self._approved is None else ", ".join(self._approved.by)
        facts = Facts(
            run_id=self._run_id,
            idempotency_key=self._idempotency_key(),
            report=self._report,
            approver=people or None,
        )
        tries, pause = self._toolbox.tries(call.name), _FIRST_PAUSE
        for number in range(1, tries):
            ran = await self._try(call, facts)
            if ran.is_final:
                return ran
            self._progress["failure"] = f"{ran.error}, try {number} of {tries}"
            await asyncio.sleep(pause)
            await self._may_try_again()
            pause = min(pause * 2, _LONGEST_PAUSE)
        return await self._try(call, facts)

    async def _try(self, call: Call, facts: Facts) -> Ran:
        try:
            return await self._toolbox.run(call, facts)
        except Busy:
            self._leave_alive()
            raise

    async def _may_try_again(self) -> None:
        try:
            await stops.check(self._ledger, self._run_id, self._input.call.name)
            await self._is_ours()
        except ApplicationError:
            self._leave_alive()
            raise

    def _leave_alive(self) -> None:
        """Say that this attempt ends here, and that no worker has died of the tool."""
        self._progress["begun"] = self._deaths
        activity.heartbeat(self._progress)

    async def _is_ours(self) -> None:
        """Go on only if no other attempt has begun, as where this worker stood still for long."""
        if self._input.rule.read_only:
            return
        intent = await self._patiently(lambda: self._ledger.intents.find(self._key))
        if intent is None or (intent.state, intent.latest_nonce) != (
            State.BEGUN,
            self._execution.nonce,
        ):
            raise ApplicationError("Another attempt has taken it over", type=NOT_HERE)

    async def _begin(self) -> tuple[Begin, Intent]:
        decisions = [] if self._approved is None else self._approved.decisions
        return await self._ledger.intents.begin(
            self._key,
            call_id=_short(self._input.call.id),
            execution=self._execution,
            arguments=canonical_arguments(self._call.arguments),
            decisions=decisions,
            events=[
                trail.execution_begun(
                    call_id=self._input.call.id,
                    tool=self._key.tool,
                    ordinal=self._key.ordinal,
                    execution=self._execution.id,
                    attempt=self._execution.attempt,
                    arguments=self._call.arguments,
                    tool_schema=self._input.rule.tool_digest,
                    model=self._input.model,
                    policy=self._input.rule.policy,
                    decisions=decisions,
                )
            ],
        )

    async def _uncertain(self, reason: str) -> Called:
        event = trail.execution_uncertain(
            call_id=self._input.call.id,
            tool=self._key.tool,
            ordinal=self._key.ordinal,
            execution=self._execution.id,
            attempt=self._execution.attempt,
            reason=reason,
            tool_schema=self._input.rule.tool_digest,
        )
        intent = await self._patiently(
            lambda: self._ledger.intents.uncertain(self._key, reason=reason, events=[event])
        )
        if intent is not None and intent.state is State.FINISHED:
            return self._found(intent)
        return await self._ask(reason)

    async def _ask(self, reason: str) -> Called:
        """List the call among those that people must say something about."""
        given = self._input
        # No deadline answers that.
        rule = given.rule.model_copy(update={"reason": reason, "deadlines": []})
        row = waiting(
            given.call,
            rule,
            run_id=self._run_id,
            owner=given.owner,
            attempt=given.attempt,
            round=given.round,
            since=time.time(),
        )
        await self._patiently(
            lambda: self._ledger.approvals.record(self._run_id, [row], again=True)
        )
        return Called(outcome="uncertain", reason=reason)

    def _found(self, intent: Intent) -> Called:
        if intent.result is None:
            return Called(outcome="uncertain", reason="its result was erased from the ledger")
        return Called(output=self._fitting(intent.result))

    def _finished(self, ran: Ran, output: str) -> Event:
        return trail.execution_finished(
            call_id=self._input.call.id,
            tool=self._key.tool,
            ordinal=self._key.ordinal,
            execution=self._execution.id,
            attempt=self._execution.attempt,
            outcome=ran.kind if ran.error is None else f"{ran.kind}: {ran.error}",
            output=output,
            tool_schema=self._input.rule.tool_digest,
            model=self._input.model,
        )

    async def _patiently(self, write: Callable[[], Awaitable[_T]]) -> _T:
        """Write to the ledger, and wait for it where it is down: only this attempt knows its own.

        Another attempt would have to take what was begun for what may have run.
        """
        while True:
            try:
                return await write()
            except LedgerUnavailable as error:
                self._progress["failure"] = str(error)
                await asyncio.sleep(_LEDGER_PAUSE)

    def _fitting(self, output: str) -> str:
        # As JSON too: a control character takes six bytes there, and a history has its limits.
        room = self._input.room
        fits = len(output.encode()) <= room and len(to_json(output)) <= 2 * room
        return output if fits else TOO_LARGE

    def _report(self, progress: str) -> None:
        # From any thread. The next heartbeat takes it along.
        self._progress["progress"] = progress[:MAX_NAME]

    def _idempotency_key(self) -> str:
        key = self._key
        parts = (key.run_id, key.tool, key.arguments_digest, str(key.ordinal))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _age() -> timedelta:
    info = activity.info()
    return info.current_attempt_scheduled_time - info.scheduled_time


def _short(call_id: str) -> str:
    # An upstream makes up what it likes.
    if len(call_id) <= MAX_NAME and call_id.isprintable():
        return call_id
    return "sha256:" + hashlib.sha256(call_id.encode(errors="surrogatepass")).hexdigest()
