"""Approvals that outlive the call they were given for: kept ones, and those for the rest of a run.

A kept approval is about the very same call, asked for again by another upstream run, and is used
once. Neither ever applies to another schema of the tool. Pure.
"""

from activities.tools import Rule
from workflows import answers
from workflows.approval import Approval, KeptApproval
from workflows.decided import settle
from workflows.state import OpenCall, RunState


def keep(state: RunState, *, parked: bool) -> None:
    """Keep the approvals of the open round's calls that have not run, before the round closes.

    Args:
        state: of the run.
        parked: the upstream run that asked has expired, and another one is to be asked.
    """
    if parked:
        # What an older round didn't use, nobody asked for again.
        state.kept = [each for each in state.kept if each.parked]
    for call in answers.unanswered(state):
        approval, rule = call.approval, call.rule
        if approval is None or rule is None or not (approval.approvals or approval.claimed_by):
            continue
        state.kept.append(
            KeptApproval(
                key=call.key,
                tool_digest=rule.tool_digest,
                tool_call_id=call.id,
                attempt=state.attempt,
                approval=approval.model_copy(update={"checking": None}),
                parked=parked,
            )
        )


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
