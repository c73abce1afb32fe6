"""The parts of `runlane up` as child processes: Temporal, a worker, the API, and the simulator.

What dies is started again; what ends, ends in order: the API and the worker first, while everything
they may have to report to still answers.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, UpdateNamespaceRequest
from temporalio.client import Client

from ledger import LedgerError
from runlane import key_check, key_file, own_api, ports, room
from runlane.attention import Attention
from runlane.children import Child, ChildFailed, how_it_ended, python_module
from runlane.decisions import keys
from runlane.embedded import NAMESPACE, EmbeddedTemporal, EmbeddedTemporalError, PortTaken
from runlane.errors import ExitCode, RunlaneError
from runlane.ledger_access import open_ledger
from runlane.news import News
from runlane.ports import LOOPBACK, port_of
from runlane.search_attributes import SearchAttributesMissing
from runlane.settings import Settings
from runlane.temporal import connect
from runlane.up_options import REAL_UPSTREAM, UpOptions
from runlane.upstream import UPSTREAM_URL_KEY

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
# A child that lived this long is not one that dies again and again.
_PROVEN_SECONDS = 60.0
_TEMPORAL_ATTEMPTS = 5
_BETWEEN_LOOKS_AT_DISK = 10.0
_BETWEEN_LOOKS_AT_LEDGER = 10.0


def say(text: str) -> None:
    """Print a line to stderr, at once."""
    # Nobody may be left to read it: the terminal was closed, and that is why we end.
    with suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class UpError(RunlaneError):
    """`up` can't start or go on; the message says why and what to do."""

    type = "up_error"


