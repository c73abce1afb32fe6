"""The Python client: the Runs protocol's own methods, made durable.

    client = await Runlane.connect()
    run = await client.runs.create("thread_1", assistant_id="asst_orders")
    run = await client.runs.poll(run.id)

Whoever knows `client.beta.threads.runs` knows `client.runs`. A run's id is enough to name it;
`thread_id`, where given, is checked.
"""

import asyncio
import contextlib
import os
import warnings
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from temporalio.client import Client

from ledger import Ledger
from runlane import blocked, messages, reading, receipts, requests, starting, temporal
from runlane.approvals import Approvals
from runlane.client_ledger import ClientLedger
from runlane.errors import (
    AnswersRefused,
    NoWorker,
    RunEnded,
    RunlaneError,
)
from runlane.listing import ListQuery, RunList, checked_kind
from runlane.payload_store import AbsentPayloadStore
from runlane.person import person
from runlane.recorded import RecordedList
from runlane.rpc import explained
from runlane.settings import Settings
from runlane.steps import Steps
from runlane.stops import Stops, marked
from runlane.streaming import RunStream
from runlane.visibility import request_memo
from runlane.waiting import PATIENCE, Look, watch
from runsapi import TERMINAL, Run, RunStatus
from workflows.contract import (
    CANCEL_UPDATE,
    MAX_MESSAGE_BYTES,
    SUBMIT_TOOL_OUTPUTS_UPDATE,
    UPDATE_METADATA_UPDATE,
    Acknowledged,
    CancelRequest,
    MetadataUpdate,
    Receipts,
    RunView,
)

if TYPE_CHECKING:
    from runlane.tools.registry import Registry

_MESSAGE_TRIES = 3
_BETWEEN_TRIES_SECONDS = 0.3

_T = TypeVar("_T")


class Runlane:
    """A connection to Temporal, through which runs are started, answered and read."""

    def __init__(
        self, client: Client, settings: Settings | None = None, ledger: Ledger | None = None
    ) -> None:
        """Use a Temporal client that somebody connected; `connect` is the usual way.

        Args:
            client: it must convert data as `runlane.temporal.data_converter` does.
            settings: for the task queue and the upstream.
            ledger: held open by the caller; without it one is opened for each call.
        """
        self._client = client
        self._settings = settings or Settings()
        self.stops = Stops(self._settings, client, ledger)
        self.approvals = Approvals(client, self._settings, ledger=ledger)
        self.runs = Runs(client, self._settings, self.stops)

    @classmethod
    async def connect(
        cls, settings: Settings | None = None, *, environ: Mapping[str, str] = os.environ
    ) -> "Runlane":
        """Connect as the environment says: Temporal's own variables, and Runlane's.

        Raises:
            TemporalUnreachable: no server answers.
            NamespaceMissing: the server has no such namespace.
            SettingsError: a variable can't be used.
        """
        settings = settings or Settings.from_env(environ)
        client = await temporal.connect(settings, environ=environ)
        return cls(client, settings)

    @property
    def temporal(self) -> Client:
        """The Temporal client underneath."""
        return self._client

    @property
    def settings(self) -> Settings:
        """What this client was connected with."""
        return self._settings


