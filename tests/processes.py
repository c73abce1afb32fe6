"""Programs of ours in processes of their own: a test can stop, pause or kill one as machines do."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest_asyncio
from temporalio.client import Client

from runlane.embedded import EmbeddedTemporal
from tests.lab import Lab, eventually
from tests.simulator_process import SimulatorProcess

GOES_ON_WITHIN = 15.0
"""Seconds from a worker's death until another one has gone on with what it held."""

_ROOT = Path(__file__).parents[1]
_READY_WITHIN = 60.0


class ProgramProcess:
    """A program of ours, which prints one JSON document once it is ready."""

    def __init__(
        self, command: Sequence[str], environ: dict[str, str], log: Path, root: Path = _ROOT
    ) -> None:
        self._command = command
        self._environ = environ
        self._root = root
        self.log = log
        """What it says on standard error."""
        self.document: dict[str, Any] = {}
        """What it said when it was ready."""
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Its process id, also after its end."""
        return self._started().pid

    async def start(self) -> None:
        """Start the process and wait until it serves."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RUNLANE_", "TEMPORAL_", "OTEL_"))
        }
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self._command,
                "--json",
                cwd=self._root,
                env=inherited | self._environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), _READY_WITHIN)
        assert line, f"it ended before it was ready:\n{self.log.read_text()[-2000:]}"
        self.document = json.loads(line)
        assert self.pid == self.document.get("pid"), line

    def terminate(self) -> None:
        """Ask it to end, as a supervisor or a deploy does."""
        self._send(signal.SIGTERM)

    def pause(self) -> None:
        """Stop it where it stands; its connections stay open, and answers pile up unread."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused one go on."""
        self._send(signal.SIGCONT)

    async def kill(self) -> float:
        """End it without a word; return the time of its death, in unix seconds."""
        self._send(signal.SIGKILL)
        killed_at = time.time()
        assert -signal.SIGKILL == await self.wait()
        return killed_at

    async def wait(self, *, seconds: float = 30.0) -> int:
        """Wait for its end; return its exit status (negative: the signal)."""
        status = await asyncio.wait_for(self._started().wait(), seconds)
        if status not in {0, -signal.SIGKILL}:
            # Shown with the failure of the test that expected another.
            print(f"{self.log.name} ends with {status}:\n{self.log.read_text()[-4000:]}")
        return status

    async def dispose(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def _started(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "not started"
        return self._process


class WorkerProcess(ProgramProcess):
    """`python -m worker`; started and ready once `start` has returned."""

    def __init__(self, environ: dict[str, str], log: Path, root: Path = _ROOT) -> None:
        super().__init__(["worker"], environ, log, root)


class ApiProcess(ProgramProcess):
    """`python -m runlane.api`, on a port that it has again after a kill and another `start`."""

    def __init__(self, environ: dict[str, str], log: Path, root: Path = _ROOT) -> None:
        super().__init__([], environ, log, root)
        self._port = 0

    @property
    def url(self) -> str:
        """Its base URL, with `/v1`."""
        return str(self.document["url"])

    async def start(self) -> None:
        """Start the process and wait until it answers."""
        self._command = ["runlane.api", "--open", "--port", str(self._port)]
        await super().start()
        self._port = urlsplit(self.url).port or 0


class Plant:
    """A Temporal, an upstream and a task queue, and worker processes that come and go."""

    def __init__(
        self, address: str, client: Client, simulator: SimulatorProcess, data_dir: Path
    ) -> None:
        self.client = client
        self.simulator = simulator
        self.lab = Lab(client, simulator)
        self.went_on_after: list[float] = []
        """Seconds of every take-over measured."""
        self._environ = {
            "TEMPORAL_ADDRESS": address,
            "RUNLANE_UPSTREAM_URL": simulator.url,
            "RUNLANE_DATA_DIR": str(data_dir),
            "RUNLANE_TASK_QUEUE": self.lab.task_queue,
        }
        self._data_dir = data_dir
        self._workers: list[WorkerProcess] = []
        self._apis: list[ApiProcess] = []

    def another_lab(self) -> Lab:
        """Return a lab with a thread of its own, served by the same workers."""
        lab = Lab(self.client, self.simulator)
        lab.task_queue = self.lab.task_queue
        return lab

    async def worker(self, root: Path = _ROOT, /, **environ: str) -> WorkerProcess:
        """Start one more worker on the queue, with these variables besides.

        Args:
            root: The directory with the code that it runs; another release's, say.
            environ: Variables beside those that name the plant.
        """
        log = self._data_dir / f"{self.lab.task_queue}-{len(self._workers) + 1}.log"
        process = WorkerProcess(self._environ | environ, log, root)
        self._workers.append(process)
        await process.start()
        return process

    async def api(self, **environ: str) -> ApiProcess:
        """Start one more API in front of the queue, open to this machine.

        Args:
            environ: Variables beside those that name the plant.
        """
        log = self._data_dir / f"{self.lab.task_queue}-api-{len(self._apis) + 1}.log"
        process = ApiProcess(self._environ | environ, log)
        self._apis.append(process)
        await process.start()
        return process

    async def goes_on(
        self, since: float, lab: Lab | None = None, *, within: float = GOES_ON_WITHIN
    ) -> float:
        """Wait until somebody talks to the upstream about the lab's thread again.

        The upstream is asked, for a query to the workflow would itself set it going.

        Returns:
            The seconds from `since`, by the upstream's record.
        """
        lab = lab or self.lab

        async def after() -> list[float]:
            # What the dead one had sent already may arrive a moment later.
            return [at for at in await requests_at(lab) if at > since + 0.05]

        # Longer than allowed, so that a failure says by how much it was too long.
        (first, *_) = await eventually(after, bool, within=timedelta(seconds=within + 30))
        took = round(first - since, 2)
        self.went_on_after.append(took)
        assert took <= within
        return took

    async def dispose(self) -> None:
        """End every process that is left."""
        processes = (*self._workers, *self._apis)
        await asyncio.gather(*(process.dispose() for process in processes))


async def requests_at(lab: Lab) -> list[float]:
    """Return when the upstream got each request about the lab's thread, in unix seconds."""
    report = await asyncio.to_thread(lambda: lab.simulator.requests(thread_id=lab.thread_id))
    return [entry["at"] for entry in report["data"]]


@pytest_asyncio.fixture
async def plant(
    temporal_server: EmbeddedTemporal,
    client: Client,
    simulator: SimulatorProcess,
    data_dir: Path,
    record_property: Callable[[str, object], None],
) -> AsyncIterator[Plant]:
    """A task queue of the test's own, with no worker yet."""
    plant = Plant(temporal_server.address, client, simulator, data_dir)
    try:
        yield plant
    finally:
        await plant.dispose()
        record_property("went_on_after", plant.went_on_after)
