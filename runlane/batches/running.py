"""Batches from a client's side: found by their names, planned, begun.

Whatever dies on the way, the same call again goes on: a batch is known by its name and its input,
its items by their lines, and its workflow by the batch.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError, RPCStatusCode

from activities import intake, trail
from ledger import Ledger
from ledger.batch_record import BatchRecord, BatchStatus, batch_id
from ledger.errors import BatchTaken
from runlane import key_check
from runlane.batches.checking import Totals
from runlane.batches.wanted import ID_PREFIX, Wanted
from runlane.errors import NotFound, Refused
from runlane.rpc import explained
from workflows.batch_contract import (
    BATCH_WORKFLOW,
    DEFAULT_LANES,
    DEFAULT_WINDOW,
    LOOK_SIGNAL,
    BatchInput,
)

_TIMEOUT = timedelta(seconds=15)


class BatchNotFound(NotFound):
    """There is no batch of this name or id."""

    code = "batch_not_found"


class NameTaken(Refused):
    """The name belongs to a batch with another input. Use another name."""

    code = "batch_name_taken"


class Batches:
    """One owner's batches, or everybody's, through one ledger and one Temporal."""

    def __init__(self, client: Client | None, task_queue: str, ledger: Ledger) -> None:
        """Share connections.

        Args:
            client: without it nothing can be begun or told to a batch.
            task_queue: whose workers run what is begun.
            ledger: theirs.
        """
        self._client = client
        self._task_queue = task_queue
        self.ledger = ledger

    async def find(self, named: str, owner: str = "") -> BatchRecord:
        """Return a batch by its id, or the latest one of a name.

        Raises:
            BatchNotFound: there is none.
        """
        if named.startswith(ID_PREFIX):
            found = await self.ledger.batches.find(named)
        else:
            found = await self.ledger.batches.by_name(owner, named)
        if found is None:
            text = f"There is no batch {named!r}. See  runlane batch list"
            raise BatchNotFound(text, param="BATCH")
        return found

    async def plan(self, wanted: Wanted, totals: Totals, *, again: bool = False) -> BatchRecord:
        """Return the batch of this name and input, or the one that `create` is to make.

        Args:
            wanted: what holds for a new one; an old one keeps what held for it.
            totals: of the input's check.
            again: in place of one that has ended, make another one.

        Raises:
            NameTaken: the name belongs to another input.
        """
        wanted.check()
        latest = await self.ledger.batches.by_name(wanted.owner, wanted.name)
        if latest is not None and latest.input_digest != totals.digest:
            raise _taken(wanted.name, latest.id)
        generation = 1
        if latest is not None:
            if not (again and latest.status.is_end):
                return latest
            generation = latest.generation + 1
        return BatchRecord(
            id=batch_id(wanted.owner, wanted.name, generation),
            owner=wanted.owner,
            name=wanted.name,
            generation=generation,
            input_digest=totals.digest,
            total=totals.usable,
            options=wanted.stored_options(),
            deadline=wanted.deadline,
            token_limit=wanted.token_limit,
            cost_limit=wanted.cost_limit,
            created_at=datetime.now(UTC),
        )

    async def create(self, planned: BatchRecord, by: str) -> BatchRecord:
        """Make a batch that was planned, unless it is there; return what stands.

        Args:
            planned: from `plan`.
            by: the person.

        Raises:
            NameTaken: somebody has just given the name to another input.
        """
        facts: dict[str, Any] = {"name": planned.name, "input": planned.input_digest}
        if intake.FILE not in planned.options:
            # The lines of a stored file are counted by the check, which comes later.
            facts["total"] = planned.total
        event = trail.control(
            what="create", scope=scope_of(planned), by=by, reason=None, at=planned.created_at,
            facts=facts,
        )  # fmt: skip
        try:
            return await self.ledger.batches.create(planned, [event])
        except BatchTaken as error:
            raise _taken(planned.name, error.taken_by) from None

    async def start(self, batch: BatchRecord) -> None:
        """Start the batch's workflow, unless it runs already.

        Raises:
            TemporalUnreachable: nobody knows whether it was started; the same call again does it.
            CannotDecrypt: the queue's runs are encrypted, and this client has no key.
        """
        client = self._connected()
        await key_check.check_client(client, self._task_queue)
        options = batch.options
        with explained(client):
            await client.start_workflow(
                BATCH_WORKFLOW,
                BatchInput(
                    batch_id=batch.id,
                    lanes=options.get("lanes", DEFAULT_LANES),
                    window=options.get("window", DEFAULT_WINDOW),
                    check=intake.FILE in options and batch.status is BatchStatus.VALIDATING,
                ),
                id=batch.id,
                task_queue=self._task_queue,
                # It ends with its items, and begins again where some are retried.
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                # One that runs may be about to end, by what it saw before there was this to do.
                start_signal=LOOK_SIGNAL,
                rpc_timeout=_TIMEOUT,
            )

    async def tell(self, batch: BatchRecord, signal: str, *message: Any) -> bool:
        """Send a signal; return false where no workflow runs.

        Raises:
            TemporalUnreachable: nobody knows whether it came; the same call again does no harm.
        """
        client = self._connected()
        try:
            handle = client.get_workflow_handle(batch.id)
            await handle.signal(signal, args=message, rpc_timeout=_TIMEOUT)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            with explained(client):
                raise
        return True

    def _connected(self) -> Client:
        assert self._client is not None, "needs a connection to Temporal"
        return self._client


def scope_of(batch: BatchRecord) -> str:
    """Return what a batch is called in the trail."""
    return f"batch {batch.id}"


def _taken(name: str, taken_by: str) -> NameTaken:
    text = (
        f"The name {name!r} belongs to {taken_by}, whose input has another content. "
        "Give this one another name:  --name NAME"
    )
    return NameTaken(text, param="--name")
