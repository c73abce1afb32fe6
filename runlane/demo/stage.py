"""Where a demonstration is played: the parts of `runlane up`, commands on them, and checks."""

import asyncio
import os
import re
import secrets
import shlex
import signal
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from runlane.children import Child, bound_to_parent
from runlane.demo.screen import Screen
from runlane.errors import ExitCode, RunlaneError
from runlane.orchestrator import Runlane
from runlane.parts import Parts

if TYPE_CHECKING:
    from workflows.contract import PendingCall

STEP_SECONDS = 60.0
LOOK_SECONDS = 0.05

_WITHOUT_WORKER_SECONDS = 4.0
_RUN_ID = re.compile(r"\brun_\w+")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class DemoFailed(RunlaneError):
    """Something went otherwise than the demonstration tells."""

    type = "demo_error"
    code = "demo_failed"


class Stage:
    """What the acts play with."""

    def __init__(self, screen: Screen, parts: Parts, http: httpx.AsyncClient) -> None:
        """Take the screen, and the parts that are running.

        Args:
            screen: where everything is shown.
            parts: Temporal, a worker and the simulator.
            http: for the simulator.
        """
        self.screen = screen
        self.parts = parts
        self._http = http
        self._client: Runlane | None = None

    async def client(self) -> Runlane:
        """Return a client of these parts."""
        if self._client is None:
            self._client = await Runlane.connect(environ=self.parts.client_environ())
        return self._client

    async def create(self, thread: str, assistant: str, *options: str) -> str:
        """Show how a run is created; return its id."""
        said = await self.command("create", "--thread", thread, "--assistant", assistant, *options)
        found = _RUN_ID.search(said)
        if found is None:
            raise DemoFailed("`runlane create` named no run.")
        return found[0]

    async def submit(self, run_id: str, answer: str, *, receipt: str) -> None:
        """Show how a call is answered, and check what the receipt says."""
        said = await self.command("submit", run_id, answer)
        expect(receipt in said.split(), f"the answer was to be {receipt}")

    async def waiting_call(self, run_id: str) -> "PendingCall":
        """Return the one call that waits."""
        pending = (await (await self.client()).runs.view(run_id)).runlane.pending
        expect(len(pending) == 1, f"{run_id} was to wait for 1 answer, not for {len(pending)}")
        return pending[0]

    async def kill_worker(self) -> Child:
        """Show how the worker is killed; return it, dead."""
        worker = self.parts.worker
        self.screen.prompt(f"kill -9 {worker.pid}")
        os.kill(worker.pid, signal.SIGKILL)
        await worker.wait()
        return worker

    async def poll_while_it_is_replaced(self, run_id: str, *, expect: ExitCode) -> None:
        """Show a poll that begins without a worker, and another worker that comes."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.command("poll", run_id, expect=expect))
                group.create_task(self._replace_worker())
        except* RunlaneError as failed:
            raise failed.exceptions[0] from None

    async def command(self, *arguments: str, expect: ExitCode = ExitCode.DONE) -> str:
        """Show a command, run it, and return what it said."""
        self.screen.prompt(" ".join(["runlane", *(_typed(argument) for argument in arguments)]))
        environ = self.parts.client_environ()
        if self.screen.coloured:
            # In colour, but without what moves: a command's two streams are one pipe here.
            environ |= {"FORCE_COLOR": "1", "TTY_INTERACTIVE": "0"}
        process = await asyncio.create_subprocess_exec(
            *bound_to_parent([*_program(), *arguments]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            # In one stream, or the words about an output would come before or after it by chance.
            stderr=asyncio.subprocess.STDOUT,
            env=environ,
            start_new_session=True,
        )
        assert process.stdout is not None
        said = ""
        try:
            async with asyncio.timeout(STEP_SECONDS):
                while text := (await process.stdout.readline()).decode(errors="replace"):
                    self.screen.chunk(text)
                    said += text
                status = await process.wait()
        except TimeoutError:
            text = f"`runlane {arguments[0]}` had not ended after {STEP_SECONDS:g} s."
            raise DemoFailed(text) from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if status != expect:
            raise DemoFailed(f"`runlane {arguments[0]}` ended with {status}, not {int(expect)}.")
        return _ANSI.sub("", said)

    async def simulator(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Ask the simulator what it got, or tell it what to do."""
        url = self.parts.upstream_url.removesuffix("/v1") + f"/_simulator/{path}"
        try:
            answer = await self._http.request(method, url, json=body)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise DemoFailed(f"The simulator doesn't answer: {error}") from error
        found: dict[str, Any] = answer.json()
        return found

    async def _replace_worker(self) -> None:
        await asyncio.sleep(_WITHOUT_WORKER_SECONDS)
        worker = await self.parts.start_worker()
        remark = self.screen.remark
        remark(f"A service manager would start another worker. Here it is: pid {worker.pid}.")
        remark("It gets the run once the dead one's heartbeats have failed to come for 10 s.")


def expect(truth: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Check that it went as it was told.

    Raises:
        DemoFailed: it went otherwise.
    """
    if not truth:
        raise DemoFailed(f"This went otherwise than told: {otherwise}.")


def new_thread() -> str:
    """Return a thread's id; the simulator takes any."""
    return f"thread_{secrets.token_hex(2)}"


def scripts() -> Path:
    """Return where this installation's commands are."""
    return Path(sysconfig.get_path("scripts"))


def _typed(argument: str) -> str:
    """Return an argument as a person would type it: `call_1='{"a": 1}'`."""
    name, equals, value = argument.partition("=")
    return f"{name}={shlex.quote(value)}" if equals else shlex.quote(argument)


def _program() -> list[str]:
    """Return the command line of this very installation, whatever is first on the PATH."""
    script = scripts() / "runlane"
    if script.exists():
        return [str(script)]
    return [sys.executable, "-P", "-c", "from runlane.cli import main; main()"]
