"""Whether a decision is true: verified here, and written down, before it counts in its run.

A decision that counts stands in the ledger before the workflow knows that it does. One that
doesn't leaves a row in the audit trail, for somebody may have tried to forge one.
"""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict
from temporalio import activity

from activities import trail
from activities.decision import (
    Decision,
    DecisionKind,
    InvalidDecision,
    Verifier,
    asked_for_it,
    check,
    may_decide,
    same_person,
)
from activities.heartbeat import heartbeating
from activities.tools import Busy, Call, Rule, Toolbox
from ledger import Ledger
from ledger.approval import Approval, ApprovalKey, Standing
from ledger.chain import Event
from ledger.decisions import DecisionRecord
from ledger.intent import IntentKey
from ledger.limits import MAX_NAME

PERSON_ANSWERED = "answered by a person"
"""The outcome of an intent of which a person says that it ran, and what it gave."""

_SETTLES = (DecisionKind.APPROVE, DecisionKind.ANSWER)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class VerifyInput(_Model):
    """Input of `decisions.verify`: a decision, and how its call stands."""

    decision: Decision
    call: Call
    rule: Rule
    asked: list[str] = []
    """The groups whose turn it is."""
    requested_by: str | None = None
    """The person who asked for the run."""
    owner: str = ""
    attempt: int = 1
    round: int = 1
    since_at: float = 0.0
    """Unix seconds."""
    deadline_at: float | None = None
    have: int = 0
    """How many have approved before."""
    claimed_by: str | None = None
    completes: bool = False
    """Nobody else is asked once this counts."""
    uncertain: bool = False
    """Nobody knows whether the call ran: the decision says so."""
    ordinal: int = 0
    """How many equal calls came before it in the run."""
    begun_digest: str | None = None
    """Of the arguments with which it may have run, where those were edited."""
    model: str | None = None
    """As the upstream names it."""


class Verified(_Model):
    """Result of `decisions.verify`."""

    refusal: str | None = None
    """Why the decision doesn't count, for people; none where it does."""


class LapseInput(_Model):
    """Input of `decisions.lapse`: a call about which nobody has decided by its deadline."""

    call: Call
    rule: Rule
    outcome: Literal["escalate", "reject", "fail"]
    at: float
    """The deadline, in unix seconds."""
    asked: list[str] = []
    """The groups whose turn it is from now on."""
    next_at: float | None = None
    """Their deadline, where it escalates."""
    owner: str = ""
    attempt: int = 1
    round: int = 1
    since_at: float = 0.0
    have: int = 0


