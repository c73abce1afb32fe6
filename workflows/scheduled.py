"""The `Scheduled` workflow: one start of a schedule. It starts the run and lives as long as it.

Temporal's schedules name what they start by the scheduled time, and know only by its life whether
the last one still goes on. A run has an id of its own, so it is a child of this.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ChildWorkflowError, WorkflowAlreadyStartedError
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from activities.heartbeat import HEARTBEAT_TIMEOUT
    from activities.schedule import ScheduleActivities
    from workflows.contract import REQUEST_MEMO, WORKFLOW, RunRequest, RunView
    from workflows.scheduled_contract import (
        SCHEDULED_WORKFLOW,
        ScheduledInput,
        ScheduledResult,
        scheduled_run_id,
    )
    from workflows.shown import first_attributes
    from workflows.state import RunInput

_RETRIES = RetryPolicy(maximum_interval=timedelta(seconds=10))
_WITHIN = timedelta(minutes=5)


@workflow.defn(name=SCHEDULED_WORKFLOW)
class ScheduledWorkflow:
    """Ends with its run. A cancellation is handed on to the run, whose end is then waited for."""

    @workflow.run
    async def run(self, input: ScheduledInput) -> ScheduledResult:
        """Start the run, once, and wait for its end."""
        run_id = scheduled_run_id(input.schedule, workflow.info().workflow_id)
        request = RunRequest(
            thread_id=input.thread_id or await self._new_thread(),
            params=input.params,
            options=input.options,
            created_at=round(workflow.now().timestamp(), 3),
            owner=input.owner,
            requested_by=input.requested_by,
            # Temporal, set back to a copy of its database, starts the same id again.
            has_key=True,
        )
        try:
            started = await workflow.start_child_workflow(
                WORKFLOW,
                RunInput(request=request),
                id=run_id,
                result_type=RunView,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                memo={REQUEST_MEMO: request.memo(request.params.get("metadata") or {})},
                search_attributes=first_attributes(request),
                # Terminated, we leave a run that cancels upstream what it has begun.
                parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
                cancellation_type=ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
            )
        except WorkflowAlreadyStartedError:
            # By this start, before somebody reset it.
            return ScheduledResult(run_id=run_id)
        try:
            view = await started
        except ChildWorkflowError:
            return ScheduledResult(run_id=run_id)
        return ScheduledResult(run_id=run_id, status=view.run.status)

    async def _new_thread(self) -> str:
        made = await workflow.execute_activity_method(
            ScheduleActivities.thread,
            start_to_close_timeout=_WITHIN,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=_RETRIES,
        )
        return made.thread_id
