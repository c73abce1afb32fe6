"""What a run that was a line of a batch does at its end: it writes the line's result."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.batch import BatchActivities
    from activities.batch_contract import BatchItem, RecordInput
    from activities.heartbeat import HEARTBEAT_TIMEOUT
    from workflows.contract import RunView

_RETRIES = RetryPolicy(maximum_interval=timedelta(seconds=10))
_WITHIN = timedelta(minutes=5)


async def record(item: BatchItem | None, view: RunView) -> None:
    """Write the result, where the run is a batch's; it waits for the ledger as long as it takes.

    No `workflow.patched` is needed: a run from before there were batches has no item.
    """
    if item is None:
        return
    its = view.runlane
    result = RecordInput(
        item=item,
        run=view.run.model_dump(mode="json"),
        uncertain=its.uncertain,
        upstream_run_id=its.upstream_run_id,
        upstream_url=None if its.upstream is None else its.upstream.url,
    )
    try:
        await workflow.execute_activity_method(
            BatchActivities.record,
            result,
            start_to_close_timeout=_WITHIN,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=_RETRIES,
        )
    except ActivityError:
        # The ledger has no such batch (any more). The run has ended all the same.
        workflow.logger.warning("The batch of this run isn't in the ledger")