class DecisionActivities:
    """The activities of one worker that write down what was decided, or wasn't."""

    def __init__(self, ledger: Ledger, verifier: Verifier, toolbox: Toolbox | None = None) -> None:
        """Take what it works with.

        Args:
            ledger: where decisions stand.
            verifier: knows the faces' keys.
            toolbox: of this process, to look at edited arguments.
        """
        self._ledger = ledger
        self._verifier = verifier
        self._toolbox = toolbox

    @activity.defn(name="decisions.verify")
    async def verify(self, input: VerifyInput) -> Verified:
        """Tell whether a decision is true and allowed, and write down that it is, or isn't."""
        async with heartbeating():
            return await self._verified(input)

    @activity.defn(name="decisions.lapse")
    async def lapse(self, input: LapseInput) -> None:
        """Write down that a deadline has passed, and who is asked now."""
        run_id, rule = activity.info().workflow_id or "", input.rule
        waits = input.outcome == "escalate"
        approval = Approval(
            key=ApprovalKey(
                run_id=run_id, attempt=input.attempt, round=input.round, call_id=input.call.id
            ),
            owner=input.owner,
            tool=input.call.name[:MAX_NAME],
            tool_digest=rule.tool_digest,
            arguments_digest=rule.arguments_digest,
            groups=tuple(input.asked),
            approvers=tuple(rule.approvers),
            need=rule.approvals,
            have=input.have,
            since=_instant(input.since_at),
            deadline=None if input.next_at is None else _instant(input.next_at),
            state=Standing.WAITING if waits else Standing.DECIDED,
            outcome=None if waits else input.outcome,
        )
        event = trail.lapse(
            call_id=input.call.id,
            at=_instant(input.at),
            outcome=input.outcome,
            tool_schema=rule.tool_digest,
            arguments_digest=rule.arguments_digest,
            groups=input.asked,
            facts={"attempt": input.attempt, "round": input.round},
        )
        async with heartbeating():
            with trail.waiting_for_ledger():
                await self._ledger.approvals.record(run_id, [approval], [event])

    async def _verified(self, input: VerifyInput) -> Verified:
        try:
            check(input.decision)
        except InvalidDecision as error:
            return Verified(refusal=f"The decision is malformed: {error}.")
        # Not what the input says: anybody may start a workflow that says what he likes.
        run_id = activity.info().workflow_id or ""
        refused = self._refusal(input, run_id) or await self._problem_of_arguments(input)
        if refused is None:
            await self._record(input)
            return Verified()
        word, message = refused
        await trail.write(self._ledger, run_id, _event(input, refused=word))
        return Verified(refusal=message)

    def _refusal(self, input: VerifyInput, run_id: str) -> tuple[str, str] | None:
        """Return why the decision doesn't count: a fixed word, and a sentence."""
        decision, rule = input.decision, input.rule
        if decision.run_id != run_id:
            return "other_run", "The decision was made for another run."
        problem = self._verifier.refusal(decision)
        if problem is not None:
            return "signature", problem
        digests = rule.arguments_digest, rule.tool_digest
        if (decision.arguments_digest, decision.tool_digest) != digests:
            return "other_digest", "The decision was made on other arguments or another schema."
        if not may_decide(decision.by, decision.groups, rule.approvers, input.asked):
            return "not_allowed", f"{decision.by} is none of those who may decide."
        if _is_own(input):
            return "not_allowed", asked_for_it(decision)
        return None

    async def _problem_of_arguments(self, input: VerifyInput) -> tuple[str, str] | None:
        edited = input.decision.arguments
        if edited is None or self._toolbox is None:
            return None
        call = input.call.model_copy(update={"arguments": edited})
        try:
            handling = await self._toolbox.handling(call, input.since_at)
        except Busy:
            # They are looked at again before the tool runs.
            return None
        if handling.output is None:
            return None
        return "arguments", f"The edited arguments don't fit the tool: {handling.output}"

    async def _record(self, input: VerifyInput) -> None:
        decision = input.decision
        record = DecisionRecord(
            id=decision.id,
            run_id=decision.run_id,
            call_id=decision.tool_call_id,
            kind=decision.kind.value,
            by=decision.by,
            at=_instant(decision.at),
            face=decision.face,
            token=decision.token,
            token_made_by=decision.token_made_by,
            tool_digest=decision.tool_digest,
            arguments_digest=decision.arguments_digest,
            shown=decision.shown,
            for_rest_of_run=decision.for_rest_of_run,
            groups=tuple(decision.groups),
            key_id=decision.key_id,
            signature=decision.signature,
            note=decision.note,
            arguments=decision.arguments,
            output=decision.output,
        )
        with trail.waiting_for_ledger():
            await self._ledger.decisions.record(
                record, approval=_approval(input), events=[_event(input)]
            )
            if input.uncertain and input.completes and decision.kind in _SETTLES:
                await self._settle(input)

    async def _settle(self, input: VerifyInput) -> None:
        decision = input.decision
        ran = decision.kind is DecisionKind.ANSWER
        await self._ledger.intents.settle(
            IntentKey(
                run_id=decision.run_id,
                tool=input.call.name,
                arguments_digest=input.begun_digest or input.rule.arguments_digest,
                ordinal=input.ordinal,
            ),
            by=decision.by,
            ran=ran,
            outcome=PERSON_ANSWERED if ran else None,
            result=decision.output,
        )


def _approval(input: VerifyInput) -> Approval | None:
    """Return how the decision's call stands once it counts."""
    decision, rule = input.decision, input.rule
    kind = decision.kind
    if kind is DecisionKind.REVOKE:
        return None
    claimed_by = input.claimed_by
    if kind is DecisionKind.CLAIM:
        claimed_by = decision.by
    elif claimed_by is not None and same_person(claimed_by, decision.by):
        claimed_by = None
    return Approval(
        key=ApprovalKey(
            run_id=decision.run_id,
            attempt=input.attempt,
            round=input.round,
            call_id=decision.tool_call_id,
        ),
        owner=input.owner,
        tool=input.call.name[:MAX_NAME],
        tool_digest=rule.tool_digest,
        arguments_digest=rule.arguments_digest,
        groups=tuple(input.asked),
        approvers=tuple(rule.approvers),
        need=rule.approvals,
        have=input.have + (kind is DecisionKind.APPROVE),
        since=_instant(input.since_at),
        deadline=None if input.deadline_at is None else _instant(input.deadline_at),
        state=Standing.DECIDED if input.completes else Standing.WAITING,
        claimed_by=None if input.completes else claimed_by,
        decided_by=decision.by if input.completes else None,
        outcome=kind.value if input.completes else None,
    )


def _event(input: VerifyInput, refused: str | None = None) -> Event:
    decision = input.decision
    contents = {} if refused else {
        "note": decision.note, "arguments": decision.arguments, "output": decision.output,
    }  # fmt: skip
    return trail.decision(
        decision_id=decision.id,
        call_id=decision.tool_call_id,
        kind=decision.kind.value,
        by=decision.by,
        at=_instant(decision.at),
        tool_schema=decision.tool_digest,
        arguments_digest=decision.arguments_digest,
        shown=decision.shown,
        refused=refused,
        model=input.model,
        policy=input.rule.policy,
        facts={
            "attempt": input.attempt,
            "round": input.round,
            "groups": decision.groups,
            "face": decision.face,
            "token": decision.token,
            "token_made_by": decision.token_made_by,
            "key": decision.key_id,
            "signature": decision.signature,
            "for_rest_of_run": decision.for_rest_of_run or None,
        },
        **contents,
    )


def _is_own(input: VerifyInput) -> bool:
    asker = input.requested_by
    gives = input.decision.kind in (*_SETTLES, DecisionKind.CLAIM)
    if asker is None or not gives or input.rule.requester_may_approve:
        return False
    return input.decision.is_from(asker)


def _instant(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
