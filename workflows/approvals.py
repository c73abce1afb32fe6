"""What a run says to a decision: what would become of it, before anything is verified. Pure.

Nothing here trusts a decision. It is verified by an activity afterwards, and `workflows.decided`
lets it count.
"""

from activities.decision import (
    Decision,
    DecisionKind,
    DecisionReceipt,
    DecisionStatus,
    asked_for_it,
    digest,
    may_decide,
    same_person,
)
from activities.tools import Rule
from workflows import answers
from workflows.approval import (
    Approval,
    StandingApproval,
    asked_groups,
    claimant,
    deadline,
    is_asked,
)
from workflows.contract import DecisionView, ReceiptStatus, ToolOutputMessage
from workflows.state import OpenCall, RunState

_GIVES = (DecisionKind.APPROVE, DecisionKind.ANSWER, DecisionKind.CLAIM)
"""What a requester may not do himself where the rule forbids it; to say no is always his."""
_DECIDES = (DecisionKind.APPROVE, DecisionKind.REJECT, DecisionKind.ANSWER)

_Refusal = tuple[DecisionStatus, str]


def assess(
    state: RunState, decision: Decision, *, run_id: str, requested_by: str | None, now: float
) -> DecisionReceipt:
    """Tell what would become of a decision; changes nothing.

    Args:
        state: of the run.
        decision: well-formed, as `activities.decision.check` says; perhaps forged.
        run_id: ours.
        requested_by: the person who asked for the run, where that is known.
        now: unix seconds.
    """
    status, message = _assessed(state, decision, run_id, requested_by, now)
    return DecisionReceipt(
        status=status,
        message=message,
        decision_id=decision.id,
        tool_call_id=decision.tool_call_id,
    )


def call_of(state: RunState, decision: Decision) -> OpenCall | None:
    """Return the open round's call that a decision is about."""
    return next((call for call in state.calls if call.id == decision.tool_call_id), None)


def standing_of(state: RunState, decision: Decision) -> StandingApproval | None:
    """Return the approval for the rest of the run that was given on a decision's call."""
    its = (s for s in state.standing if s.decision.tool_call_id == decision.tool_call_id)
    return next(its, None)


def content(decision: Decision) -> str:
    """Return what tells a decision from another one under the same id, its signature included."""
    # Of a decision without the field it must be what it was before there was one.
    left_out = {"token_made_by"} if decision.token_made_by is None else None
    return digest(decision.model_dump_json(exclude=left_out)) or ""


def _assessed(
    state: RunState, decision: Decision, run_id: str, requested_by: str | None, now: float
) -> _Refusal:
    if decision.run_id != run_id:
        return DecisionStatus.UNKNOWN, f"It was made for {decision.run_id}, not for {run_id}."
    seen = _seen(state, decision)
    if seen is not None:
        return seen
    if state.stop is not None or state.ended_at is not None:
        return DecisionStatus.TOO_LATE, "The run has ended or is ending."
    if decision.kind is DecisionKind.REVOKE:
        return _revocation(state, decision)
    call = call_of(state, decision)
    if call is None:
        return _gone(state, decision)
    return _of_call(state, call, decision, requested_by, now)


def _seen(state: RunState, decision: Decision) -> _Refusal | None:
    """Refuse a decision that counts already, whatever call it is sent for now."""
    before = _find(state, decision.id)
    if before is None:
        return None
    if before.digest == content(decision):
        return DecisionStatus.DUPLICATE, "This decision was recorded before."
    return DecisionStatus.ALREADY_DECIDED, "Another decision was recorded under this id."


def _find(state: RunState, decision_id: str) -> DecisionView | None:
    # One that was refused may have been forged, and must not stand in the true one's way.
    true = (each for each in state.decisions if each.state in ("counted", "late"))
    return next((each for each in true if each.id == decision_id), None)


def _revocation(state: RunState, decision: Decision) -> _Refusal:
    standing = standing_of(state, decision)
    if standing is None:
        message = "Nothing was approved for the rest of the run on this call, or it is revoked."
        return DecisionStatus.NOT_WAITING, message
    if _digests(standing.rule) != (decision.arguments_digest, decision.tool_digest):
        return _other_digest()
    rule = standing.rule
    if not may_decide(decision.by, decision.groups, rule.approvers, rule.groups):
        return DecisionStatus.NOT_ALLOWED, f"{decision.by} is none of those who may decide."
    if any(content(each) == content(decision) for each in state.revoking):
        return DecisionStatus.DUPLICATE, "This decision was recorded; it is being verified."
    return DecisionStatus.RECORDED, "Recorded; it is being verified."


def _gone(state: RunState, decision: Decision) -> _Refusal:
    if decision.tool_call_id in state.known:
        return DecisionStatus.TOO_LATE, "The call waits no more."
    return DecisionStatus.UNKNOWN, "The run has no such call."


def _of_call(
    state: RunState, call: OpenCall, decision: Decision, requested_by: str | None, now: float
) -> _Refusal:
    rule, approval = call.rule, call.approval or Approval()
    not_asked = _not_asked(state, call, approval)
    if not_asked is not None:
        return not_asked
    if rule is None:
        return DecisionStatus.NOT_WAITING, "The call waits for no person."
    if _digests(rule) != (decision.arguments_digest, decision.tool_digest):
        return _other_digest()
    return (
        _of_time(rule, approval, decision, now)
        or _of_person(rule, approval, decision, requested_by, now)
        or _of_kind(state, call, rule, approval, decision)
        or (DecisionStatus.RECORDED, "Recorded; it is being verified.")
    )


