"""Items of batches that become runs of their own, because they wait for somebody.

The run's workflow starts where its own create would have left it: with the upstream run that a lane
has created under the run's id and stamp.
"""

import contextlib
import time
from datetime import timedelta

from temporalio.client import Client
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities.contract import Created
from activities.lane_failures import Refused
from activities.promotion import Ended, ToPromote
from activities.run_records import RunRecords
from ledger import Ledger
from runlane import messages, reading, search_attributes
from runlane.errors import RunlaneError, RunNotFound
from workflows import attempts, polling, progress
from workflows.batch_contract import LOOK_SIGNAL
from workflows.contract import (
    CANCEL_UPDATE,
    WORKFLOW,
    Acknowledged,
    CancelRequest,
    RunOptions,
    RunRequest,
)
from workflows.shown import first_attributes, memo
from workflows.state import RunInput, RunState
from workflows.view import shown_status

_TIMEOUT = timedelta(seconds=15)
_NOT_TAKEN = (
    "The run waits for somebody, and Temporal refuses to keep it; a data directory or "
    "RUNLANE_PAYLOAD_STORE takes what is too large for it. It says:"
)
_FORGOTTEN = "Temporal has forgotten the run before its result was written"


class PromotedRuns:
    """The promoted runs of one task queue.

    Args:
        client: connected as the worker is.
        ledger: the worker's.
        task_queue: on which runs are driven.
    """

    def __init__(self, client: Client, ledger: Ledger, task_queue: str) -> None:
        self._client = client
        self._records = RunRecords(ledger)
        self._task_queue = task_queue

    async def promote(self, wanted: ToPromote) -> bool:
        """Do as `Promotions.promote` says.

        Raises:
            Refused: likewise.
            ApplicationError: the ledger doesn't answer.
        """
        request = _request(wanted)
        created = Created(run=wanted.run, upstream=wanted.upstream, simulated=wanted.simulated)
        state = handed_on(request, created, attempt=wanted.attempt)
        first = RunState(deadline_at=state.deadline_at, attempt=wanted.attempt - 1)
        told = attempts.create_input(wanted.run_id, request, first, time.time(), look_first=False)
        await self._records.created(told, wanted.run, wanted.upstream)
        try:
            await start(self._client, self._task_queue, wanted.run_id, request, state)
        except WorkflowAlreadyStartedError:
            return True
        except RPCError as error:
            if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                return False
            await self._records.never_began(told, wanted.run)
            # Temporal's text tells a size or a name, and no content.
            raise Refused("not_promotable", f"{_NOT_TAKEN} {error.message}") from None
        return True

    async def ended(self, run_id: str) -> Ended | None:
        """Do as `Promotions.ended` says."""
        try:
            description = await reading.describe(self._client, run_id)
            if description.close_time is None:
                return None
            view = await reading.read(self._client, run_id)
        except RunNotFound:
            return Ended(run=None, uncertain=_FORGOTTEN)
        except (RPCError, RunlaneError):
            return None
        its = view.runlane
        return Ended(
            run=view.run.model_dump(mode="json"),
            uncertain=its.uncertain,
            upstream_run_id=its.upstream_run_id,
            upstream_url=None if its.upstream is None else its.upstream.url,
        )

    async def cancel(self, run_id: str) -> None:
        """Do as `Promotions.cancel` says."""
        with contextlib.suppress(messages.RunClosed, RPCError, RunlaneError):
            await messages.send(
                self._client,
                run_id,
                CANCEL_UPDATE,
                CancelRequest(),
                Acknowledged,
                task_queue=self._task_queue,
            )

    async def look(self, batch_id: str) -> None:
        """Do as `Promotions.look` says."""
        handle = self._client.get_workflow_handle(batch_id)
        with contextlib.suppress(RPCError):
            await handle.signal(LOOK_SIGNAL, rpc_timeout=_TIMEOUT)


async def start(
    client: Client, task_queue: str, run_id: str, request: RunRequest, state: RunState
) -> None:
    """Start a run's workflow in a state that another one has handed on.

    Raises:
        WorkflowAlreadyStartedError: there is, or was, one of this id.
        RPCError: Temporal can't be asked; whether it started is not known.
    """
    status = SearchAttributePair(search_attributes.STATUS, shown_status(state).value)
    others = [pair for pair in first_attributes(request) if pair.key != status.key]
    await client.start_workflow(
        WORKFLOW,
        RunInput(request=request, state=state),
        id=run_id,
        task_queue=task_queue,
        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        memo=memo(request, state),
        search_attributes=TypedSearchAttributes([status, *others]),
        rpc_timeout=_TIMEOUT,
    )


def handed_on(
    request: RunRequest, created: Created, *, attempt: int = 1, age: float = 0.0
) -> RunState:
    """Return what a run's workflow would know, had it looked at its upstream run just now.

    Args:
        request: the run's.
        created: its present upstream run, as last seen.
        attempt: of the run, from 1: how many upstream runs there have been.
        age: seconds since the run began to wait for what the upstream makes of it.
    """
    now, options = time.time(), request.options
    state = RunState(
        deadline_at=request.created_at + options.deadline,
        attempt=attempt - 1,
        metadata=attempts.unstamped(request.params.get("metadata")),
    )
    progress.take_over(state, options, created, now - age)
    # Those before this one expired without having asked for anything.
    state.recreations, state.barren = 0, 0
    state.metadata_sent = dict(state.metadata)
    polling.schedule_poll(state, options, now)
    if state.calls:
        polling.schedule_look(state, options, now)
    return state


def _request(wanted: ToPromote) -> RunRequest:
    return RunRequest(
        thread_id=wanted.thread_id,
        params=dict(wanted.params),
        options=RunOptions(with_tools=wanted.options.with_tools),
        created_at=round(wanted.began_at, 3),
        owner=wanted.owner,
        requested_by=wanted.options.requested_by,
        batch=wanted.item,
    )