class Runs:
    """Runs by the protocol's method names. Each returned `Run` is the protocol's object."""

    def __init__(self, client: Client, settings: Settings, stops: Stops) -> None:
        """Share the connection of `Runlane`, which makes this."""
        self._client = client
        self._settings = settings
        self._stops = stops
        self.steps = Steps(client, settings)

    async def create(
        self,
        thread_id: str,
        *,
        assistant_id: str,
        idempotency_key: str | None = None,
        poll_interval_ms: int | None = None,
        on_expiry: Literal["recreate", "fail"] = "recreate",
        deadline: timedelta | float | None = None,
        max_rounds: int = 50,
        with_tools: "Registry | None" = None,
        **params: Any,
    ) -> Run:
        """Start a run. Once this returns, no crash loses it.

        Args:
            thread_id: where the run works.
            assistant_id: which assistant works.
            idempotency_key: calling again with the same key and the same request returns the
                run there is, whatever its state; as long as Temporal retains it.
            poll_interval_ms: between two looks at the upstream run. Default: what the upstream
                asks for, else a curve from 0.5 s to 15 min.
            on_expiry: what to do when the upstream run expires while answers are awaited.
            deadline: after which the run is cancelled and ends `expired`; a number is in seconds.
                Default: 90 days.
            max_rounds: rounds of tool calls after which the run ends `incomplete`.
            with_tools: their schemas are added to `tools`, where a name that is there already is
                refused; and the worker answers what it may of the calls.
            **params: the protocol's own: `instructions`, `tools`, `metadata`, ….

        Raises:
            InvalidRequest: a parameter can't be used; nothing was sent.
            KeyReused: the key belongs to another request.
            StartUncertain: Temporal's answer was lost; the error names the run.
            TemporalUnreachable: Temporal doesn't answer.
        """
        body = {"assistant_id": assistant_id, **params}
        view = await self.create_view(
            thread_id,
            body if with_tools is None else with_tools.added_to(body),
            idempotency_key=idempotency_key,
            poll_interval_ms=poll_interval_ms,
            on_expiry=on_expiry,
            deadline=deadline,
            max_rounds=max_rounds,
            with_tools=with_tools is not None,
        )
        return view.run

    async def create_view(
        self, thread_id: str, params: Mapping[str, Any], **options: Any
    ) -> RunView:
        """Do as `create` does, with the protocol's parameters as one mapping; return the view."""
        limit = requests.MAX_STORED_REQUEST_BYTES if self._stores() else MAX_MESSAGE_BYTES
        options.setdefault("requested_by", person(self._settings))
        asked = requests.asked(thread_id, params, max_bytes=limit, **options)
        started = await starting.start(
            self._client, self._settings.task_queue, asked.run_id, asked.request
        )
        if started:
            return requests.first_view(asked.run_id, asked.request)
        return await self.view(asked.run_id)

    async def retrieve(self, run_id: str, thread_id: str | None = None) -> Run:
        """Return the run. Without a worker: as Temporal knows it (see `view`).

        Raises:
            RunNotFound: there is no such run, or it is on another thread.
            TemporalUnreachable: Temporal doesn't answer.
        """
        return (await self.view(run_id, thread_id)).run

    async def view(self, run_id: str, thread_id: str | None = None) -> RunView:
        """Return the run and what Runlane knows beyond it; the errors are those of `retrieve`.

        Where no worker answered within 2 s, `runlane.worker` is false and `runlane.known_at` says
        when what is shown was written.
        """
        view = await self._view(run_id, thread_id, PATIENCE)
        if view.run.status in TERMINAL:
            return view
        # A view is not kept from anybody because the ledger is.
        [view] = marked([view], (await self._stops.seen()).standing)
        return view

    def list(
        self,
        thread_id: str | None = None,
        *,
        status: str | None = None,
        limit: int = 20,
        after: str | None = None,
        before: str | None = None,
        order: Literal["asc", "desc"] = "desc",
        blocked: bool | str = False,
        all_ages: bool = False,
        owner: str | None = None,
    ) -> RunList:
        """List runs by creation: `await` it for a page, or iterate over all (`async for`).

        A listed run holds what Temporal knows of it: no instructions, tools or usage, and the
        arguments of pending calls shortened. In `views` of a page, `runlane.stopped` says by which
        stop a run is held up; where the ledger can't be asked, `page.stops.problem` says so.

        Args:
            thread_id: only this thread's.
            status: only those in this status.
            limit: runs on a page, 1 to 100.
            after: the page begins after this run.
            before: the page ends before this run.
            order: by creation, `asc` or `desc`.
            blocked: only blocked runs: of all kinds, or of the one that is named.
            all_ages: from the ledger: also runs that Temporal has forgotten.
            owner: only this owner's; default: everybody's.

        Raises:
            InvalidRequest: a parameter is out of its range.
            RunNotFound: when fetched, there is no run as `after` or `before` names it.
            LedgerUnreachable: when fetched with `all_ages`, the ledger doesn't answer.
        """
        query = ListQuery(thread_id, status, limit, after, before, order, blocked, owner)
        if all_ages:
            ledger = ClientLedger(self._settings, self._client)
            return RecordedList(self._client, ledger, query, self._stops)
        return RunList(self._client, query, self._stops)

    async def update(
        self, run_id: str, *, thread_id: str | None = None, metadata: Mapping[str, str] | None
    ) -> Run:
        """Replace the run's metadata.

        Raises:
            InvalidRequest: too many pairs, or one too long.
            RunEnded: it is too late.
            RunNotFound: there is no such run, or it is on another thread.
            NoWorker: nobody took the message.
        """
        change = MetadataUpdate(metadata=requests.checked_metadata(metadata))
        with explained(self._client):
            queue = await self._check(run_id, thread_id)
            try:
                await self._send(run_id, queue, UPDATE_METADATA_UPDATE, change, Acknowledged)
            except messages.RunClosed:
                view = await reading.read(self._client, run_id)
                text = f"{run_id} is {view.run.status}; its metadata stays as it is."
                raise RunEnded(text, param="run_id") from None
        return await self.retrieve(run_id)

    async def cancel(self, run_id: str, thread_id: str | None = None) -> Run:
        """Ask for the run's cancellation; `poll` tells how it ended.

        A run that has ended is returned as it is: whoever completes first has completed.

        Raises:
            RunNotFound: there is no such run, or it is on another thread.
            NoWorker: nobody took the request.
        """
        with explained(self._client):
            queue = await self._check(run_id, thread_id)
            with contextlib.suppress(messages.RunClosed):
                await self._send(run_id, queue, CANCEL_UPDATE, CancelRequest(), Acknowledged)
        return await self.retrieve(run_id)

    async def submit_tool_outputs(
        self,
        run_id: str,
        *,
        thread_id: str | None = None,
        tool_outputs: Iterable[object],
        by: str | None = None,
    ) -> Run:
        """Deliver answers to tool calls: all of a round at once, or one by one, early ones too.

        Args:
            run_id: ours.
            thread_id: where given, the run must be on it.
            tool_outputs: `{"tool_call_id": …, "output": …}` each.
            by: who gives them; shown in `view`.

        Raises:
            AnswersRefused: at least one was not taken; the error carries a receipt for each.
            InvalidRequest: an output is malformed; nothing was sent.
            Refused: the message is over 1 MB; nothing was sent.
            RunNotFound: there is no such run, or it is on another thread.
            NoWorker: nobody took the answers; give them again once a worker runs.
        """
        given = await self.deliver(run_id, thread_id=thread_id, tool_outputs=tool_outputs, by=by)
        refused = receipts.refused(given.receipts)
        if refused:
            told = ", ".join(f"{receipt.tool_call_id}: {receipt.status}" for receipt in refused)
            raise AnswersRefused(f"Not taken by {run_id}: {told}.", given.receipts)
        return await self.retrieve(run_id)

    async def deliver(
        self,
        run_id: str,
        *,
        thread_id: str | None = None,
        tool_outputs: Iterable[object],
        by: str | None = None,
    ) -> Receipts:
        """Deliver answers as `submit_tool_outputs` does, and return what became of each.

        Raises:
            InvalidRequest: an output is malformed; nothing was sent.
            Refused: the message is over 1 MB; nothing was sent.
            RunNotFound: there is no such run, or it is on another thread.
            NoWorker: nobody took the answers; give them again once a worker runs.
        """
        delivery = receipts.message(tool_outputs, by=by)
        with explained(self._client):
            queue = await self._check(run_id, thread_id)
            try:
                return await self._send(
                    run_id, queue, SUBMIT_TOOL_OUTPUTS_UPDATE, delivery, Receipts
                )
            except messages.NothingNew as error:
                return error.receipts
            except messages.RunClosed:
                return receipts.from_ended(await reading.read(self._client, run_id), delivery)

    async def poll(
        self,
        run_id: str,
        thread_id: str | None = None,
        *,
        poll_interval_ms: float | None = None,
        timeout: timedelta | float | None = None,
    ) -> Run:
        """Wait until the run requires an action or has ended, and return it.

        It waits for a worker, too, if there is none, and through a minute without Temporal.

        Args:
            run_id: ours.
            thread_id: where given, the run must be on it.
            poll_interval_ms: between looks at the run here; the upstream isn't asked more often.
            timeout: for the wait; a number is in seconds.

        Raises:
            WaitTimeout: `timeout` passed; the run goes on.
            RunNotFound: there is no such run, or it is on another thread.
            TemporalUnreachable: Temporal doesn't answer.
        """
        run: Run | None = None
        looks = self.watch(run_id, thread_id, poll_interval_ms=poll_interval_ms, timeout=timeout)
        async for look in looks:
            run = run if look.view is None else look.view.run
        assert run is not None
        return run

    def watch(
        self,
        run_id: str,
        thread_id: str | None = None,
        *,
        poll_interval_ms: float | None = None,
        timeout: timedelta | float | None = None,
    ) -> AsyncIterator[Look]:
        """Yield the looks that `poll` takes; the last one sees the run settled."""
        return watch(
            lambda patience: self._view(run_id, thread_id, patience),
            poll_interval_ms=poll_interval_ms,
            timeout=timeout,
        )

    async def create_and_poll(
        self, thread_id: str, *, timeout: timedelta | float | None = None, **params: Any
    ) -> Run:
        """Create a run as `create` does, then wait as `poll` does."""
        run = await self.create(thread_id, **params)
        return await self.poll(run.id, timeout=timeout)

    async def submit_tool_outputs_and_poll(
        self,
        run_id: str,
        *,
        thread_id: str | None = None,
        tool_outputs: Iterable[object],
        poll_interval_ms: float | None = None,
        timeout: timedelta | float | None = None,
    ) -> Run:
        """Deliver answers as `submit_tool_outputs` does, then wait until something is new.

        Where other calls of the round still wait, that is at once.
        """
        await self.submit_tool_outputs(run_id, thread_id=thread_id, tool_outputs=tool_outputs)
        return await self.poll(run_id, poll_interval_ms=poll_interval_ms, timeout=timeout)

    def stream(self, thread_id: str, **params: Any) -> RunStream:
        """Create a run as `create` does, and follow it: `async for event in client.runs.stream(…)`.

        The events are the protocol's own, of the run as a whole, as they become known. The stream
        ends when the run requires an action or has ended. Leaving it doesn't stop the run.
        """
        return RunStream(lambda: self.create(thread_id, **params), self.watch, created=True)

    def create_and_stream(self, thread_id: str, **params: Any) -> RunStream:
        """Do as `stream` does, which replaces this."""
        warnings.warn("use runs.stream", DeprecationWarning, stacklevel=2)
        return self.stream(thread_id, **params)

    def submit_tool_outputs_stream(
        self, run_id: str, *, thread_id: str | None = None, tool_outputs: Iterable[object]
    ) -> RunStream:
        """Deliver answers as `submit_tool_outputs` does, and follow the run as `stream` does."""

        async def submit() -> Run:
            return await self.submit_tool_outputs(
                run_id, thread_id=thread_id, tool_outputs=tool_outputs
            )

        return RunStream(submit, self.watch, created=False)

    def follow(self, run_id: str, thread_id: str | None = None) -> RunStream:
        """Follow a run that exists, as `stream` does."""
        return RunStream(lambda: self.retrieve(run_id, thread_id), self.watch, created=False)

    async def nudge(self, run_id: str, thread_id: str | None = None) -> None:
        """Make the run look at its upstream now: something was mended, or a webhook came.

        Raises:
            RunNotFound: there is no such run, or it is on another thread.
        """
        with explained(self._client):
            await self._check(run_id, thread_id)
            if not await blocked.nudge(self._client, run_id):
                # A run that has ended needs no nudge; one that never was is told.
                await reading.describe(self._client, run_id)

    async def nudge_blocked(self, kind: str | None = None) -> int:
        """Nudge all blocked runs of the namespace, fifty a second; return how many there were.

        Raises:
            InvalidRequest: there is no such kind.
        """
        with explained(self._client):
            return await blocked.nudge_all(self._client, checked_kind(kind))

    async def _view(self, run_id: str, thread_id: str | None, patience: timedelta) -> RunView:
        with explained(self._client):
            view = await reading.read(self._client, run_id, thread_id=thread_id, patience=patience)
        return blocked.with_remedy(view)

    async def _check(self, run_id: str, thread_id: str | None) -> str:
        """Look for the run, and whether its words can be read here, before it is sent anything.

        A message under a key that its workers haven't got would stop the run.

        Returns:
            The task queue of its workers.
        """
        description = await reading.describe(self._client, run_id, thread_id)
        await request_memo(description)
        return description.task_queue

    async def _send(
        self, run_id: str, task_queue: str, name: str, message: object, answer: type[_T]
    ) -> _T:
        """Send an update; where the run seems to be closed, look whether it is."""
        for _ in range(_MESSAGE_TRIES):
            try:
                return await messages.send(
                    self._client, run_id, name, message, answer, task_queue=task_queue
                )
            except messages.RunClosed:
                description = await reading.describe(self._client, run_id)
                if reading.is_closed(description):
                    raise
                # It was ending, and hasn't ended: an ending run says so itself, in its view.
                view = await reading.read(self._client, run_id)
                if view.run.status == RunStatus.CANCELLING:
                    raise
                await asyncio.sleep(_BETWEEN_TRIES_SECONDS)
            except NoWorker:
                description = await reading.describe(self._client, run_id)
                if reading.is_closed(description):
                    raise messages.RunClosed from None
                raise
        text = f"{run_id} is between two states; give the command again."
        raise RunlaneError(text, code="busy")

    def _stores(self) -> bool:
        storage = self._client.data_converter.external_storage
        return storage is not None and any(
            not isinstance(driver, AbsentPayloadStore) for driver in storage.drivers
        )
