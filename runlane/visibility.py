"""What Temporal itself knows of a run: search attributes, memo, times. No worker is asked.

Lists are made of nothing else, and so is a run while no worker answers.
"""

import time
from typing import Any

from temporalio.client import WorkflowExecution, WorkflowExecutionStatus

from runlane import search_attributes
from runlane.errors import CannotDecrypt
from runlane.payload_store import PayloadStoreError
from runsapi import Run, RunStatus
from workflows.contract import (
    PENDING_MEMO,
    REQUEST_MEMO,
    BlockedKind,
    BlockedView,
    PendingCall,
    RequestMemo,
    RunlaneView,
    RunView,
    UnreadableView,
)

ENDED_IN_TEMPORAL = {
    WorkflowExecutionStatus.TERMINATED: "terminated",
    WorkflowExecutionStatus.TIMED_OUT: "timed out",
    WorkflowExecutionStatus.FAILED: "failed",
    WorkflowExecutionStatus.CANCELED: "cancelled",
}
"""Closed without the workflow's own end: nobody told the upstream."""

_ENDED_AT = {
    RunStatus.COMPLETED: "completed_at",
    RunStatus.CANCELLED: "cancelled_at",
    RunStatus.FAILED: "failed_at",
}


async def known_view(execution: WorkflowExecution, *, known_at: float | None = None) -> RunView:
    """Return a run as Temporal shows it.

    Fields that only the workflow or the upstream knows (instructions, tools, usage) are empty,
    and the arguments of pending calls are shortened.

    Args:
        execution: from a list or a description.
        known_at: Unix seconds of what is shown; now, if not given.
    """
    return _view(
        execution,
        await request_memo(execution),
        await _pending(execution),
        time.time() if known_at is None else known_at,
    )


async def listed_view(execution: WorkflowExecution) -> RunView:
    """Return a run as `known_view` does; where its memo can't be read, what is in the clear.

    One such run must not keep a whole list from being read.
    """
    memo, pending = None, list[PendingCall]()
    unreadable: CannotDecrypt | PayloadStoreError | None = None
    try:
        memo = await request_memo(execution)
        pending = await _pending(execution)
    except (CannotDecrypt, PayloadStoreError) as error:
        unreadable = error
    view = _view(execution, memo, pending, time.time())
    return view if unreadable is None else not_read(view, unreadable)


def not_read(view: RunView, error: CannotDecrypt | PayloadStoreError) -> RunView:
    """Return the view of a run of which the rest can't be read here, with the reason."""
    key_id = error.key_id if isinstance(error, CannotDecrypt) else None
    unreadable = UnreadableView(message=error.message, key_id=key_id)
    told = view.runlane.model_copy(update={"unreadable": unreadable})
    return view.model_copy(update={"runlane": told})


def _view(
    execution: WorkflowExecution,
    memo: RequestMemo | None,
    pending: list[PendingCall],
    known_at: float,
) -> RunView:
    status = status_of(execution)
    created = created_at(execution, memo)
    fields: dict[str, Any] = {
        "id": execution.id,
        "status": status,
        "thread_id": _attribute(execution, search_attributes.THREAD.name),
        "assistant_id": _attribute(execution, search_attributes.ASSISTANT.name),
        "created_at": int(created),
        "model": None if memo is None else memo.model,
        "metadata": {} if memo is None else memo.metadata,
    }
    deadline_at = None if memo is None or memo.deadline is None else created + memo.deadline
    if execution.close_time is not None:
        if status in _ENDED_AT:
            fields[_ENDED_AT[RunStatus(status)]] = int(execution.close_time.timestamp())
    elif deadline_at is not None:
        fields["expires_at"] = int(deadline_at)
    ended = None
    if execution.status in ENDED_IN_TEMPORAL:
        ended = ended_message(execution, None)
        fields["last_error"] = {"code": "server_error", "message": ended}
    if pending:
        fields["required_action"] = _required_action(pending)
    return RunView(
        run=Run.model_validate(fields),
        runlane=RunlaneView(
            owner=_attribute(execution, search_attributes.OWNER.name),
            blocked=_blocked(execution),
            uncertain=ended,
            pending=pending,
            deadline_at=deadline_at,
            known_at=known_at,
        ),
    )


async def request_memo(execution: WorkflowExecution) -> RequestMemo | None:
    """Return the memo set at the start, or None for a workflow that Runlane didn't start."""
    return await execution.memo_value(REQUEST_MEMO, None, type_hint=RequestMemo)


def status_of(execution: WorkflowExecution) -> str:
    """Return the run's status: `failed` where Temporal ended the workflow over its head."""
    if execution.status in ENDED_IN_TEMPORAL:
        return RunStatus.FAILED
    return _attribute(execution, search_attributes.STATUS.name) or RunStatus.QUEUED


def created_at(execution: WorkflowExecution, memo: RequestMemo | None = None) -> float:
    """Return the run's creation by the caller's clock, in Unix seconds."""
    moment = execution.typed_search_attributes.get(search_attributes.CREATED)
    if moment is not None:
        return moment.timestamp()
    return execution.start_time.timestamp() if memo is None else memo.created_at


def ended_message(execution: WorkflowExecution, upstream_run_id: str | None) -> str:
    """Say that the workflow was ended over its head, and what may be left behind."""
    how = "ended" if execution.status is None else ENDED_IN_TEMPORAL.get(execution.status, "ended")
    left = (
        "its upstream run may be alive"
        if upstream_run_id is None
        else f"upstream run {upstream_run_id} may be alive"
    )
    return f"The run was {how} in Temporal, past Runlane; {left}."


def _attribute(execution: WorkflowExecution, name: str) -> str:
    for pair in execution.typed_search_attributes:
        if pair.key.name == name:
            return str(pair.value)
    return ""


async def _pending(execution: WorkflowExecution) -> list[PendingCall]:
    # The memo is never cleared, for that would cost an event: only the status makes it true.
    if status_of(execution) != RunStatus.REQUIRES_ACTION:
        return []
    calls = await execution.memo_value(PENDING_MEMO, None, type_hint=list[PendingCall])
    return calls or []


def _blocked(execution: WorkflowExecution) -> BlockedView | None:
    kind = _attribute(execution, search_attributes.BLOCKED.name)
    if kind not in set(BlockedKind) or execution.close_time is not None:
        return None
    return BlockedView(
        kind=BlockedKind(kind),
        message=f"Blocked ({kind}); the message is with the worker",
        since_at=None,
    )


def _required_action(pending: list[PendingCall]) -> dict[str, Any]:
    calls = [
        {
            "id": call.tool_call_id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in pending
        if call.handled_by == "caller"
    ]
    return {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": calls}}
