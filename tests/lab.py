"""A laboratory for one run: a real Temporal server, a worker in this process, a real upstream."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest_asyncio
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from activities.batch import BatchActivities
from activities.decision import Verifier
from activities.notify import NotifyActivities
from activities.runs import RunActivities
from activities.schedule import ScheduleActivities
from activities.tools import Toolbox
from ledger import Ledger
from runlane.batches.intake import StoredIntake
from runlane.promoting import PromotedRuns
from runlane.reading import NO_ANSWER
from runsapi import Assistants
from tests.ledgers import new_directory, open_in
from tests.simulator_process import SimulatorProcess
from worker import MAX_CACHED_WORKFLOWS, build_workers, shut_down
from workflows.contract import (
    NOTHING_NEW,
    CancelRequest,
    Receipts,
    RunOptions,
    RunRequest,
    RunView,
    Timing,
    ToolOutputMessage,
    ToolOutputs,
)
from workflows.run import RunWorkflow
from workflows.state import RunInput

_T = TypeVar("_T")

QUICK = Timing(
    poll_floor=0.1,
    look_floor=1.0,
    blocked_floor=0.2,
    settle_for=1.0,
)
"""The product's timing, with the shortest waits shortened."""


class Lab:
    """One thread and one assistant of a test's own, and the worker that drives their runs."""

    def __init__(self, client: Client, simulator: SimulatorProcess) -> None:
        self.client = client
        self.simulator = simulator
        token = secrets.token_hex(6)
        self.thread_id = f"thread_{token}"
        self.assistant_id = f"asst_{token}"
        self.task_queue = f"tq-{token}"
        self.ledger: Ledger
        """Open while a worker serves; what was written is there for the next worker too."""
        self._ledger_directory: Path | None = None

    @asynccontextmanager
    async def open_ledger(self) -> AsyncIterator[Ledger]:
        """Open this lab's ledger, one of its own."""
        self._ledger_directory = self._ledger_directory or new_directory()
        async with await open_in(self._ledger_directory) as self.ledger:
            yield self.ledger

    @asynccontextmanager
    async def worker(
        self,
        *,
        upstream_url: str | None = None,
        max_cached_workflows: int = MAX_CACHED_WORKFLOWS,
        workers: int = 2,
        http_client: httpx.AsyncClient | None = None,
        tools: Toolbox | None = None,
        verifier: Verifier | None = None,
        notify: NotifyActivities | None = None,
    ) -> AsyncIterator[None]:
        """Serve this lab's task queue as production does, by several workers side by side."""
        async with (
            Assistants(
                upstream_url or self.simulator.url, timeout=20, http_client=http_client
            ) as upstream,
            self.open_ledger() as ledger,
        ):
            # Two workers of one queue each need a connection of their own.
            clients = [self.client, *[await _another(self.client) for _ in range(workers - 1)]]
            activities = RunActivities(upstream, ledger)
            parts = [
                part
                for client in clients
                for part in build_workers(
                    client,
                    activities,
                    ledger=ledger,
                    task_queue=self.task_queue,
                    tools=tools,
                    verifier=verifier,
                    notify=notify,
                    batches=BatchActivities(
                        upstream,
                        ledger,
                        PromotedRuns(client, ledger, self.task_queue),
                        StoredIntake(ledger),
                    ),
                    schedules=ScheduleActivities(upstream),
                    max_cached_workflows=max_cached_workflows,
                )
            ]
            serving = [asyncio.create_task(part.run()) for part in parts]
            try:
                yield
            finally:
                await shut_down(parts, serving)
                activities.close()

    async def scenario(self, **fields: Any) -> None:
        """Say how this lab's assistant behaves."""
        fields.setdefault("assistant_id", self.assistant_id)
        await asyncio.to_thread(lambda: self.simulator.scenario(**fields))

    async def fault(self, operation: str, kind: str, **fields: Any) -> str:
        """Order a fault on this lab's thread; return its id."""
        fields.setdefault("thread_id", self.thread_id)
        return await asyncio.to_thread(lambda: self.simulator.fault(operation, kind, **fields))

    async def held(self, fault: str) -> None:
        """Wait until a request is held by the fault."""
        await asyncio.to_thread(self.simulator.wait_held, fault)

    async def release(self, fault: str, *, answer: bool = True) -> None:
        """Let go what the fault holds."""
        await asyncio.to_thread(lambda: self.simulator.release(fault, answer=answer))

    async def force(self, run_id: str, status: str) -> None:
        """Put an upstream run into a status."""
        await asyncio.to_thread(self.simulator.force, run_id, status)

    async def accepted(self, operation: str) -> int:
        """Return how many requests of that kind changed something on this lab's thread."""
        answer = await asyncio.to_thread(lambda: self.simulator.requests(thread_id=self.thread_id))
        return int(answer["accepted"].get(operation, 0))

    async def received(self, operation: str) -> int:
        """Return how many requests of that kind came in for this lab's thread."""
        answer = await asyncio.to_thread(lambda: self.simulator.requests(thread_id=self.thread_id))
        return int(answer["counts"].get(operation, 0))

    async def start(
        self,
        *,
        run_id: str | None = None,
        timing: Timing = QUICK,
        params: dict[str, Any] | None = None,
        thread_id: str | None = None,
        requested_by: str | None = None,
        **options: Any,
    ) -> "LabRun":
        """Start a run of this lab's assistant on its thread."""
        created_at = time.time()
        thread_id = thread_id or self.thread_id
        request = RunRequest(
            thread_id=thread_id,
            params={"assistant_id": self.assistant_id, **(params or {})},
            options=RunOptions(timing=timing, **options),
            created_at=created_at,
            requested_by=requested_by,
        )
        handle = await self.client.start_workflow(
            RunWorkflow.run,
            RunInput(request=request),
            id=run_id or f"run_{secrets.token_hex(8)}",
            task_queue=self.task_queue,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            search_attributes=TypedSearchAttributes(
                [
                    SearchAttributePair(SearchAttributeKey.for_keyword("RunlaneStatus"), "queued"),
                    SearchAttributePair(SearchAttributeKey.for_keyword("RunlaneThread"), thread_id),
                    SearchAttributePair(
                        SearchAttributeKey.for_keyword("RunlaneAssistant"), self.assistant_id
                    ),
                ]
            ),
        )
        return LabRun(handle)


