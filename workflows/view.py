"""What a run shows of itself: the protocol's Run object, and what Runlane knows beside it. Pure."""

from activities.contract import answerable
from activities.decision import Decision
from runsapi import TERMINAL, Run, RunStatus
from workflows import answers, decided, executions
from workflows.approval import Approval, asked_groups, deadline
from workflows.contract import (
    PENDING_ARGUMENTS_SHOWN,
    PENDING_MEMO_BYTES,
    AnswerView,
    Approvals,
    DecisionView,
    PendingCall,
    RunlaneView,
    RunningTool,
    RunRequest,
    RunView,
    canonical_json,
    content_digest,
)
from workflows.state import OpenCall, RunState, StopReason

_NOT_IN_MEMO = {
    "approvals", "approved_arguments", "approved_by", "approvers", "beside", "checking",
    "claimed_at", "claimed_by", "groups",
}  # fmt: skip
_NULL_UNTIL_ENDED = ("cancelled_at", "completed_at", "failed_at")


def run_view(run_id: str, request: RunRequest, state: RunState) -> RunView:
    """Return the whole view of a run."""
    return RunView(
        run=seed_run(run_id, request, state),
        runlane=RunlaneView(
            owner=request.owner,
            upstream=state.upstream,
            upstream_run_id=None if state.run is None else state.run.id,
            attempt=state.attempt,
            attempts=state.attempts,
            upstream_status=None if state.run is None else str(state.run.status),
            parked=is_parked(state),
            blocked=state.blocked,
            needs_attention=needs_attention(state),
            uncertain=state.uncertain,
            cancel_requested=state.stop == StopReason.CANCEL,
            pending=pending_calls(state),
            asks=state.asks,
            running=[
                RunningTool(tool_call_id=each.tool_call_id, name=each.name, begun_at=each.begun_at)
                for each in state.executions
                if each.uncertain is None
            ],
            answers=[
                AnswerView(
                    tool_call_id=answer.tool_call_id,
                    name=answer.name,
                    attempt=answer.attempt,
                    round=answer.round,
                    outcome=answer.outcome,
                    output_digest=answer.output_digest,
                    by=answer.by,
                    answered_at=answer.answered_at,
                    call_ids=answer.call_ids,
                    failure=answer.failure,
                )
                for answer in state.answers
            ],
            early=list(state.early),
            rejected=state.rejected,
            decisions=[*state.decisions, *map(_checking, decided.unverified(state))],
            polls=state.polls,
            rounds=state.rounds,
            recreations=state.recreations,
            simulated=state.simulated,
            deadline_at=state.deadline_at,
        ),
    )


def seed_run(run_id: str, request: RunRequest, state: RunState) -> Run:
    """Return the Run object as callers of the protocol know it: ours, over all attempts."""
    asked = request.params
    upstream = state.run
    status = shown_status(state)
    fields = {
        "assistant_id": asked.get("assistant_id"),
        "instructions": asked.get("instructions"),
        "model": asked.get("model"),
        "tools": asked.get("tools") or [],
        **({} if upstream is None else upstream.model_dump(mode="json")),
        "id": run_id,
        "object": "thread.run",
        "thread_id": request.thread_id,
        "created_at": int(request.created_at),
        "expires_at": None if state.ended_at is not None else int(state.deadline_at),
        "metadata": state.metadata,
        "status": status,
        "required_action": None,
        "last_error": state.last_error,
        **dict.fromkeys(_NULL_UNTIL_ENDED),
    }
    if status == RunStatus.REQUIRES_ACTION and upstream is not None:
        # Parked too: the upstream run that asked is gone, the calls still wait.
        fields["required_action"] = (
            {
                "type": "submit_tool_outputs",
                "submit_tool_outputs": {
                    "tool_calls": [
                        {
                            "id": call.id,
                            "type": "function",
                            "function": {"name": call.name, "arguments": call.arguments},
                        }
                        for call in state.calls
                        if call.handled_by == "caller"
                    ]
                },
            }
            if state.calls
            else upstream.model_dump(mode="json")["required_action"]
        )
    if state.ended_at is not None:
        stamp = {"completed": "completed_at", "cancelled": "cancelled_at", "failed": "failed_at"}
        if status in stamp:
            fields[stamp[status]] = int(state.ended_at)
        if (upstream is not None and upstream.usage is not None) or any(state.past_usage):
            prompt, completion, total = total_usage(state)
            fields["usage"] = {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": total,
            }
    else:
        fields["usage"] = None
    if status != RunStatus.INCOMPLETE:
        fields["incomplete_details"] = None
    return Run.model_validate(fields)


