"""An installation in pieces, as on machines of their own: no two share a directory.

The ledger is a PostgreSQL behind a port, keys come by the environment, and each process has a
working directory, a home and a data directory that no other one knows. Every piece can be killed
and started again where it was.
"""

import asyncio
import base64
import json
import os
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from temporalio.client import Client

from ledger import Ledger, Location, signing
from ledger.signing import Signer
from runlane.embedded import EmbeddedTemporal
from runlane.ledger_access import KeySealing
from runlane.settings import EncryptionKey, Settings
from runlane.temporal import connect
from tests.e2e.test_cli import Said
from tests.postgres_server import PostgresServer
from tests.processes import ApiProcess, ProgramProcess, WorkerProcess
from tests.simulator_process import SimulatorProcess

_Process = TypeVar("_Process", bound=ProgramProcess)

AWAY = (-signal.SIGKILL, 1, 5)
"""Exit codes of a command that was killed, or missed one of the pieces: it is given again."""


class Temporal:
    """The server, on its file and its ports."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.server = EmbeddedTemporal(directory)

    @property
    def pid(self) -> int:
        """Of the running server."""
        return self.server.pid

    async def start(self) -> None:
        """Start it, where it was before."""
        await self.server.start()

    async def kill(self) -> None:
        """End it without a word; the next start is on the same ports."""
        os.kill(self.pid, signal.SIGKILL)
        await self.server.wait()
        await self.server.stop()
        ports = [int(url.rpartition(":")[2]) for url in (self.server.address, self.server.ui_url)]
        self.server = EmbeddedTemporal(self._directory, port=ports[0], ui_port=ports[1])


class Scattered:
    """Temporal, PostgreSQL, an upstream, and what is started beside them.

    Args:
        directory: under which each piece has one of its own.
        simulator: the upstream.
        postgres: serves already.
    """

    def __init__(
        self, directory: Path, simulator: SimulatorProcess, postgres: PostgresServer
    ) -> None:
        self._directory = directory
        Signer.in_directory(directory)
        self._audit_key = directory / signing.FILE
        self.simulator = simulator
        self.postgres = postgres
        self.temporal = Temporal(self.place("temporal"))
        self.key = EncryptionKey("scattered", secrets.token_bytes(32))
        self.ledger: Ledger
        self.client: Client
        self._processes: list[ProgramProcess] = []

    def place(self, name: str) -> Path:
        """Return the directory of one piece."""
        made = self._directory / name
        if not made.exists():
            (made / "data").mkdir(parents=True)
            # Of the keys, the one that has to be a file.
            shutil.copy(self._audit_key, made / "data")
        return made

    def environ(self, name: str) -> dict[str, str]:
        """Return what one piece is told."""
        place = self.place(name)
        return {
            "HOME": str(place),
            "TEMPORAL_ADDRESS": self.temporal.server.address,
            "RUNLANE_UPSTREAM_URL": self.simulator.url,
            "RUNLANE_UPSTREAM_API_KEY": "sk-scattered",
            "RUNLANE_DATA_DIR": str(place / "data"),
            "RUNLANE_DATABASE_URL": self.postgres.url,
            "RUNLANE_ENCRYPTION_KEYS": f"scattered:{base64.b64encode(self.key.key).decode()}",
        }

    async def worker(self, name: str) -> WorkerProcess:
        """Start a worker."""
        log = self.place(name) / "log"
        return await self._started(WorkerProcess(self.environ(name), log, self.place(name)))

    async def api(self, name: str = "api") -> ApiProcess:
        """Start an API, open to this machine."""
        log = self.place(name) / "log"
        return await self._started(ApiProcess(self.environ(name), log, self.place(name)))

    def command(self, name: str, *args: str) -> "Command":
        """Return a command, given in the directory of this name."""
        return Command(args, self.place(name), self.environ(name))

    async def _started(self, process: _Process) -> _Process:
        self._processes.append(process)
        await process.start()
        return process

    async def close(self) -> None:
        """End what is left."""
        await asyncio.gather(*(process.dispose() for process in self._processes))


@asynccontextmanager
async def scattered(directory: Path) -> AsyncIterator[Scattered]:
    """Start Temporal, PostgreSQL and a simulator of their own."""
    postgres = PostgresServer("fsync=off", port=_free_port())
    try:
        await asyncio.to_thread(postgres.start)
        with SimulatorProcess() as simulator:
            pieces = Scattered(directory, simulator, postgres)
            await pieces.temporal.start()
            try:
                settings = Settings(
                    data_dir=pieces.place("test") / "data", encryption_keys=(pieces.key,)
                )
                environ = {"TEMPORAL_ADDRESS": pieces.temporal.server.address}
                pieces.client = await connect(settings, environ=environ)
                location, sealing = Location.from_url(postgres.url), KeySealing((pieces.key,))
                async with await Ledger.open(location, sealing) as pieces.ledger:
                    yield pieces
            finally:
                await pieces.close()
                await pieces.temporal.server.stop()
    finally:
        postgres.remove()


class Command:
    """A command that is given again and again until it comes to an end of its own."""

    def __init__(self, args: Sequence[str], directory: Path, environ: dict[str, str]) -> None:
        self._args = args
        self._directory = directory
        self._environ = environ
        self._process: asyncio.subprocess.Process | None = None
        self.given = 0
        """How often."""
        self.codes: list[int] = []
        """Its exit codes."""

    async def __call__(self, *, again: Callable[[int], bool] = AWAY.__contains__) -> Said:
        """Give it until its exit code is none of those for which it is given again."""
        while True:
            said = await self._give()
            self.codes.append(said.code)
            if not again(said.code):
                return said
            await asyncio.sleep(0.2)

    async def kill(self) -> None:
        """End it without a word, where it is running."""
        process = self._process
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def _give(self) -> Said:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RUNLANE_", "TEMPORAL_", "OTEL_"))
        }
        self.given += 1
        self._process = process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("runlane")),
            *self._args,
            cwd=self._directory,
            env=inherited | self._environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return Said(process.returncode, out.decode(), err.decode(), 0.0)


def result_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of results; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
