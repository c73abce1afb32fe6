"""What a decision changes once it is verified, and what time changes where nobody decides. Pure."""

from typing import Literal

from activities.decision import Decision, DecisionKind, same_person
from activities.decisions import LapseInput
from activities.tools import Call, Rule
from runsapi import MAX_TOOL_OUTPUTS_BYTES
from workflows import answers
from workflows.approval import Approval, StandingApproval, asked_groups, deadline
from workflows.approvals import content
from workflows.contract import DecisionView, ToolOutputMessage, ToolOutputs
from workflows.state import OpenCall, RunState

BY = "person:"
"""What stands before a person's name where a view says who gave an answer."""
BY_DEADLINE = "deadline"
MAX_REFUSED = 100
"""Refused decisions kept for `view`, and claims; the oldest go first."""
MAX_NOTE_SHOWN = 300

_REJECTED = "A person rejected this call, so it was not run. The reason: "
_REJECTED_UNCERTAIN = "Whether this call was run is not known. A person says: "
_TOO_LATE = "Nobody decided about this call in time, so it was not run."
_TOO_LATE_UNCERTAIN = "Whether this call was run is not known; nobody could say in time."
Became = Literal["checking", "counted", "late", "refused"]
_TRANSIENT = (DecisionKind.CLAIM, DecisionKind.RELEASE)


def record(state: RunState, decision: Decision, now: float) -> None:
    """Take a decision that `approvals.assess` calls recorded; it counts once it is verified."""
    if decision.kind is DecisionKind.REVOKE:
        state.revoking.append(decision)
        return
    call = _waiting(state, decision)
    if call is not None:
        approval = _approval(call)
        approval.checking, approval.checking_since = decision, now


def unverified(state: RunState) -> list[Decision]:
    """Return the decisions that are yet to be verified."""
    checking = (call.approval.checking for call in state.calls if call.approval is not None)
    return [*(each for each in checking if each is not None), *state.revoking]


def completes(call: OpenCall, decision: Decision) -> bool:
    """Tell whether nobody else is asked about a call once this decision counts."""
    if decision.kind in (DecisionKind.REJECT, DecisionKind.ANSWER):
        return True
    if decision.kind is not DecisionKind.APPROVE or call.rule is None:
        return False
    return len(_approval(call).approvals) + 1 >= call.rule.approvals


def apply(state: RunState, decision: Decision, refusal: str | None, now: float) -> None:
    """Let a verified decision count, or drop one whose verification failed.

    Args:
        state: of the run.
        decision: as it was recorded.
        refusal: why it doesn't count; none where it does.
        now: unix seconds.
    """
    call = next((each for each in state.calls if _checks(each, decision)), None)
    if call is not None:
        _approval(call).checking = None
    state.revoking = [each for each in state.revoking if each != decision]
    late = None
    if refusal is None and decision.kind is DecisionKind.REVOKE:
        _revoke(state, decision)
    elif refusal is None:
        late = _obstacle(state, call)
        if late is None and call is not None:
            _count(state, call, decision, now)
    became: Became = "refused" if refusal else "late" if late else "counted"
    _remember(state, decision, became, refusal or late, now)


def lapse(state: RunState, now: float) -> OpenCall | None:
    """Do what the rules say of calls whose deadline has passed; silence never approves.

    A call one decision on which is being verified waits for that: it came in time.

    Returns:
        The call for which the run must fail, if there is one.
    """
    for call in _asked(state):
        rule, approval = call.rule, _approval(call)
        until = None if rule is None else deadline(rule, approval)
        if rule is None or until is None or now < until or approval.checking is not None:
            continue
        if _escalates(rule, approval):
            approval.group += 1
            approval.claimed_by = None
            _note_lapse(state, call, rule, until, "escalate")
        elif rule.outcome == "fail":
            approval.decided, approval.decided_by = DecisionKind.REJECT, []
            _note_lapse(state, call, rule, until, "fail")
            return call
        else:
            _note_lapse(state, call, rule, until, "reject")
            text = _TOO_LATE if call.uncertain is None else _TOO_LATE_UNCERTAIN
            _answer(state, call, text, BY_DEADLINE, now)
            approval.decided, approval.decided_by = DecisionKind.REJECT, []
    return None


def remind(state: RunState, now: float) -> None:
    """Count the reminders that are due; whoever sends notices sees the number grow."""
    for call in _asked(state):
        if call.rule is not None:
            passed = sum(at <= now for at in call.rule.remind_at)
            _approval(call).reminders = max(_approval(call).reminders, passed)


def next_at(state: RunState) -> float | None:
    """Return when `lapse` or `remind` has something to do next, if nobody decides before."""
    instants = []
    for call in _asked(state):
        rule, approval = call.rule, call.approval or Approval()
        if rule is None:
            continue
        until = deadline(rule, approval)
        if until is not None and approval.checking is None:
            instants.append(until)
        instants += sorted(rule.remind_at)[approval.reminders :][:1]
    return min(instants, default=None)


