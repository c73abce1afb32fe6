"""How a run is read: from its workflow, from its result, or from what Temporal knows of it.

| the run | read from |
|---|---|
| lives, a worker answers | the query `view`, and `describe` for what is being retried |
| lives, no worker answers | `describe`: search attributes, memo; when a worker last wrote them |
| has ended | the workflow's result; no worker is needed |
| was ended in Temporal | the last state, where a worker can still tell it; shown as `failed` |
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from temporalio.api.common.v1 import WorkflowExecution as ExecutionRef
from temporalio.api.enums.v1 import EventType, PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest
from temporalio.client import (
    Client,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowQueryFailedError,
)
from temporalio.service import RPCError, RPCStatusCode

from activities.attached import WRITTEN
from activities.texts import Written
from runlane import search_attributes
from runlane.errors import RunNotFound
from runlane.rpc import is_namespace_missing
from runlane.temporal import failure_message
from runlane.visibility import ENDED_IN_TEMPORAL, ended_message, known_view
from runlane.waiting import PATIENCE
from runsapi import INTERMEDIATE, Run, RunStatus
from workflows.contract import VIEW_QUERY, WORKFLOW, RunlaneView, RunningTool, RunView

RPC_TIMEOUT = timedelta(seconds=10)

NO_ANSWER = frozenset(
    {
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.CANCELLED,
        # "Workflow is busy": its worker is behind, and what Temporal knows is as good as then.
        RPCStatusCode.RESOURCE_EXHAUSTED,
    }
)
"""What Temporal says of a query where no worker has answered."""

_GRACE = timedelta(milliseconds=100)
_LOOKED_BACK = 50
"""Events read from a history's end in search of the last workflow task."""
_HANDOVER = "Handover"


async def describe(
    client: Client, run_id: str, thread_id: str | None = None
) -> WorkflowExecutionDescription:
    """Return what Temporal knows of a run's workflow.

    Raises:
        RunNotFound: there is no such run, or it is on another thread.
        RPCError: Temporal can't be asked.
    """
    try:
        description = await client.get_workflow_handle(run_id).describe(rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if is_namespace_missing(error):
            raise
        # An id that no workflow can have is answered by INVALID_ARGUMENT.
        if error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
            raise _not_found(client, run_id) from None
        raise
    if description.workflow_type != WORKFLOW:
        raise _not_found(client, run_id)
    on = description.typed_search_attributes.get(search_attributes.THREAD)
    if thread_id is not None and on != thread_id:
        text = f"Run {run_id} is not on thread {thread_id}."
        raise RunNotFound(text, param="thread_id")
    return description


async def read(
    client: Client,
    run_id: str,
    *,
    thread_id: str | None = None,
    patience: timedelta = PATIENCE,
) -> RunView:
    """Return a run as completely as it can be known now.

    Args:
        client: connected to the run's namespace.
        run_id: ours.
        thread_id: where given, the run must be on it.
        patience: how long a worker may take to answer.

    Raises:
        RunNotFound: there is no such run, or it is on another thread.
        RPCError: Temporal can't be asked.
    """
    description = await describe(client, run_id, thread_id)
    view = await _view(client, description, patience)
    if view is None:
        # It ended between the two questions.
        description = await describe(client, run_id, thread_id)
        view = await _view(client, description, patience)
    if view is None:
        view = await _unanswered(client, description, None)
    size = description.raw_info.history_size_bytes
    return _with(view, history_events=description.history_length, history_bytes=size)


async def _view(
    client: Client, description: WorkflowExecutionDescription, patience: timedelta
) -> RunView | None:
    if description.close_time is not None:
        return await _result(client, description, patience)
    try:
        view = await _ask(client, description, patience)
    except WorkflowQueryFailedError as error:
        return await _unanswered(client, description, error.message)
    except TimeoutError:
        return await _unanswered(client, description, None)
    except RPCError as error:
        if error.status in NO_ANSWER:
            return await _unanswered(client, description, None)
        if error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION):
            return None
        raise
    progress = await _progress(description)
    view = _with(
        view,
        worker=True,
        retrying=progress.retrying,
        next_try_at=progress.next_try_at,
        running=[_at_work(tool, progress) for tool in view.runlane.running],
    )
    return _advanced(view, progress)


async def _ask(
    client: Client, description: WorkflowExecutionDescription, patience: timedelta
) -> RunView:
    handle = client.get_workflow_handle(description.id)
    # The client tries a timed-out query again, and then it takes twice as long.
    async with asyncio.timeout((patience + _GRACE).total_seconds()):
        view: RunView = await handle.query(VIEW_QUERY, result_type=RunView, rpc_timeout=patience)
    return view


async def _result(
    client: Client, description: WorkflowExecutionDescription, patience: timedelta
) -> RunView:
    if description.status in ENDED_IN_TEMPORAL:
        return await _ended_in_temporal(client, description, patience)
    handle = client.get_workflow_handle(
        description.id, run_id=description.run_id, result_type=RunView
    )
    try:
        view: RunView = await handle.result(rpc_timeout=RPC_TIMEOUT)
    except WorkflowFailureError:
        return await _ended_in_temporal(client, description, patience)
    return view


async def _ended_in_temporal(
    client: Client, description: WorkflowExecutionDescription, patience: timedelta
) -> RunView:
    try:
        view = await _ask(client, description, patience)
    except (RPCError, TimeoutError, WorkflowQueryFailedError):
        view = await known_view(description)
    closed = description.close_time or description.start_time
    upstream_run_id = view.runlane.upstream_run_id
    message = ended_message(description, upstream_run_id)
    fields = view.run.model_dump(mode="json") | {
        "status": RunStatus.FAILED,
        "failed_at": int(closed.timestamp()),
        "expires_at": None,
        "required_action": None,
        "last_error": {"code": "server_error", "message": message},
    }
    return RunView(
        run=Run.model_validate(fields),
        runlane=view.runlane.model_copy(
            update={"pending": [], "parked": False, "blocked": None, "uncertain": message}
        ),
    )


