"""Runs whose workflow tasks fail: they stand still until somebody mends what makes them fail.

Temporal tries such a task again for ever, so nothing is lost, but nobody is told either.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from temporalio.api.common.v1 import WorkflowExecution as ExecutionRef
from temporalio.api.enums.v1 import EventType, TimeoutType, WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest
from temporalio.client import Client, WorkflowExecutionDescription
from temporalio.service import RPCError, RPCStatusCode

from runlane.errors import CannotDecrypt
from runlane.payload_store import PayloadStoreError
from runlane.temporal import failure_message
from workflows.contract import WORKFLOW

SCANNED = 100
"""Living runs that are looked at besides those that Temporal itself reports: it does so after some
failures in a row, and a server may be set not to."""

_REPORTED = "TemporalReportedProblems IS NOT NULL"
_LIVING = f"WorkflowType = '{WORKFLOW}' AND ExecutionStatus = 'Running'"
_AT_ONCE = 10
_LOOKED_BACK = 20
_PREFIX = "WORKFLOW_TASK_FAILED_CAUSE_"
_PASSING = (
    # The task was overtaken by a message, or given back; the next one does it.
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_STICKY_TASK_QUEUE,
)


@dataclass(frozen=True)
class Stuck:
    """A run that can't go on."""

    run_id: str
    cause: str
    """Temporal's word, in lower case: `non_deterministic_error`; or `timed_out`."""
    error: str
    """The name of the error that the worker met; empty where there was none."""
    message: str
    since: float
    """When the task first failed, in Unix seconds."""

    @property
    def remedy(self) -> str:
        """What lets it go on, or how to give it up."""
        return _remedy(self)


async def find(client: Client) -> list[Stuck]:
    """Return the runs whose workflow tasks fail.

    Raises:
        RPCError: Temporal can't be asked.
    """
    ids = {row_id: None async for row_id in _candidates(client)}
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(run_id: str) -> Stuck | None:
        async with slots:
            return await _examine(client, run_id)

    found = await asyncio.gather(*(one(run_id) for run_id in ids))
    return sorted((stuck for stuck in found if stuck is not None), key=lambda s: s.since)


async def _candidates(client: Client) -> AsyncIterator[str]:
    try:
        async for row in client.list_workflows(f"{_LIVING} AND {_REPORTED}", limit=SCANNED):
            yield row.id
    except RPCError as error:
        # A server that doesn't know the attribute.
        if error.status is not RPCStatusCode.INVALID_ARGUMENT:
            raise
    async for row in client.list_workflows(_LIVING, limit=SCANNED):
        yield row.id


async def _examine(client: Client, run_id: str) -> Stuck | None:
    try:
        description = await client.get_workflow_handle(run_id).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise
    raw = description.raw_description
    if not raw.HasField("pending_workflow_task") or raw.pending_workflow_task.attempt < 2:
        return None
    request = GetWorkflowExecutionHistoryReverseRequest(
        namespace=client.namespace,
        execution=ExecutionRef(workflow_id=run_id, run_id=description.run_id),
        maximum_page_size=_LOOKED_BACK,
    )
    answer = await client.workflow_service.get_workflow_execution_history_reverse(request)
    for event in answer.history.events:
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            return None
        stuck = await _failed(description, event)
        if stuck is not None:
            return stuck
    return None


async def _failed(description: WorkflowExecutionDescription, event: HistoryEvent) -> Stuck | None:
    since = event.event_time.ToMilliseconds() / 1000
    if event.HasField("workflow_task_timed_out_event_attributes"):
        kind = event.workflow_task_timed_out_event_attributes.timeout_type
        if kind == TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START:
            return None
        message = "a worker took the task and didn't answer in time"
        return Stuck(description.id, "timed_out", "", message, since)
    if not event.HasField("workflow_task_failed_event_attributes"):
        return None
    failed = event.workflow_task_failed_event_attributes
    if failed.cause in _PASSING:
        return None
    cause = WorkflowTaskFailedCause.Name(failed.cause).removeprefix(_PREFIX).lower()
    try:
        message = await failure_message(description.data_converter, failed.failure)
    except (CannotDecrypt, PayloadStoreError) as error:
        message = f"what the worker said can't be read here: {error}"
    error_type = failed.failure.application_failure_info.type
    return Stuck(description.id, cause, error_type, " ".join(message.split()), since)


def _remedy(stuck: Stuck) -> str:
    give_up = f"To give it up: temporal workflow terminate -w {stuck.run_id}, runlane doctor --fix"
    reset = f"temporal workflow reset -w {stuck.run_id} --type LastWorkflowTask --reason mended"
    if stuck.error == PayloadStoreError.__name__ or stuck.cause == "external_storage_failure":
        return f"Put the file back where it was; the run goes on by itself. {give_up}"
    if stuck.error == CannotDecrypt.__name__:
        return (
            "Give the workers that key again, behind the first one of RUNLANE_ENCRYPTION_KEYS; the "
            f"run goes on by itself. {give_up}"
        )
    if stuck.cause == "non_deterministic_error":
        return (
            "Its worker is of another version than the one that began it, and can't go on with it: "
            f"start workers of the earlier version. {give_up}"
        )
    if stuck.cause in _TOO_LARGE:
        return (
            "Give workers and clients a RUNLANE_DATA_DIR or a RUNLANE_PAYLOAD_STORE, where big "
            f"payloads go. If it still fails: {reset}"
        )
    if stuck.cause == "timed_out":
        return "See whether workers are out of memory or CPU time; the task is tried again."
    return (
        f"See the worker's log; it is a bug, and a worker without it lets the run go on. {give_up}"
    )


_TOO_LARGE = ("grpc_message_too_large", "payloads_too_large", "request_too_large")