def reopen(call: OpenCall, uncertain: str | None = None) -> None:
    """Ask people about a call once more: what they approved is used, or was about another tool.

    Args:
        call: of the open round.
        uncertain: why nobody knows whether it ran, where that is what they are asked; no deadline
            answers that.
    """
    before = call.approval or Approval()
    call.handled_by, call.uncertain = "people", uncertain
    call.approval = Approval(group=before.group)
    if uncertain is not None and call.rule is not None:
        call.rule = call.rule.model_copy(update={"deadlines": [], "remind_at": []})


def settle(call: OpenCall, rule: Rule) -> None:
    """Hand the call to the worker once as many people have approved as must."""
    approval = _approval(call)
    if len(approval.approvals) >= rule.approvals:
        approval.decided, approval.decided_by = DecisionKind.APPROVE, approval.by
        approval.claimed_by = None
        call.handled_by, call.uncertain = "worker", None


def shown(decision: Decision, became: Became, reason: str | None, now: float) -> DecisionView:
    """Return what a view tells of a decision."""
    return DecisionView(
        id=decision.id,
        kind=decision.kind,
        tool_call_id=decision.tool_call_id,
        by=decision.by,
        at=decision.at,
        recorded_at=now,
        state=became,
        reason=reason,
        note=None if decision.note is None else decision.note[:MAX_NOTE_SHOWN],
        for_rest_of_run=decision.for_rest_of_run,
        face=decision.face,
        digest=content(decision),
    )


def _waiting(state: RunState, decision: Decision) -> OpenCall | None:
    calls = (call for call in _asked(state) if call.id == decision.tool_call_id)
    return next(calls, None)


def _asked(state: RunState) -> list[OpenCall]:
    return [call for call in answers.unanswered(state) if call.handled_by == "people"]


def _approval(call: OpenCall) -> Approval:
    if call.approval is None:
        call.approval = Approval()
    return call.approval


def _checks(call: OpenCall, decision: Decision) -> bool:
    return call.approval is not None and call.approval.checking == decision


def _obstacle(state: RunState, call: OpenCall | None) -> str | None:
    if state.stop is not None or state.ended_at is not None:
        return "The run was ending before it was verified."
    if call is None or answers.answer_of(state, call.id) is not None:
        return "The call waited no more when it was verified."
    return None


def _count(state: RunState, call: OpenCall, decision: Decision, now: float) -> None:
    approval, rule = _approval(call), call.rule
    if decision.kind is DecisionKind.CLAIM:
        approval.claimed_by, approval.claimed_at = decision.by, now
        return
    if approval.claimed_by is not None and same_person(approval.claimed_by, decision.by):
        approval.claimed_by = None
    if decision.kind is DecisionKind.APPROVE and rule is not None:
        approval.approvals.append(decision)
        if decision.for_rest_of_run:
            standing = StandingApproval(decision=decision, tool=call.name, rule=rule)
            state.standing.append(standing)
        settle(call, rule)
    elif decision.kind is DecisionKind.REJECT:
        text = _REJECTED if call.uncertain is None else _REJECTED_UNCERTAIN
        _answer(state, call, text + (decision.note or ""), BY + decision.by, now)
        approval.decided, approval.decided_by = DecisionKind.REJECT, [decision.by]
    elif decision.kind is DecisionKind.ANSWER:
        _answer(state, call, decision.output or "", BY + decision.by, now)
        approval.decided, approval.decided_by = DecisionKind.ANSWER, [decision.by]


def _answer(state: RunState, call: OpenCall, output: str, by: str, now: float) -> None:
    room = MAX_TOOL_OUTPUTS_BYTES - 1 - answers.round_bytes(state)
    fitting = output.encode()[: max(room, 0)].decode(errors="ignore")
    message = ToolOutputMessage(tool_call_id=call.id, output=fitting)
    delivery = ToolOutputs(tool_outputs=[message], by=by)
    answers.deliver(state, delivery, now=now, by_signal=False, decided=True)


def _note_lapse(
    state: RunState,
    call: OpenCall,
    rule: Rule,
    at: float,
    outcome: Literal["escalate", "reject", "fail"],
) -> None:
    approval = _approval(call)
    state.lapses.append(
        LapseInput(
            call=Call(id=call.id, name=call.name, arguments=""),
            rule=rule,
            outcome=outcome,
            at=at,
            asked=asked_groups(rule, approval),
            next_at=deadline(rule, approval) if outcome == "escalate" else None,
            attempt=state.attempt,
            round=state.rounds,
            since_at=call.since_at,
            have=len(approval.approvals),
        )
    )


def _escalates(rule: Rule, approval: Approval) -> bool:
    further = min(len(rule.groups), len(rule.deadlines))
    return rule.outcome == "escalate" and approval.group + 1 < further


def _revoke(state: RunState, decision: Decision) -> None:
    call_id = decision.tool_call_id
    state.standing = [s for s in state.standing if s.decision.tool_call_id != call_id]


def _remember(
    state: RunState, decision: Decision, became: Became, reason: str | None, now: float
) -> None:
    state.decisions.append(shown(decision, became, reason, now))
    passing = [each for each in state.decisions if _is_passing(each)]
    gone = {id(each) for each in passing[:-MAX_REFUSED]}
    if gone:
        state.decisions = [each for each in state.decisions if id(each) not in gone]


def _is_passing(decision: DecisionView) -> bool:
    # All others are remembered for ever: sent again, they must not count again.
    return decision.state == "refused" or decision.kind in _TRANSIENT
