"""The real parts: one Temporal and one simulator for all figures, and worker processes."""

import os
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from temporalio.client import Client, WorkflowHandle

from benchmarks.plain_workflow import Outputs, PlainRequest, PlainRun
from benchmarks.progress import Progress
from benchmarks.upstream import Upstream
from runlane import key_file
from runlane.children import Child, python_module
from runlane.decisions import keys
from runlane.embedded import EmbeddedTemporal
from runlane.errors import NoWorker
from runlane.orchestrator import Runlane
from runlane.settings import Settings
from runlane.temporal import connect
from runsapi import Run, RunCreateParams, ToolOutput

_OUR_VARIABLES = ("RUNLANE_", "TEMPORAL_")


@dataclass(frozen=True)
class RunlaneWorker:
    """A worker process of ours, and the client of the runs that it serves."""

    pid: int
    client: Runlane

    async def start(self, thread_id: str, assistant_id: str) -> str:
        """Start a run; return its id."""
        return (await self.client.runs.create(thread_id, assistant_id=assistant_id)).id

    async def answer(self, run_id: str, call_id: str) -> None:
        """Answer a call; return once the answer is accepted."""
        outputs = [{"tool_call_id": call_id, "output": "shipped"}]
        while True:
            # A worker that is behind with its work is one that nobody heard from: once more then.
            with suppress(NoWorker):
                await self.client.runs.deliver(run_id, tool_outputs=outputs)
                return

    async def cancel(self, run_id: str) -> None:
        """Ask for a run's cancellation; return once the request is accepted."""
        while True:
            with suppress(NoWorker):
                await self.client.runs.cancel(run_id)
                return

    def handle(self, run_id: str) -> WorkflowHandle[object, object]:
        """Return the workflow of a run."""
        return self.client.temporal.get_workflow_handle(run_id)


@dataclass(frozen=True)
class PlainWorker:
    """A worker process of the plain workflow, and a client of it."""

    pid: int
    client: Client
    task_queue: str

    async def start(self, thread_id: str, assistant_id: str) -> str:
        """Start a run; return its id."""
        params = RunCreateParams(assistant_id=assistant_id)
        handle = await self.client.start_workflow(
            PlainRun.run,
            PlainRequest(thread_id=thread_id, params=params),
            id=f"plain_{secrets.token_hex(8)}",
            task_queue=self.task_queue,
        )
        return handle.id

    async def answer(self, run_id: str, call_id: str) -> None:
        """Answer a call; return once the signal is accepted."""
        outputs = Outputs(tool_outputs=[ToolOutput(tool_call_id=call_id, output="shipped")])
        await self.handle(run_id).signal(PlainRun.submit, outputs)

    def handle(self, run_id: str) -> WorkflowHandle[PlainRun, Run]:
        """Return the workflow of a run."""
        return self.client.get_workflow_handle_for(PlainRun.run, run_id)


@dataclass(frozen=True)
class ApiServer:
    """A process that serves the HTTP API."""

    url: str
    """With `/v1`."""
    pid: int


