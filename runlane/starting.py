"""Starting a run's workflow, once for each idempotency key."""

from datetime import timedelta

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from runlane import key_check, reading
from runlane.errors import KeyReused, StartUncertain, TemporalUnreachable
from runlane.rpc import explained
from runlane.visibility import request_memo
from workflows.contract import REQUEST_MEMO, WORKFLOW, RunRequest
from workflows.shown import first_attributes
from workflows.state import RunInput

_TIMEOUT = timedelta(seconds=15)


async def start(client: Client, task_queue: str, run_id: str, request: RunRequest) -> bool:
    """Start the workflow; return false where the run is there already, by the same request.

    Raises:
        KeyReused: the run was created by another request.
        StartUncertain: Temporal's answer was lost; the error names the run.
        CannotDecrypt: the queue's runs are encrypted, and this client has no key.
    """
    await key_check.check_client(client, task_queue)
    try:
        with explained(client):
            await client.start_workflow(
                WORKFLOW,
                RunInput(request=request),
                id=run_id,
                task_queue=task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                memo={REQUEST_MEMO: request.memo(request.params.get("metadata") or {})},
                search_attributes=first_attributes(request),
                rpc_timeout=_TIMEOUT,
            )
    except WorkflowAlreadyStartedError:
        await _compare(client, run_id, request)
        return False
    except TemporalUnreachable as error:
        text = (
            f"Temporal's answer was lost: {error.message} The run may exist or not; look with "
            f"runlane retrieve {run_id}."
        )
        raise StartUncertain(text, run_id) from error
    return True


async def _compare(client: Client, run_id: str, request: RunRequest) -> None:
    with explained(client):
        description = await reading.describe(client, run_id)
        memo = await request_memo(description)
    if memo is None or memo.digest != request.digest():
        text = (
            f"The idempotency key belongs to {run_id}, which was created by another request. "
            "Use a new key, or send the first request unchanged."
        )
        raise KeyReused(text, param="idempotency_key")
