"""Temporal's Reset, as an operator does it."""

from collections.abc import Callable

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest

from tests.histories import history
from tests.lab import Lab, LabRun, eventually
from workflows.run import RunWorkflow


def the_first(event: HistoryEvent) -> bool:
    """Choose the task that began the run."""
    return True


async def reset(
    lab: Lab, run: LabRun, chosen: Callable[[HistoryEvent], bool] = the_first
) -> LabRun:
    """Reset the run to the first completed workflow task that is chosen; return it as it is now."""
    # A handle of the start would tell of the execution that began the run.
    current = LabRun(lab.client.get_workflow_handle_for(RunWorkflow.run, run.id))
    present = (await current.handle.describe()).run_id
    task = next(
        event
        for event in await history(current)
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED and chosen(event)
    )
    answer = await lab.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=lab.client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=run.id, run_id=present),
            reason="a test",
            workflow_task_finish_event_id=task.event_id,
            request_id=f"{run.id}-{task.event_id}",
        )
    )

    async def execution() -> str | None:
        return (await current.handle.describe()).run_id

    await eventually(execution, lambda now: now == answer.run_id)
    return current