class Parts:
    """Embedded Temporal, the simulator, a worker and the API, alive inside `async with`.

    `keep` restarts what dies. The demonstration uses the parts without it.
    """

    def __init__(
        self,
        options: UpOptions,
        *,
        environ: Mapping[str, str] = os.environ,
        say: Callable[[str], None] = say,
    ) -> None:
        """Describe the parts; nothing starts yet.

        Args:
            options: which, where and with what.
            environ: what the children inherit.
            say: is told what happens, a line each.
        """
        self.options = options
        self.upstream_url = options.settings.upstream_url or ""
        self._environ = environ
        self._say = say
        self._ends = AsyncExitStack()
        self._temporal = EmbeddedTemporal(
            options.data_dir,
            port=options.temporal_port,
            ui_port=options.ui_port,
            accept_server_version=options.accept_server_version,
            log_format=options.settings.log_format,
        )
        self._simulator: Child | None = None
        self._worker: Child | None = None
        self._api: Child | None = None
        self.api_url: str | None = None
        """With `/v1`; None: it isn't served."""
        self.is_open = True
        """Whether nobody had made a token when it was started."""

    @property
    def temporal(self) -> EmbeddedTemporal:
        """The server."""
        return self._temporal

    @property
    def worker(self) -> Child:
        """The worker."""
        assert self._worker is not None
        return self._worker

    def document(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        simulator, api = self._simulator, self._api
        return {
            "pid": os.getpid(),
            "temporal": self._temporal.address,
            "namespace": NAMESPACE,
            "task_queue": self.options.settings.task_queue,
            "ui": self._temporal.ui_url,
            "upstream": self.upstream_url,
            "simulated": self.options.simulate,
            "api": self.api_url,
            "data_dir": str(self.options.data_dir),
            "temporal_pid": self._temporal.pid,
            "worker_pid": self.worker.pid,
            "simulator_pid": None if simulator is None else simulator.pid,
            "api_pid": None if api is None else api.pid,
        }

    def client_environ(self) -> dict[str, str]:
        """Return the environment in which commands and workers find these parts."""
        environ = {k: v for k, v in self._environ.items() if not k.startswith("TEMPORAL_")}
        if self.options.simulate:
            environ = {k: v for k, v in environ.items() if not k.startswith(REAL_UPSTREAM)}
        return environ | {
            "TEMPORAL_ADDRESS": self._temporal.address,
            "TEMPORAL_NAMESPACE": NAMESPACE,
            # Somebody's own profile may name a key or TLS, which this server doesn't have.
            "TEMPORAL_CONFIG_FILE": os.devnull,
            "RUNLANE_DATA_DIR": str(self.options.data_dir),
            "RUNLANE_UPSTREAM_URL": self.upstream_url,
        }

    async def __aenter__(self) -> "Parts":
        """Start all parts, each once the one it needs serves.

        Raises:
            RunlaneError: one of them doesn't start; those before it are stopped.
        """
        try:
            _make(self.options.data_dir)
            self._choose_api_port()
            self._say(f"Starting Temporal, with its state in {self.options.data_dir} ...")
            self._ends.push_async_callback(self._stop_temporal)
            await self._start_temporal()
            await self._find_key()
            await asyncio.to_thread(keys.make, self.options.data_dir)
            if self.options.simulate:
                self._say("Starting the simulator ...")
                await self._start_simulator()
            await self._tell_others()
            if self.api_url is None:
                self._say("Starting a worker ...")
                await self.start_worker()
            else:
                self._say("Starting a worker and the API ...")
                await self._start_worker_and_api()
        except BaseException:
            await self._ends.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop all parts, the worker first."""
        await self._ends.aclose()

    def kill_now(self) -> None:
        """Kill what is still there; `__aexit__` then has nothing to wait for."""
        for child in (self._api, self._worker, self._simulator):
            if child is not None:
                child.kill_now()
        with suppress(EmbeddedTemporalError, ProcessLookupError):
            os.kill(self._temporal.pid, signal.SIGKILL)

    async def keep(self) -> None:
        """Restart whatever ends, for ever, and say so.

        Raises:
            UpError: Temporal doesn't come back.
        """
        keepers: list[Awaitable[None]] = [
            self._keep_temporal(),
            self._keep(self.worker),
            self._watch_room(),
            self._tell_news(),
        ]
        keepers += [self._keep(each) for each in (self._simulator, self._api) if each is not None]
        tasks = [asyncio.ensure_future(keeper) for keeper in keepers]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def start_worker(self) -> Child:
        """Start a worker; the one before it, if any, must have ended."""
        environ = self.client_environ()
        self._worker = worker = Child(
            "worker",
            python_module("worker", "--json"),
            environ=environ,
            log_path=self.options.data_dir / "worker.log",
            on_line=Attention(self._say, "worker"),
        )
        self._ends.push_async_callback(worker.stop)
        await _started(worker)
        return worker

    def _choose_api_port(self) -> None:
        """Choose it once: a client finds the API where it was, when it was started again."""
        port = self.options.api_port
        if port is None:
            return
        if port and not ports.is_free(port):
            text = f"Port {port} is taken. Choose another for the API with --api-port, 0 for any."
            raise UpError(text, param="--api-port", code="port_taken")
        self.api_url = f"http://{LOOPBACK}:{port or ports.free_port()}/v1"

    async def _start_worker_and_api(self) -> None:
        """Start both side by side; where both fail, what the worker says is told."""
        await _all(self.start_worker(), self._start_api())

    async def _start_api(self) -> None:
        assert self.api_url is not None
        data_dir = self.options.data_dir
        port = str(port_of(self.api_url.removesuffix("/v1")))
        self._api = api = Child(
            "API",
            python_module("runlane.api", *("--host", LOOPBACK, "--port", port), "--json", "--open"),
            environ=self.client_environ(),
            log_path=data_dir / "api.log",
            on_line=Attention(self._say, "API"),
        )
        self._ends.push_async_callback(api.stop)
        self._ends.push_async_callback(own_api.leave, self.options.settings, data_dir)
        await _all(_started(api), self._let_in())

    async def _let_in(self) -> None:
        assert self.api_url is not None
        options = self.options
        try:
            self.is_open = not await own_api.let_in(
                options.settings, options.data_dir, self.api_url
            )
        except (LedgerError, OSError) as error:
            text = f"Commands can't be let in to the API: {error}"
            raise UpError(text, code="api_failed") from None

    async def _start_temporal(self) -> None:
        try:
            await self._temporal.start()
        except PortTaken as error:
            raise UpError(str(error), param=error.option, code="port_taken") from None
        except (EmbeddedTemporalError, SearchAttributesMissing) as error:
            # The server's own words name the variable; here the directory has an option.
            text = str(error).replace("RUNLANE_DATA_DIR", "--data-dir")
            raise UpError(text, code="temporal_failed") from error

    async def _stop_temporal(self) -> None:
        await self._temporal.stop()

    async def _start_simulator(self) -> None:
        port = self._simulator_port()
        self.upstream_url = f"http://{LOOPBACK}:{port}/v1"
        data_dir = self.options.data_dir
        self._simulator = simulator = Child(
            "simulator",
            python_module(
                "runsapi.simulator",
                *("--host", LOOPBACK, "--port", str(port)),
                *("--state", str(data_dir / "simulator.db")),
            ),
            # It reads none of our variables, and some are secrets.
            environ={
                name: value
                for name, value in self.client_environ().items()
                if not name.startswith("RUNLANE_")
            },
            log_path=data_dir / "simulator.log",
            on_line=Attention(self._say, "simulator"),
        )
        self._ends.push_async_callback(simulator.stop)
        await _started(simulator)

    def _simulator_port(self) -> int:
        """Return the port of the time before: runs have recorded the address it makes."""
        memory = self.options.data_dir / "simulator.json"
        wanted = 0
        with suppress(OSError, ValueError, KeyError, TypeError):
            wanted = int(json.loads(memory.read_text(encoding="utf-8"))["port"])
        port = ports.free_port(wanted)
        if port == wanted:
            return port
        if wanted:
            self._say(
                f"Port {wanted}, the simulator's until now, is taken; it moves to {port}. Runs "
                "that are under way there stay blocked until it is back on the old one."
            )
        memory.write_text(json.dumps({"port": port}) + "\n", encoding="utf-8")
        return port

    async def _find_key(self) -> None:
        """Make the key that encrypts runs, unless there is one or one is lost."""
        data_dir = self.options.data_dir
        if self.options.settings.read_encryption_keys():
            return
        if await asyncio.to_thread(key_file.read, data_dir):
            return
        client = await self._connect()
        found = await key_check.unreadable(client, limit=None)
        path = data_dir / key_file.NAME
        if found is not None:
            text = (
                f"{path} is missing, and {found.run_id} is encrypted with its key "
                f"{found.error.key_id!r}. {key_file.PUT_BACK}"
            )
            raise UpError(text, param="RUNLANE_ENCRYPTION_KEYS", code="key_lost")
        await asyncio.to_thread(key_file.make, data_dir)
        self._say(f"Made the key that encrypts runs: {path}. Without it they can't be read.")

    async def _connect(self) -> Client:
        environ = {"TEMPORAL_ADDRESS": self._temporal.address, "TEMPORAL_CONFIG_FILE": os.devnull}
        return await connect(Settings(data_dir=self.options.data_dir), environ=environ)

    async def _tell_others(self) -> None:
        """Write the simulator's address where commands in other terminals look for it.

        An address of somebody's own stays with the worker: commands of another time, with
        another variable, would be sent to it without being asked.
        """
        wanted = self.upstream_url if self.options.simulate else ""
        client = await self._connect()
        timeout = timedelta(seconds=5)
        describe = DescribeNamespaceRequest(namespace=NAMESPACE)
        update = UpdateNamespaceRequest(namespace=NAMESPACE)
        # A pair can't be deleted, only emptied.
        update.update_info.data[UPSTREAM_URL_KEY] = wanted
        while True:
            answer = await client.workflow_service.describe_namespace(describe, timeout=timeout)
            if answer.namespace_info.data.get(UPSTREAM_URL_KEY, "") == wanted:
                return
            await client.workflow_service.update_namespace(update, timeout=timeout)
            await asyncio.sleep(0.05)

    async def _keep(self, child: Child) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        while True:
            since = loop.time()
            status = await child.wait()
            if loop.time() - since > _PROVEN_SECONDS:
                pause = _FIRST_PAUSE
            problem = f"The {child.name} {how_it_ended(status)}"
            while True:
                self._say(f"{problem}; starting it again in {pause:g} s (log: {child.log_path}).")
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                try:
                    await child.start()
                except ChildFailed as error:
                    problem = str(error).rstrip(".")
                    continue
                break
            self._say(f"The {child.name} is back, with pid {child.pid}.")

    async def _watch_room(self) -> None:
        """Say when the disk is about to be full, and when there is room again."""
        short = False
        while True:
            shortage = room.shortage(self.options.data_dir)
            if shortage is not None and not short:
                self._say(f"Only {shortage}. Make room: without any, Temporal refuses all work.")
            elif shortage is None and short:
                self._say(f"There is room again where {self.options.data_dir} lies.")
            short = shortage is not None
            await asyncio.sleep(_BETWEEN_LOOKS_AT_DISK)

    async def _tell_news(self) -> None:
        """Say what people have to decide, and what is stopped."""
        settings = replace(self.options.settings, data_dir=self.options.data_dir)
        while True:
            # A ledger that doesn't answer is the worker's to complain of.
            with suppress(RunlaneError):
                async with await open_ledger(settings) as ledger:
                    await News(ledger, self._say).tell()
            await asyncio.sleep(_BETWEEN_LOOKS_AT_LEDGER)

    async def _keep_temporal(self) -> None:
        loop = asyncio.get_running_loop()
        attempt, pause = 0, _FIRST_PAUSE
        while True:
            since = loop.time()
            status = await self._temporal.wait()
            if loop.time() - since > _PROVEN_SECONDS:
                attempt, pause = 0, _FIRST_PAUSE
            old = self._temporal
            problem = f"Temporal's server {how_it_ended(status)}"
            while True:
                attempt += 1
                if attempt > _TEMPORAL_ATTEMPTS:
                    text = f"{problem}, again and again. Its log is {old.log_path}."
                    raise UpError(text, code="temporal_failed")
                self._say(f"{problem}; starting it again in {pause:g} s (log: {old.log_path}).")
                await old.stop()
                await asyncio.sleep(pause)
                pause *= 2
                # Worker and clients look for it where it was.
                self._temporal = EmbeddedTemporal(
                    self.options.data_dir,
                    port=port_of(old.address),
                    ui_port=port_of(old.ui_url),
                    log_format=self.options.settings.log_format,
                )
                try:
                    await self._temporal.start()
                except (EmbeddedTemporalError, SearchAttributesMissing) as error:
                    problem = str(error).rstrip(".")
                    continue
                break
            self._say("Temporal is back; runs go on.")


def _make(data_dir: Path) -> None:
    """Make the data directory, if it isn't there, for its owner alone and out of git's sight.

    It will hold what people said to an assistant, often below a project's own directory.
    """
    # Whoever needs the directory says what is wrong with it.
    with suppress(OSError):
        data_dir.mkdir(mode=0o700, parents=True)
        (data_dir / ".gitignore").write_text("*\n", encoding="utf-8")


async def _all(*works: Awaitable[object]) -> None:
    """Do all of it side by side; of what fails, the first in order is told once all have ended."""
    for each in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(each, BaseException):
            raise each


async def _started(child: Child) -> None:
    try:
        await child.start()
    except ChildFailed as error:
        failure = UpError(str(error), code=f"{child.name.lower()}_failed")
        known = error.status is not None and error.status in set(ExitCode)
        failure.exit_code = ExitCode(error.status) if known and error.status else ExitCode.OTHER
        raise failure from None
