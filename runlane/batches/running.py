"""Batches from a client's side: begun from a file, watched in the ledger, paused, ended.

Whatever dies on the way, the same call again goes on: a batch is known by its name and its input,
its items by their lines, and its workflow by the batch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError, RPCStatusCode

from activities import intake, trail
from activities.contract import canonical_json
from ledger import Ledger
from ledger.batch_item import NewItem
from ledger.batch_record import BatchRecord, BatchStatus, batch_id
from ledger.errors import BatchTaken
from runlane import key_check
from runlane.batches.checking import Added, CheckedLine, Checking, Totals
from runlane.batches.lines import InputFile
from runlane.errors import InvalidRequest, NotFound, Refused, RunlaneError
from runlane.rpc import explained
from workflows.batch_contract import (
    BATCH_WORKFLOW,
    CANCEL_SIGNAL,
    DEFAULT_LANES,
    DEFAULT_WINDOW,
    LOOK_SIGNAL,
    MAX_LANES,
    MAX_WINDOW,
    RESUME_SIGNAL,
    BatchInput,
    CancelOrder,
)

_TIMEOUT = timedelta(seconds=15)
_ID_PREFIX = "batch_"
MAX_NAME = 255
"""Characters of a batch's name, and of a pause's reason."""


class BatchNotFound(NotFound):
    """There is no batch of this name or id."""

    code = "batch_not_found"


class NameTaken(Refused):
    """The name belongs to a batch with another input. Use another name."""

    code = "batch_name_taken"


class InputChanged(RunlaneError):
    """The file was changed while it was read. Give the command again once it is at rest."""

    code = "input_changed"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be run."""

    name: str
    owner: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of `BatchOptions`, those that were given."""
    deadline: datetime | None = None
    """Nothing begins after it."""
    token_limit: int | None = None
    max_in_flight: int = DEFAULT_LANES * DEFAULT_WINDOW
    """Items at a time that need nobody; people's wait beside them."""

    def check(self) -> None:
        """Refuse what can't be used.

        Raises:
            InvalidRequest: it names the option and its limit.
        """
        if not 1 <= len(self.name) <= MAX_NAME or not self.name.isprintable():
            text = f"A batch's name must be a line of 1 to {MAX_NAME} characters."
            raise InvalidRequest(text, param="--name")
        if self.name.startswith(_ID_PREFIX):
            text = f"A batch's name can't begin with {_ID_PREFIX}, as the ids do."
            raise InvalidRequest(text, param="--name")
        most = MAX_LANES * MAX_WINDOW
        if not 1 <= self.max_in_flight <= most:
            text = f"--max-in-flight must be between 1 and {most:,}, got {self.max_in_flight}."
            raise InvalidRequest(text, param="--max-in-flight")
        if self.token_limit is not None and self.token_limit < 1:
            text = f"--max-tokens must be at least 1, got {self.token_limit}."
            raise InvalidRequest(text, param="--max-tokens")

    def stored_options(self) -> dict[str, Any]:
        """Return what the batch's record holds: with how many lanes it is run, too."""
        lanes = max(min(DEFAULT_LANES, self.max_in_flight), -(-self.max_in_flight // MAX_WINDOW))
        return {**self.options, "lanes": lanes, "window": self.max_in_flight // lanes}


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
        self._ledger = ledger

    async def find(self, named: str, owner: str = "") -> BatchRecord:
        """Return a batch by its id, or the latest one of a name.

        Raises:
            BatchNotFound: there is none.
        """
        if named.startswith(_ID_PREFIX):
            found = await self._ledger.batches.find(named)
        else:
            found = await self._ledger.batches.by_name(owner, named)
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
        latest = await self._ledger.batches.by_name(wanted.owner, wanted.name)
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
        facts = {"name": planned.name, "input": planned.input_digest, "total": planned.total}
        event = trail.control(
            what="create", scope=_scope(planned), by=by, reason=None, at=planned.created_at,
            facts=facts,
        )  # fmt: skip
        try:
            return await self._ledger.batches.create(planned, [event])
        except BatchTaken as error:
            raise _taken(planned.name, error.taken_by) from None

    async def upload(
        self,
        batch: BatchRecord,
        source: InputFile,
        totals: Totals,
        moved: Callable[[int], object],
        added: Added | None = None,
    ) -> None:
        """Read the input once more, and put into the ledger what isn't there yet.

        Args:
            batch: whose items they are.
            source: the file that was checked.
            totals: what was found then.
            moved: is told of each line how many were read.
            added: as it was for the check.

        Raises:
            InputChanged: the file isn't what it was. Nothing of another content was added.
        """
        checking = Checking(source, added)
        begin = await self._ledger.batch_items.next_index(batch.id)
        page: list[NewItem] = []
        for found in checking.lines():
            if isinstance(found, CheckedLine) and found.number > begin:
                page.append(new_item(found))
            if checking.at_page_end:
                read = len(checking.totals.marks)
                if checking.totals.marks[-1:] != totals.marks[read - 1 : read]:
                    raise _changed(source)
                await self._add(batch, page)
            moved(checking.totals.usable + checking.totals.unusable)
        if checking.totals.digest != totals.digest:
            raise _changed(source)
        await self._add(batch, page)

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

    async def pause(self, batch: BatchRecord, reason: str, by: str) -> BatchRecord:
        """Let nothing of a batch begin any more; return it as it stands.

        Raises:
            InvalidRequest: the reason can't be shown.
            Refused: it has ended.
        """
        if not 1 <= len(reason.strip()) <= MAX_NAME or not reason.isprintable():
            text = f"reason must be a line of 1 to {MAX_NAME} characters."
            raise InvalidRequest(text, param="--reason")
        _refuse_ended(batch)
        reason, at = reason.strip(), datetime.now(UTC)
        event = trail.control(what="pause", scope=_scope(batch), by=by, reason=reason, at=at)
        found = await self._ledger.batches.pause(batch.id, reason, by, at, [event])
        await self._tell(batch, LOOK_SIGNAL)
        return found

    async def resume(
        self, batch: BatchRecord, by: str, *, token_limit: int | None = None
    ) -> BatchRecord:
        """Let a batch go on; return it as it stands.

        Args:
            batch: which.
            by: the person.
            token_limit: from now on, with what is used already; None: as it was.

        Raises:
            InvalidRequest: the limit lets nothing begin.
            Refused: it has ended.
        """
        _refuse_ended(batch)
        facts = None if token_limit is None else {"token_limit": token_limit}
        if token_limit is not None:
            if token_limit <= batch.tokens_used:
                text = f"--max-tokens must be more than the {batch.tokens_used:,} that are used."
                raise InvalidRequest(text, param="--max-tokens")
            await self._ledger.batches.set_token_limit(batch.id, token_limit)
        at, scope = datetime.now(UTC), _scope(batch)
        event = trail.control(
            what="resume", scope=scope, by=by, reason=None, at=at, facts=facts
        )  # fmt: skip
        found = await self._ledger.batches.resume(batch.id, [event])
        await self._tell(batch, RESUME_SIGNAL)
        return found

    async def cancel(self, batch: BatchRecord, by: str) -> BatchRecord:
        """Begin nothing more of a batch, and cancel what has begun; return it as it stands.

        Raises:
            Refused: it has ended.
        """
        _refuse_ended(batch)
        at = datetime.now(UTC)
        event = trail.control(what="cancel", scope=_scope(batch), by=by, reason=None, at=at)
        found = await self._ledger.batches.set_status(batch.id, BatchStatus.CANCELLING, at, [event])
        if not await self._tell(batch, CANCEL_SIGNAL, CancelOrder(by=by)):
            # Nobody runs it: its items are ended by a workflow, which looks and finds the word.
            await self.start(found)
        return found

    async def _add(self, batch: BatchRecord, page: list[NewItem]) -> None:
        if page:
            await self._ledger.batch_items.add(batch.id, page)
            page.clear()

    async def _tell(self, batch: BatchRecord, signal: str, *message: Any) -> bool:
        """Send a signal; return false where no workflow runs."""
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


def _scope(batch: BatchRecord) -> str:
    return f"batch {batch.id}"


def new_item(line: CheckedLine) -> NewItem:
    """Return a line as the ledger takes it."""
    return NewItem(
        index=line.number - 1,
        custom_id=line.custom_id,
        thread_id=line.thread_id,
        digest=line.digest,
        body=canonical_json(line.body),
    )


def _changed(source: InputFile) -> InputChanged:
    text = (
        f"{source.path} was changed while it was read; nothing was begun. Give the command again "
        "once nobody writes to it."
    )
    return InputChanged(text, param="INPUT")


def _taken(name: str, taken_by: str) -> NameTaken:
    text = (
        f"The name {name!r} belongs to {taken_by}, whose input has another content.\n"
        "Give this one another name:  --name NAME"
    )
    return NameTaken(text, param="--name")


def _refuse_ended(batch: BatchRecord) -> None:
    if batch.status.is_end:
        text = f"{batch.name} has ended: {batch.status.value}."
        raise Refused(text, code="batch_ended")
