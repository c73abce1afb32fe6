"""Whether people have approved a call, as a worker finds it out right before the tool runs.

Nothing that a workflow says is believed here but the decisions themselves: who can write into
Temporal can make a workflow say anything, and can't sign.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from activities.decision import (
    Decision,
    DecisionKind,
    InvalidDecision,
    Verifier,
    check,
    may_decide,
)
from activities.tools import Rule


class NotApproved(Exception):
    """The call must not run; the text says why, for people."""


@dataclass(frozen=True)
class Approved:
    """What people let run."""

    by: list[str]
    decisions: list[str]
    """Their ids."""
    arguments: str | None
    """Edited ones, as JSON; none where the call's own stand."""


def approved(
    decisions: Sequence[Decision], verifier: Verifier, *, run_id: str, rule: Rule
) -> Approved:
    """Return what the decisions let run.

    Args:
        decisions: on the call, or on one before it that was the same, or for the rest of the run.
        verifier: knows the faces' keys.
        run_id: ours, as Temporal itself names the workflow.
        rule: as this worker's tool has it now, of the call as the upstream asks for it.

    Raises:
        NotApproved: they don't let it run.
    """
    counting: list[Decision] = []
    for decision in decisions:
        problem = _problem(decision, verifier, run_id, rule)
        if problem is not None:
            raise NotApproved(problem)
        if not any(decision.may_repeat(each) for each in counting):
            counting.append(decision)
    if len(counting) < rule.approvals:
        raise NotApproved(f"{len(counting)} of {rule.approvals} people have approved the call.")
    edited = {decision.arguments for decision in decisions}
    if len(edited) > 1:
        raise NotApproved("People have approved different arguments.")
    return Approved([each.by for each in counting], [each.id for each in decisions], edited.pop())


def _problem(decision: Decision, verifier: Verifier, run_id: str, rule: Rule) -> str | None:
    try:
        check(decision)
    except InvalidDecision as error:
        return f"A decision is malformed: {error}."
    named = decision.run_id, decision.tool_digest, decision.kind
    if named != (run_id, rule.tool_digest, DecisionKind.APPROVE):
        return "A decision is about something else."
    if decision.for_rest_of_run:
        if rule.approvals > 1 or rule.at_most_once:
            return "The tool can't be approved for the rest of the run."
    elif decision.arguments_digest != rule.arguments_digest:
        return "A decision is about other arguments."
    if not may_decide(decision.by, decision.groups, rule.approvers, rule.groups):
        return f"{decision.by} is none of those who may approve the tool."
    return verifier.refusal(decision)