async def _unanswered(
    client: Client, description: WorkflowExecutionDescription, problem: str | None
) -> RunView:
    """Return what is known without a worker, or although the worker at hand can't tell."""
    progress = await _progress(description)
    written = await _last_written(client, description)
    known_at = max(written, progress.seen_at or 0.0)
    view = await known_view(description, known_at=known_at)
    view = _with(
        view,
        worker=problem is not None,
        retrying=progress.retrying,
        next_try_at=progress.next_try_at,
        needs_attention=None if problem is None else f"A worker can't read this run: {problem}",
    )
    return _advanced(view, progress)


class _Progress(NamedTuple):
    """What the run's activity under way shows of itself."""

    status: str | None = None
    polls: int = 0
    seen_at: float | None = None
    retrying: str | None = None
    next_try_at: float | None = None
    tools: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - never changed
    """What the tools at work say, by call."""
    written: Written | None = None
    """What is written of a message."""


async def _progress(description: WorkflowExecutionDescription) -> _Progress:
    progress = _Progress()
    for activity in description.raw_description.pending_activities:
        if activity.HasField("heartbeat_details"):
            details = await _heartbeat(description, activity)
            if "tool_call_id" in details:
                tools = {**progress.tools, str(details["tool_call_id"]): details}
                progress = progress._replace(tools=tools)
            if "status" in details:
                progress = progress._replace(
                    status=str(details["status"]),
                    polls=int(details.get("polls", 0)),
                    seen_at=_seconds(activity.last_heartbeat_time.ToDatetime(UTC)),
                )
            if WRITTEN in details:
                progress = progress._replace(written=Written.read(details[WRITTEN]))
        # Once another attempt has begun, the last one's error is history.
        waiting = activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
        failed = activity.HasField("last_failure")
        if waiting and failed and activity.attempt > 1:
            failure = activity.last_failure
            if failure.application_failure_info.type == _HANDOVER:
                continue
            progress = progress._replace(
                retrying=await _reason(description, activity),
                next_try_at=_seconds(activity.next_attempt_schedule_time.ToDatetime(UTC)),
            )
    return progress


class Polled(NamedTuple):
    """What the attached poll under way has last told."""

    status: str | None
    """The upstream run's."""
    written: Written | None
    """What is written of its message."""


async def polled(description: WorkflowExecutionDescription) -> Polled:
    """Return what the attached poll under way has last told."""
    progress = await _progress(description)
    return Polled(progress.status, progress.written)


async def _reason(description: WorkflowExecutionDescription, activity: PendingActivityInfo) -> str:
    if activity.last_failure.HasField("timeout_failure_info"):
        return f"{activity.activity_type.name}: no answer from the worker that did it"
    return await failure_message(description.data_converter, activity.last_failure)


async def _heartbeat(
    description: WorkflowExecutionDescription, activity: PendingActivityInfo
) -> dict[str, Any]:
    values: Sequence[Any] = await description.data_converter.decode(
        activity.heartbeat_details.payloads
    )
    return values[0] if values and isinstance(values[0], dict) else {}


def _at_work(tool: RunningTool, progress: _Progress) -> RunningTool:
    details = progress.tools.get(tool.tool_call_id, {})
    said = {name: details.get(name) for name in ("progress", "failure")}
    return tool.model_copy(update=said)


def _advanced(view: RunView, progress: _Progress) -> RunView:
    """Return the view with what an attached poll has seen since the workflow heard of it."""
    moving = view.run.status in (RunStatus.QUEUED, RunStatus.IN_PROGRESS)
    if progress.status is None or not moving:
        return view
    view = _with(view, polls=view.runlane.polls + progress.polls, upstream_status=progress.status)
    # The rest (required_action, completed_at) comes with the poll's result, within milliseconds.
    if progress.status not in INTERMEDIATE:
        return view
    run = view.run.model_copy(update={"status": RunStatus(progress.status)})
    return view.model_copy(update={"run": run})


async def _last_written(client: Client, description: WorkflowExecutionDescription) -> float:
    """Return when a worker last wrote the run's attributes, in Unix seconds."""
    request = GetWorkflowExecutionHistoryReverseRequest(
        namespace=client.namespace,
        execution=ExecutionRef(workflow_id=description.id, run_id=description.run_id),
        maximum_page_size=_LOOKED_BACK,
    )
    answer = await client.workflow_service.get_workflow_execution_history_reverse(
        request, timeout=RPC_TIMEOUT
    )
    for event in answer.history.events:
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            return _seconds(event.event_time.ToDatetime(UTC)) or 0.0
    return description.start_time.timestamp()


def _with(view: RunView, **known: object) -> RunView:
    runlane: RunlaneView = view.runlane.model_copy(update=known)
    return view.model_copy(update={"runlane": runlane})


def _seconds(moment: datetime) -> float | None:
    seconds = moment.timestamp()
    # An unset protobuf time reads as the epoch.
    return seconds if seconds > 0 else None


def _not_found(client: Client, run_id: str) -> RunNotFound:
    return RunNotFound(
        f"No run {run_id} in Temporal's namespace {client.namespace}; it may be another "
        "namespace's, or past its retention.",
        param="run_id",
    )


def is_closed(description: WorkflowExecutionDescription) -> bool:
    """Tell whether the workflow takes no more messages."""
    return description.status not in (None, WorkflowExecutionStatus.RUNNING)