class LabRun:
    """A started run, driven as the orchestrator drives it."""

    def __init__(self, handle: WorkflowHandle[RunWorkflow, RunView]) -> None:
        self.handle = handle
        self.id = handle.id

    async def view(self, *, seconds: float = 40.0) -> RunView:
        """Ask the workflow, and ask again where no worker has answered."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return await self.handle.query(RunWorkflow.view)
            except RPCError as error:
                # A worker that dies may take a question with it.
                if error.status not in NO_ANSWER or time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(0.03)

    async def until(
        self, condition: Callable[[RunView], bool], *, seconds: float = 40.0
    ) -> RunView:
        """Wait until the view fulfils the condition."""
        deadline = time.monotonic() + seconds
        while True:
            view = await self.view(seconds=deadline - time.monotonic())
            if condition(view):
                return view
            assert time.monotonic() < deadline, f"still {view.model_dump_json(indent=1)}"
            await asyncio.sleep(0.03)

    async def until_status(self, *statuses: str, seconds: float = 40.0) -> RunView:
        """Wait until the run has one of the statuses."""
        return await self.until(lambda view: view.run.status in statuses, seconds=seconds)

    async def submit(self, *pairs: tuple[str, str], by: str | None = None) -> list[str]:
        """Deliver answers by update; return the receipts' words."""
        outputs = ToolOutputs(
            tool_outputs=[
                ToolOutputMessage(tool_call_id=call_id, output=out) for call_id, out in pairs
            ],
            by=by,
        )
        try:
            receipts = await _taken(
                lambda: self.handle.execute_update(RunWorkflow.submit_tool_outputs, outputs)
            )
        except WorkflowUpdateFailedError as error:
            cause = error.cause
            if not isinstance(cause, ApplicationError) or cause.type != NOTHING_NEW:
                raise
            receipts = Receipts.model_validate(cause.details[0])
        return [str(receipt.status) for receipt in receipts.receipts]

    async def signal(self, *pairs: tuple[str, str]) -> None:
        """Deliver answers by signal."""
        await self.handle.signal(
            RunWorkflow.tool_outputs,
            ToolOutputs(
                tool_outputs=[
                    ToolOutputMessage(tool_call_id=call_id, output=out) for call_id, out in pairs
                ]
            ),
        )

    async def answer_all(self, output: str = "ok") -> RunView:
        """Wait for calls and answer each."""
        view = await self.until(lambda view: bool(view.runlane.pending))
        await self.submit(*((call.tool_call_id, output) for call in view.runlane.pending))
        return view

    async def cancel(self) -> None:
        """Ask for the end."""
        await _taken(lambda: self.handle.execute_update(RunWorkflow.cancel, CancelRequest()))

    async def result(self, *, seconds: float = 60.0) -> RunView:
        """Wait for the end."""
        return await asyncio.wait_for(self.handle.result(), seconds)

    async def events(self) -> list[str]:
        """Return the history's event types, as words."""
        history = await self.handle.fetch_history()
        return [
            EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in history.events
        ]


async def _taken(send: Callable[[], Awaitable[_T]]) -> _T:
    """Send an update until a task takes it, as the client does.

    Temporal refuses those of a task that was to continue as new and met another message.
    """
    while True:
        try:
            return await send()
        except RPCError as error:
            if error.status is not RPCStatusCode.FAILED_PRECONDITION:
                raise


async def _another(client: Client) -> Client:
    """Return a client like this one, on a connection of its own."""
    config = client.config()
    return await Client.connect(
        client.service_client.config.target_host,
        namespace=client.namespace,
        data_converter=client.data_converter,
        interceptors=config["interceptors"],
        header_codec_behavior=config["header_codec_behavior"],
    )


@pytest_asyncio.fixture
async def lab(client: Client, simulator: SimulatorProcess) -> AsyncIterator[Lab]:
    """A lab whose worker is running."""
    laboratory = Lab(client, simulator)
    async with laboratory.worker():
        yield laboratory


async def eventually(
    probe: Callable[[], Awaitable[_T]],
    condition: Callable[[_T], bool],
    *,
    within: timedelta = timedelta(seconds=40),
) -> _T:
    """Return what the probe says once it fulfils the condition."""
    deadline = time.monotonic() + within.total_seconds()
    while True:
        found = await probe()
        if condition(found):
            return found
        assert time.monotonic() < deadline, f"still {found!r}"
        await asyncio.sleep(0.05)