def _not_asked(state: RunState, call: OpenCall, approval: Approval) -> _Refusal | None:
    if approval.decided is not None:
        return DecisionStatus.ALREADY_DECIDED, _already(approval)
    if answers.answer_of(state, call.id) is not None:
        return DecisionStatus.NOT_WAITING, "The call has an answer."
    if call.handled_by == "unclassified":
        return DecisionStatus.BUSY, "Who answers the call is being found out."
    if call.handled_by != "people":
        return DecisionStatus.NOT_WAITING, "The call waits for no person."
    return None


def _of_time(rule: Rule, approval: Approval, decision: Decision, now: float) -> _Refusal | None:
    if approval.checking is not None:
        if content(approval.checking) == content(decision):
            return DecisionStatus.DUPLICATE, "This decision was recorded; it is being verified."
        return DecisionStatus.BUSY, "Another decision on the call is being verified."
    until = deadline(rule, approval)
    if until is not None and now >= until:
        return DecisionStatus.TOO_LATE, "The call's deadline has passed."
    return None


def _of_person(
    rule: Rule, approval: Approval, decision: Decision, requested_by: str | None, now: float
) -> _Refusal | None:
    by = decision.by
    if not is_asked(rule, approval, decision):
        asked = [*rule.approvers, *(f"the group {each}" for each in asked_groups(rule, approval))]
        who = ", ".join(asked)
        return DecisionStatus.NOT_ALLOWED, f"{by} is none of those who may decide now: {who}."
    is_own = requested_by is not None and decision.is_from(requested_by)
    if is_own and not rule.requester_may_approve and decision.kind in _GIVES:
        return DecisionStatus.NOT_ALLOWED, asked_for_it(decision)
    holder = claimant(approval, now)
    if decision.kind is DecisionKind.RELEASE:
        if holder is None:
            return DecisionStatus.NOT_WAITING, "Nobody looks after the call."
        if not same_person(holder, by):
            return DecisionStatus.NOT_ALLOWED, f"{holder} looks after the call, not {by}."
    elif holder is not None and not same_person(holder, by):
        return DecisionStatus.CLAIMED, f"{holder} looks after the call."
    return None


def _of_kind(
    state: RunState, call: OpenCall, rule: Rule, approval: Approval, decision: Decision
) -> _Refusal | None:
    if decision.kind is DecisionKind.APPROVE:
        return _of_approval(call, rule, approval, decision)
    if decision.kind is DecisionKind.ANSWER:
        given = ToolOutputMessage(tool_call_id=call.id, output=decision.output or "")
        receipt = answers.assess(state, given, decided=True)
        if receipt.status == ReceiptStatus.TOO_LARGE:
            room = f"{receipt.room or 0:,} bytes are left in this round of calls."
            return DecisionStatus.TOO_LARGE, f"The output is too large: {room}"
    return None


def _of_approval(
    call: OpenCall, rule: Rule, approval: Approval, decision: Decision
) -> _Refusal | None:
    for given in approval.approvals:
        if given.may_repeat(decision):
            return DecisionStatus.NOT_ALLOWED, _approved_already(given, decision)
    if approval.approvals:
        first = approval.approvals[0]
        if first.arguments != decision.arguments:
            message = f"{first.by} has approved other arguments; all must approve the same."
            return DecisionStatus.CONFLICT, message
    if call.uncertain is not None and decision.arguments is not None:
        message = "Nobody knows whether the call ran, so its arguments can't be edited."
        return DecisionStatus.NOT_ALLOWED, message
    if decision.for_rest_of_run:
        return _of_standing(call, rule)
    return None


def _of_standing(call: OpenCall, rule: Rule) -> _Refusal | None:
    because = None
    if rule.approvals > 1:
        because = f"{rule.approvals} people must approve each call"
    elif rule.at_most_once:
        because = "the tool may run at most once"
    elif call.uncertain is not None:
        because = "nobody knows whether this call ran"
    elif call.beside:
        because = "the tool has run in this run with other arguments"
    if because is None:
        return None
    return DecisionStatus.NOT_ALLOWED, f"It can't be approved for the rest of the run: {because}."


def _digests(rule: Rule) -> tuple[str, str]:
    return rule.arguments_digest, rule.tool_digest


def _other_digest() -> _Refusal:
    message = "It was made on other arguments, or on another schema of the tool. Look again."
    return DecisionStatus.OTHER_DIGEST, message


def _approved_already(given: Decision, decision: Decision) -> str:
    if same_person(given.by, decision.by):
        return f"{decision.by} has approved it already; another person must."
    if decision.is_from(given.by):
        maker, token = given.by, decision
    else:
        maker, token = decision.by, given
    return (
        f"{given.by} has approved it already, and {maker} made the token of {token.by}; "
        "another person must."
    )


def _already(approval: Approval) -> str:
    how = {
        DecisionKind.APPROVE: "approved",
        DecisionKind.REJECT: "rejected",
        DecisionKind.ANSWER: "answered",
    }.get(approval.decided or DecisionKind.APPROVE, "decided")
    people = " and ".join(approval.decided_by) or "its deadline"
    return f"It was {how} by {people}."