class Site:
    """Temporal, the simulator and a worker of each kind, alive inside `async with`."""

    def __init__(self, data_dir: Path, progress: Progress) -> None:
        self.data_dir = data_dir
        self.progress = progress
        self._ends = AsyncExitStack()
        self._settings = Settings(data_dir=data_dir)
        self.temporal = EmbeddedTemporal(data_dir)

    async def __aenter__(self) -> "Site":
        """Start all."""
        try:
            self.progress.say("Starting Temporal, the simulator and two workers ...")
            # As `runlane up` does: what is measured is encrypted, ours and the plain workflow's.
            key_file.make(self.data_dir)
            keys.make(self.data_dir)
            await self._ends.enter_async_context(self.temporal)
            simulator = self._child("simulator", "runsapi.simulator", "--no-bodies")
            self._ends.push_async_callback(simulator.stop)
            self.upstream = Upstream((await simulator.start())["url"], simulator.pid)
            self._ends.push_async_callback(self.upstream.close)
            self._temporal_environ = {
                "TEMPORAL_ADDRESS": self.temporal.address,
                "TEMPORAL_CONFIG_FILE": os.devnull,
            }
            self.client = await connect(self._settings, environ=self._temporal_environ)
            self.runlane = await self._ends.enter_async_context(self.runlane_worker())
            self.plain = await self._ends.enter_async_context(self._plain_worker())
        except BaseException:
            await self._ends.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop all."""
        self.progress.say("Stopping everything ...")
        await self._ends.aclose()

    @asynccontextmanager
    async def runlane_worker(self, **environ: str) -> AsyncIterator[RunlaneWorker]:
        """Start one more `runlane worker`, on a task queue of its own."""
        async with self._worker("runlane", "worker", "--json", **environ) as (pid, task_queue):
            settings = replace(self._settings, task_queue=task_queue)
            yield RunlaneWorker(pid, Runlane(self.client, settings))

    @asynccontextmanager
    async def api(
        self, worker: RunlaneWorker, data_dir: Path | None = None
    ) -> AsyncIterator[ApiServer]:
        """Start a `runlane api` for a worker's runs.

        Args:
            worker: of the runs.
            data_dir: of its ledger; default: the site's.
        """
        child = self._child(
            f"api of {worker.client.settings.task_queue}",
            "runlane.api",
            *("--json", "--port", "0", "--open"),
            RUNLANE_TASK_QUEUE=worker.client.settings.task_queue,
            RUNLANE_UPSTREAM_URL=self.upstream.url,
            RUNLANE_DATA_DIR=str(data_dir or self.data_dir),
            **self._temporal_environ,
        )
        try:
            yield ApiServer(url=(await child.start())["url"], pid=child.pid)
        finally:
            await child.kill()

    def command(self, name: str, worker: RunlaneWorker, *words: str, **environ: str) -> Child:
        """Return a `runlane` of a worker's runs, to be started; its first document is its last."""
        return self._started_by_us(
            name,
            [str(Path(sys.executable).with_name("runlane")), *words],
            RUNLANE_TASK_QUEUE=worker.client.settings.task_queue,
            RUNLANE_DATA_DIR=str(self.data_dir),
            **self._temporal_environ,
            **environ,
        )

    def module(self, name: str, *module: str) -> Child:
        """Return a module with its arguments as a program, to be started."""
        return self._child(name, *module)

    @asynccontextmanager
    async def _plain_worker(self) -> AsyncIterator[PlainWorker]:
        async with self._worker("plain", "benchmarks.plain_worker") as (pid, task_queue):
            yield PlainWorker(pid, self.client, task_queue)

    @asynccontextmanager
    async def _worker(
        self, kind: str, *module: str, **environ: str
    ) -> AsyncIterator[tuple[int, str]]:
        task_queue = f"{kind}-{secrets.token_hex(4)}"
        child = self._child(
            f"{kind} worker",
            *module,
            RUNLANE_TASK_QUEUE=task_queue,
            RUNLANE_UPSTREAM_URL=self.upstream.url,
            RUNLANE_DATA_DIR=str(self.data_dir),
            **self._temporal_environ,
            **environ,
        )
        try:
            await child.start()
            yield child.pid, task_queue
        finally:
            # What it still holds is of no interest, and an orderly end takes as long as that.
            await child.kill()

    def _child(self, name: str, *module: str, **environ: str) -> Child:
        return self._started_by_us(name, python_module(*module), **environ)

    def _started_by_us(self, name: str, command: Sequence[str], **environ: str) -> Child:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_OUR_VARIABLES)}
        log_path = self.data_dir / f"{name.replace(' ', '-')}.log"
        return Child(name, command, environ=inherited | environ, log_path=log_path)
