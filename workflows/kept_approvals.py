"""Approvals that outlive the call they were given for: kept ones, and those for the rest of a run.

A kept approval is about the very same call, asked for again by another upstream run, and is used
once. Neither ever applies to another schema of the tool. Pure.
"""

from activities.tools import Rule
from workflows import answers
from workflows.approval import Approval, KeptApproval
from workflows.decided import settle
from workflows.state import OpenCall, RunState


def unused(state: RunState, *, parked: bool) -> list[KeptApproval]:
    """Return the approvals of the open round's calls that have not begun to run.

    Args:
        state: of the run.
        parked: the upstream run that asked has expired, and another one is to be asked.
    """
    return [
        KeptApproval(
            key=call.key,
            tool_digest=call.rule.tool_digest,
            tool_call_id=call.id,
            attempt=state.attempt,
            approval=call.approval.model_copy(update={"checking": None}),
            parked=parked,
        )
        for call in answers.unanswered(state)
        if call.approval is not None
        and call.rule is not None
        and call.execution is None
        and (call.approval.approvals or call.approval.claimed_by)
    ]


def keep(state: RunState, approvals: list[KeptApproval]) -> None:
    """Keep approvals, now that the round in which they were given is closed."""
    again = {each.tool_call_id for each in approvals}
    state.kept = [
        each
        for each in state.kept
        # What an older round left may come back with it, as long as its upstream run lives.
        if each.parked or (each.attempt == state.attempt and each.tool_call_id not in again)
    ] + approvals


def attach(state: RunState, call: OpenCall) -> None:
    """Give a call that waits for people what they have approved already, if it was this call."""
    rule = call.rule
    if call.handled_by != "people" or rule is None or call.uncertain is not None:
        return
    kept = next((each for each in state.kept if _fits(state, each, call, rule)), None)
    if kept is not None:
        state.kept = [each for each in state.kept if each is not kept]
        call.approval = Approval(
            approvals=kept.approval.approvals,
            claimed_by=kept.approval.claimed_by,
            claimed_at=kept.approval.claimed_at,
        )
        settle(call, rule)
    if call.approval is None and not call.beside:
        _use_standing(state, call, rule)


def _fits(state: RunState, kept: KeptApproval, call: OpenCall, rule: Rule) -> bool:
    if kept.key != call.key or kept.tool_digest != rule.tool_digest:
        return False
    if kept.attempt == state.attempt:
        return kept.tool_call_id == call.id
    return kept.parked


def _use_standing(state: RunState, call: OpenCall, rule: Rule) -> None:
    if rule.approvals > 1 or rule.at_most_once:
        return
    for standing in state.standing:
        if standing.tool == call.name and standing.rule.tool_digest == rule.tool_digest:
            call.approval = Approval(approvals=[standing.decision])
            settle(call, rule)
            return