def shown_status(state: RunState) -> RunStatus:  # noqa: PLR0911  # a table of cases
    """Return our status, one of the protocol's nine, whatever word the upstream used."""
    run = state.run
    if state.ended_at is not None:
        return RunStatus(state.status)
    if state.stop is not None:
        return RunStatus.CANCELLING
    if answers.awaited(state):
        return RunStatus.REQUIRES_ACTION
    if answers.unanswered(state) or executions.is_busy(state):
        # A worker is at work.
        return RunStatus.IN_PROGRESS
    if run is None or state.calls or run.status in TERMINAL:
        # All calls are answered, or another upstream run is on its way: nothing is asked of anyone.
        return RunStatus.QUEUED
    if run.status == RunStatus.REQUIRES_ACTION and answerable(run):
        # Its outputs are in; the upstream hasn't noticed yet.
        return RunStatus.IN_PROGRESS
    return run.status if isinstance(run.status, RunStatus) else RunStatus.IN_PROGRESS


def is_parked(state: RunState) -> bool:
    """Tell whether answers are awaited although the upstream run that asked has expired."""
    run = state.run
    return (
        state.ended_at is None
        and run is not None
        and run.status == RunStatus.EXPIRED
        and bool(answers.unanswered(state))
    )


def total_usage(state: RunState) -> list[int]:
    """Return prompt, completion and total tokens over all attempts: all of them were paid for."""
    usage = None if state.run is None else state.run.usage
    now = (
        [0, 0, 0]
        if usage is None
        else [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens]
    )
    return [before + here for before, here in zip(state.past_usage, now, strict=True)]


def needs_attention(state: RunState) -> str | None:
    """Say why nobody's outputs can help, where the upstream run waits for something else."""
    run = state.run
    if run is None or run.status != RunStatus.REQUIRES_ACTION or state.calls or state.stop:
        return None
    action = run.required_action
    if action is None:
        return "The upstream run requires an action and names none"
    if action.type != "submit_tool_outputs":
        return f"The upstream run requires {action.type}, which tool outputs can't answer"
    if not run.tool_calls:
        return "The upstream run requires tool outputs and lists no tool call"
    kinds = sorted({call.type for call in run.tool_calls if call.type != "function"})
    if kinds:
        return f"The upstream run waits for a call of type {', '.join(kinds)}, which it runs itself"
    return (
        None
        if answerable(run)
        else "The upstream run lists tool calls without an id, or two under one id"
    )


def pending_calls(state: RunState) -> list[PendingCall]:
    """Return the calls that wait for the caller, for people, or for what people let run."""
    return [
        _pending(state, call)
        for call in answers.unanswered(state)
        if call.handled_by in ("caller", "people") or call.approval is not None
    ]


def _pending(state: RunState, call: OpenCall) -> PendingCall:
    pending = PendingCall(
        tool_call_id=call.id,
        name=call.name,
        arguments=call.arguments,
        arguments_digest=content_digest(call.arguments),
        attempt=state.attempt,
        round=state.rounds,
        since_at=call.since_at,
    )
    rule, approval = call.rule, call.approval or Approval()
    if call.handled_by == "caller" or rule is None:
        return pending
    return pending.model_copy(
        update={
            "handled_by": "people",
            "state": _state_of(state, call),
            "arguments_digest": rule.arguments_digest,
            "tool_digest": rule.tool_digest,
            "reason": call.uncertain or rule.reason,
            "groups": asked_groups(rule, approval),
            "approvers": rule.approvers,
            "approvals": Approvals(have=len(approval.approvals), need=rule.approvals),
            "approved_by": approval.by,
            "approved_arguments": next((each.arguments for each in approval.approvals), None),
            "claimed_by": approval.claimed_by,
            "claimed_at": None if approval.claimed_by is None else approval.claimed_at,
            "deadline_at": deadline(rule, approval),
            "outcome": rule.outcome if rule.deadlines else None,
            "checking": approval.checking is not None,
            "beside": call.beside,
        }
    )


def _state_of(state: RunState, call: OpenCall) -> str:
    if call.uncertain is not None:
        return "uncertain"
    if call.handled_by == "people":
        return "waiting"
    return "approved" if is_parked(state) else "running"


def _checking(decision: Decision) -> DecisionView:
    return decided.shown(decision, "checking", None, decision.at)


def pending_memo(state: RunState) -> list[dict[str, object]]:
    """Return the pending calls for the memo, cut to what a memo may hold.

    A memo over Temporal's limit fails every workflow task for good, so calls that don't fit are
    left out; the view has them all.
    """
    shown: list[dict[str, object]] = []
    size = len("[]")
    for call in pending_calls(state):
        if call.state in ("approved", "running"):
            # Nobody has to do anything about it, and each change costs an event.
            continue
        # Who is asked, and who has spoken, is the ledger's to list: it may be long, and it changes.
        entry = call.model_dump(mode="json", exclude_defaults=True, exclude=_NOT_IN_MEMO)
        entry["arguments"] = call.arguments[:PENDING_ARGUMENTS_SHOWN]
        if call.reason is not None:
            entry["reason"] = call.reason[:PENDING_ARGUMENTS_SHOWN]
        more = len(canonical_json(entry).encode()) + len(",")
        if size + more <= PENDING_MEMO_BYTES:
            size += more
            shown.append(entry)
    return shown
