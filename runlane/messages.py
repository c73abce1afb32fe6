"""Messages to a run that lives: updates, with one answer for every way in which they can fail."""

import asyncio
import uuid
from datetime import timedelta
from typing import TypeVar

from temporalio.client import (
    Client,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    WorkflowUpdateStage,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from activities.decision import Decision, DecisionReceipt, DecisionStatus
from runlane import workers
from runlane.errors import InvalidRequest, NoWorker, RunlaneError
from runlane.rpc import is_namespace_missing
from workflows.contract import (
    DECIDE_UPDATE,
    INVALID_MESSAGE,
    NOT_RECORDED,
    NOTHING_NEW,
    RUN_IS_ENDING,
    Receipts,
)

ALONE_AFTER = timedelta(seconds=2)
"""When a message that nobody has taken makes its sender look whether there is a worker at all."""
PATIENCE = timedelta(seconds=20)
"""How long a worker may take that is there. One under load is behind with its work, and a message
that is given up and sent anew makes it more: with 300 runs on two processors, twenty updates for
each answer."""

_LEAST_PATIENCE = timedelta(seconds=1)
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
# Too many updates in flight, a shard that moves, a workflow that continues as new just now: the
# same message is welcome a moment later.
_LATER = frozenset(
    {
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.ABORTED,
        RPCStatusCode.UNAVAILABLE,
        # A signal met the task that was to take it and continue as new; Temporal does it again.
        RPCStatusCode.FAILED_PRECONDITION,
    }
)

_T = TypeVar("_T")


class RunClosed(Exception):
    """The workflow takes no more messages, or there is none; the caller looks which."""


class NothingNew(Exception):
    """The run refused a delivery in which nothing is new; `receipts` say why."""

    def __init__(self, receipts: Receipts) -> None:
        """Carry what the run says to each answer."""
        super().__init__("Nothing in the message is new")
        self.receipts = receipts


class NotRecorded(Exception):
    """The run refused a decision; the receipt says why."""

    def __init__(self, receipt: DecisionReceipt) -> None:
        """Carry what the run says."""
        super().__init__(receipt.message)
        self.receipt = receipt


async def decide(
    client: Client, run_id: str, decision: Decision, *, task_queue: str
) -> DecisionReceipt:
    """Send a signed decision, and again while another one on its call is being verified.

    Args:
        client: connected to the run's namespace.
        run_id: whose workflow takes it.
        decision: the same one for all tries, so that it counts once.
        task_queue: where the run's workers are.

    Raises:
        RunClosed: the run has ended, or doesn't exist.
        InvalidRequest: the run calls the decision malformed.
        NoWorker: nobody took it in time; whether somebody will is unknown.
        RPCError: Temporal can't be asked.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE.total_seconds()
    pause = _FIRST_PAUSE
    while True:
        try:
            return await send(
                client, run_id, DECIDE_UPDATE, decision, DecisionReceipt, task_queue=task_queue
            )
        except NotRecorded as error:
            if error.receipt.status is not DecisionStatus.BUSY or loop.time() > until:
                return error.receipt
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


async def send(
    client: Client, run_id: str, name: str, message: object, answer: type[_T], *, task_queue: str
) -> _T:
    """Send an update and return its answer.

    One id serves all tries, so that a message whose answer was lost on the way is taken once.

    Args:
        client: connected to the run's namespace.
        run_id: whose workflow takes it.
        name: of the update.
        message: what it is given.
        answer: what it returns.
        task_queue: where the run's workers are.

    Raises:
        RunClosed: the run has ended, or doesn't exist.
        NothingNew: see there.
        NotRecorded: see there.
        InvalidRequest: the run calls the message malformed.
        NoWorker: nobody took it in time; whether somebody will is unknown.
        RPCError: Temporal can't be asked.
    """
    handle = client.get_workflow_handle(run_id)
    update_id = uuid.uuid4().hex
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def taken() -> _T:
        timeout = max(PATIENCE - timedelta(seconds=loop.time() - began), _LEAST_PATIENCE)
        accepted = await handle.start_update(
            name,
            message,
            id=update_id,
            result_type=answer,
            wait_for_stage=WorkflowUpdateStage.COMPLETED,
            rpc_timeout=timeout,
        )
        result: _T = await accepted.result(rpc_timeout=timeout)
        return result

    pause = _FIRST_PAUSE
    while True:
        sending = asyncio.create_task(taken())
        try:
            alone_at = began + ALONE_AFTER.total_seconds()
            await asyncio.wait([sending], timeout=max(alone_at - loop.time(), 0.0))
            if not sending.done() and await _is_served(client, task_queue):
                await asyncio.wait([sending])
            if not sending.done():
                raise no_worker(run_id, task_queue, loop.time() - began)
            return sending.result()
        except WorkflowUpdateFailedError as error:
            raise _refusal(error) from error
        except WorkflowUpdateRPCTimeoutOrCancelledError:
            raise no_worker(run_id, task_queue, loop.time() - began) from None
        except RPCError as error:
            if _names_nothing(error):
                raise RunClosed from error
            if error.status not in _LATER:
                raise
            if loop.time() - began > PATIENCE.total_seconds():
                if error.status is RPCStatusCode.UNAVAILABLE:
                    raise
                # Its tasks fail, or its worker is too busy to take one.
                raise no_worker(run_id, task_queue, loop.time() - began) from error
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


async def _is_served(client: Client, task_queue: str) -> bool:
    """Tell whether a worker asked the queue for work of late; one that was killed may have."""
    return workers.is_fresh(await workers.last_seen(client, task_queue))


def no_worker(run_id: str, task_queue: str, seconds: float) -> NoWorker:
    """Return the error that says that nobody took a message, and what to do."""
    return NoWorker(
        f"No worker on queue {task_queue} took the message for {run_id} within "
        f"{seconds:.0f} s. Temporal may still hand it to the next one, or "
        "forget it. Start a worker (runlane worker) and give the command again: nothing counts "
        "twice.",
        param="run_id",
    )


def _names_nothing(error: RPCError) -> bool:
    if error.status is RPCStatusCode.NOT_FOUND:
        return not is_namespace_missing(error)
    # An id that no workflow can have: empty, or over a thousand characters.
    return error.status is RPCStatusCode.INVALID_ARGUMENT and "WorkflowId" in error.message


def _refusal(error: WorkflowUpdateFailedError) -> Exception:
    cause = error.cause
    kind = cause.type if isinstance(cause, ApplicationError) else None
    if kind == NOTHING_NEW and isinstance(cause, ApplicationError) and cause.details:
        return NothingNew(Receipts.model_validate(cause.details[0]))
    if kind == NOT_RECORDED and isinstance(cause, ApplicationError) and cause.details:
        return NotRecorded(DecisionReceipt.model_validate(cause.details[0]))
    # The latter is Temporal's own: the run ended in the very task that took the message.
    if kind in (RUN_IS_ENDING, "AcceptedUpdateCompletedWorkflow"):
        return RunClosed()
    text = cause.message if isinstance(cause, ApplicationError) else str(cause)
    if kind == INVALID_MESSAGE:
        return InvalidRequest(text)
    return RunlaneError(f"The run refused the message: {text}", code="message_refused")
