"""Programs of ours as child processes: how they say that they are ready, and how they end with us.

A child prints one JSON document on its standard output when it is ready (`worker --json`, the
simulator); what it says on standard error goes to a log file.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

START_TIMEOUT = timedelta(seconds=60)
GRACE = timedelta(seconds=30)
"""Until a child that was told to end is killed; a worker gives its requests 15 s of that."""

_CHUNK_BYTES = 65_536
_LOG_TAIL_BYTES = 2_000
_LONGEST_LINE = 4_000
# After the end of a child its pipes are read dry, but a grandchild may hold them open.
_DRAIN_SECONDS = 1.0

# Runs in the child before the program: asks the kernel to kill it when its parent dies, then
# becomes the program under the same pid. A `preexec_fn` would do the same between fork and exec of
# a process with threads (the Rust core's), where Python may deadlock. The parent may have died
# before the request; then the child has another parent already.
_EXEC_BOUND_TO_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class ChildFailed(Exception):
    """A child didn't get ready; the message says what it said."""

    def __init__(self, message: str, status: int | None = None) -> None:
        """Carry the exit status, where it ended (negative: the signal)."""
        super().__init__(message)
        self.status = status


class Child:
    """A program with a log file, started again at will. Start it from the main thread.

    It has a session of its own: Ctrl-C goes to everybody in the terminal's group, and a worker
    that got it together with us would end before we could say in which order.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        log_path: Path,
        on_line: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Describe a child; nothing starts yet.

        Args:
            name: for messages: "the worker".
            command: the program and its arguments.
            environ: its whole environment.
            log_path: what it says on standard error is added to this file.
            on_line: called with each line of that, too.
        """
        self.name = name
        self.command = list(command)
        self.environ = dict(environ)
        self.log_path = log_path
        self._on_line = on_line
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int:
        """Process id of the running child."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self, timeout: timedelta = START_TIMEOUT) -> dict[str, Any]:
        """Start the program and return the document that it prints when it is ready.

        Raises:
            ChildFailed: it ended before, said something else, or nothing in time.
        """
        log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        self._process = process = await asyncio.create_subprocess_exec(
            *bound_to_parent(self.command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environ,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        errors = asyncio.create_task(self._copy(process.stderr, self._on_line))
        self._readers = [errors]
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                document = await _document(process.stdout)
        except TimeoutError:
            await self.kill()
            raise ChildFailed(
                f"{self._name()} was not ready within {timeout.total_seconds():g} s."
                f"{self._log_tail(log_start)}"
            ) from None
        except BaseException:
            await self.kill()
            raise
        error = document.get("error") if document is not None else None
        if document is None or error is not None:
            # It ends by itself now, or is made to: what it says while ending is the reason.
            await self._until_ended(2)
            status = process.returncode
            if isinstance(error, Mapping) and isinstance(error.get("message"), str):
                raise ChildFailed(f"{self._name()} can't start: {error['message']}", status)
            raise ChildFailed(
                f"{self._name()} {how_it_ended(status)} before it was ready."
                f"{self._log_tail(log_start)}",
                status,
            )
        # Whatever else it may print must not fill the pipe, or it would stop there for ever.
        self._readers.append(asyncio.create_task(self._copy(process.stdout, lambda _: None)))
        return document

    async def wait(self) -> int:
        """Wait until it ends; returns its exit status (negative: the signal)."""
        process = self._running()
        status = await process.wait()
        await self._drain()
        return status

    async def stop(self, grace: timedelta = GRACE) -> None:
        """End it: SIGTERM, and SIGKILL after `grace`. Harmless when it is not running."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        await self._until_ended(grace.total_seconds())

    def kill_now(self) -> None:
        """Send SIGKILL without waiting for the end; whoever waits for it sees it."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def kill(self) -> None:
        """End it by SIGKILL."""
        self.kill_now()
        if self._process is not None:
            await self._process.wait()
            await self._drain()

    async def _until_ended(self, seconds: float) -> None:
        process = self._running()
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            await self.kill()
        except BaseException:
            # Cancelled meanwhile: nobody would end it later.
            self.kill_now()
            raise
        await self._drain()

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            msg = f"The {self.name} was never started."
            raise RuntimeError(msg)
        return self._process

    def _name(self) -> str:
        return f"The {self.name}"

    async def _copy(self, source: asyncio.StreamReader, on_line: Callable[[str], None]) -> None:
        rest = b""
        with self.log_path.open("ab", buffering=0) as log:
            while chunk := await source.read(_CHUNK_BYTES):
                # A full disk must not stop the child at a full pipe.
                with suppress(OSError):
                    log.write(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    on_line(line[:_LONGEST_LINE].decode(errors="replace").rstrip())
                rest = rest[:_LONGEST_LINE]

    async def _drain(self) -> None:
        readers, self._readers = self._readers, []
        if readers:
            _, late = await asyncio.wait(readers, timeout=_DRAIN_SECONDS)
            for reader in late:
                reader.cancel()

    def _log_tail(self, start: int) -> str:
        try:
            with self.log_path.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(start, size - _LOG_TAIL_BYTES))
                text = log.read().decode(errors="replace").strip()
        except OSError:
            return ""
        return f" The end of {self.log_path}:\n{text}" if text else ""


def bound_to_parent(command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` so that it dies with us, even by SIGKILL.

    Linux only; elsewhere it is the command itself. The parent is the thread that starts it.
    """
    if sys.platform != "linux":
        return list(command)
    prefix = [sys.executable, "-I", "-S", "-c", _EXEC_BOUND_TO_PARENT, str(os.getpid())]
    return [*prefix, *command]


def python_module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs one of our modules with this Python.

    Not from the current directory: somebody's own `worker.py` may lie there.
    """
    return [sys.executable, "-P", "-m", name, *arguments]


def how_it_ended(status: int | None) -> str:
    """Say how a process ended: "ended with exit status 1", "was killed by SIGKILL"."""
    if status is None:
        return "ended"
    if status < 0:
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"


async def _document(source: asyncio.StreamReader) -> dict[str, Any] | None:
    """Read a JSON document, of one line or of several; None when the stream ends without one."""
    text = b""
    while line := await source.readline():
        text += line
        with suppress(ValueError):
            found = json.loads(text)
            if isinstance(found, dict):
                return found
    return None
