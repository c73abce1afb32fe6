"""The row by which a call is listed in the ledger until a person has decided it."""

from datetime import UTC, datetime

from activities.contract import canonical_arguments
from activities.tools import Call, Rule
from ledger.approval import Approval, ApprovalKey


def waiting(
    call: Call, rule: Rule, *, run_id: str, owner: str, attempt: int, round: int, since: float
) -> Approval:
    """Return the row of a call that waits for people.

    Args:
        call: as the upstream asks for it.
        rule: its tool's.
        run_id: ours.
        owner: of the run.
        attempt: of our run, from 1.
        round: of calls in it.
        since: Unix seconds.
    """
    escalates = rule.outcome == "escalate" and bool(rule.groups)
    return Approval(
        key=ApprovalKey(run_id=run_id, attempt=attempt, round=round, call_id=call.id),
        owner=owner,
        tool=call.name,
        tool_digest=rule.tool_digest,
        arguments_digest=rule.arguments_digest,
        arguments=canonical_arguments(call.arguments),
        reason=rule.reason,
        groups=tuple(rule.groups[:1] if escalates else rule.groups),
        approvers=tuple(rule.approvers),
        need=rule.approvals,
        since=datetime.fromtimestamp(since, UTC),
        deadline=datetime.fromtimestamp(rule.deadlines[0], UTC) if rule.deadlines else None,
    )
