"""The `ScheduledBatch` workflow: one start of a schedule. It begins the batch and lives as long.

Temporal's schedules know only by its life whether the last start still goes on.
"""

import asyncio
import contextlib
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ChildWorkflowError, FailureError, WorkflowAlreadyStartedError
from temporalio.workflow import (
    ChildWorkflowCancellationType,
    ChildWorkflowHandle,
    ParentClosePolicy,
)

with workflow.unsafe.imports_passed_through():
    from activities import polling
    from activities.heartbeat import HEARTBEAT_TIMEOUT
    from activities.scheduled_batch_contract import BeginBatchInput, BegunBatch
    from activities.scheduled_batches import ScheduledBatchActivities
    from workflows.batch import ENDS
    from workflows.batch_contract import (
        BATCH_WORKFLOW,
        CANCEL_SIGNAL,
        BatchInput,
        BatchResult,
        CancelOrder,
    )
    from workflows.scheduled_contract import (
        SCHEDULED_BATCH_WORKFLOW,
        ScheduledBatchInput,
        ScheduledBatchResult,
        scheduled_batch_name,
        scheduled_time,
    )

_RETRIES = RetryPolicy(maximum_interval=timedelta(seconds=10))
_WITHIN = timedelta(minutes=5)
_LOOK_FLOOR, _LOOK_CEILING = 1.0, 900.0
_BY = "Temporal"


@workflow.defn(name=SCHEDULED_BATCH_WORKFLOW)
class ScheduledBatchWorkflow:
    """Ends with its batch. A cancellation cancels the batch, whose end is then waited for."""

    @workflow.init
    def __init__(self, input: ScheduledBatchInput) -> None:
        self._input = input
        self._is_cancelled = False
        self._child: ChildWorkflowHandle[object, BatchResult] | None = None

    @workflow.run
    async def run(self, input: ScheduledBatchInput) -> ScheduledBatchResult:
        """Begin the batch, once, and wait for its end."""
        lifecycle = asyncio.create_task(self._lifecycle())
        while not lifecycle.done():
            try:
                await workflow.wait_condition(lifecycle.done)
            except asyncio.CancelledError:
                # Never between the batch's record and its workflow: nobody would drive it.
                self._is_cancelled = True
                if self._child is not None:
                    self._child.cancel()
        ended = lifecycle.result()
        if ended is None:
            workflow.continue_as_new(input)
        return ended

    async def _lifecycle(self) -> ScheduledBatchResult | None:
        """Return how the batch ended; None: go on in a fresh history."""
        since = workflow.now()
        while True:
            begun = await self._begin()
            if begun.status in ENDS:
                return ScheduledBatchResult(batch_id=begun.batch_id, status=begun.status)
            try:
                self._child = await self._start(begun)
            except WorkflowAlreadyStartedError:
                # By this start, before somebody reset it; or by whoever looked at the batch.
                if workflow.info().is_continue_as_new_suggested():
                    return None
                await self._look_later((workflow.now() - since).total_seconds(), begun)
                continue
            if self._is_cancelled:
                self._child.cancel()
            try:
                ended = await self._child
            except ChildWorkflowError:
                return ScheduledBatchResult(batch_id=begun.batch_id)
            return ScheduledBatchResult(batch_id=begun.batch_id, status=ended.status)

    async def _begin(self) -> BegunBatch:
        info = workflow.info()
        # By hand, without a schedule, it may have any id.
        at = scheduled_time(self._input.schedule, info.workflow_id) or info.start_time
        wanted = BeginBatchInput(
            name=scheduled_batch_name(info.workflow_id),
            scheduled_at=at.timestamp(),
            batch=self._input.batch,
        )
        return await workflow.execute_activity_method(
            ScheduledBatchActivities.begin,
            wanted,
            start_to_close_timeout=_WITHIN,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=_RETRIES,
        )

    async def _start(self, begun: BegunBatch) -> ChildWorkflowHandle[object, BatchResult]:
        return await workflow.start_child_workflow(
            BATCH_WORKFLOW,
            BatchInput(
                batch_id=begun.batch_id,
                lanes=begun.lanes,
                window=begun.window,
                check=begun.status == "validating",
            ),
            id=begun.batch_id,
            result_type=BatchResult,
            # Temporal, set back to a copy of its database, finds in the ledger what has ended.
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            # Terminated, we leave a batch that cancels upstream what it has begun.
            parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
            cancellation_type=ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
        )

    async def _look_later(self, age: float, begun: BegunBatch) -> None:
        """Wait until it is time to look at a batch that somebody else's workflow drives."""
        if self._is_cancelled:
            batch = workflow.get_external_workflow_handle(begun.batch_id)
            # It may have ended meanwhile.
            with contextlib.suppress(FailureError):
                await batch.signal(CANCEL_SIGNAL, CancelOrder(by=_BY))
        was_cancelled = self._is_cancelled
        wait = polling.curve(age, floor=_LOOK_FLOOR, ceiling=_LOOK_CEILING)
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._is_cancelled and not was_cancelled, timeout=wait
            )
