"""`runlane demo`: two runs seen from a terminal, one of which loses its worker on the way.

Nothing is staged: the commands shown are run as shown, Temporal and the workers are real, and the
figures in the end are counted by the simulated upstream. What goes otherwise than told is an error.
"""

import asyncio
import os
import re
import secrets
import shlex
import shutil
import signal
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from runlane.children import bound_to_parent
from runlane.errors import ExitCode, RunlaneError
from runlane.orchestrator import Runlane
from runlane.parts import DEFAULT_DATA_DIR, Parts, UpOptions
from runlane.up import ending_signals

if TYPE_CHECKING:
    from workflows.contract import RunView

DEMO_DATA_DIR = DEFAULT_DATA_DIR / "demo"

_ASSISTANT = "asst_orders"
_SCENARIO: Mapping[str, Any] = {
    "assistant_id": _ASSISTANT,
    "rounds": [
        {
            "queued": 1.0,
            "in_progress": 2.0,
            "calls": [{"name": "lookup_order", "arguments": {"order_id": "A-1042"}}],
        },
        {"queued": 0.5, "in_progress": 4.0, "says": "Order A-1042 is {state}."},
    ],
}
_ANSWER = '{"state": "shipped"}'

_STEP_SECONDS = 60.0
_LOOK_SECONDS = 0.05
_WITHOUT_WORKER_SECONDS = 4.0
_RUN_ID = re.compile(r"\brun_\w+")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_OUR_VARIABLES = ("RUNLANE_", "TEMPORAL_")


class DemoFailed(RunlaneError):
    """Something went otherwise than the demonstration tells."""

    type = "demo_error"
    code = "demo_failed"


def run_demo(*, data_dir: Path | None = None) -> int:
    """Show the two runs and return the exit code; everything that was started has ended then.

    Each demonstration adds its runs to those of the ones before.

    Args:
        data_dir: where the runs are kept; `.runlane/demo` if not given.

    Raises:
        RunlaneError: a part doesn't start, or something went otherwise than told.
    """
    data_dir = data_dir or DEMO_DATA_DIR
    # Somebody's own upstream or Temporal has no part in this.
    environ = {k: v for k, v in os.environ.items() if not k.startswith(_OUR_VARIABLES)}
    options = UpOptions.from_env(
        simulate=True, temporal_port=0, ui_port=0, data_dir=data_dir, environ=environ
    )
    screen = _Screen()
    try:
        return asyncio.run(_until_interrupted(_Demo(options, environ, screen, data_dir)))
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)


async def _until_interrupted(demo: "_Demo") -> int:
    playing = asyncio.current_task()
    assert playing is not None
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        # Once: what is cancelled a second time while it ends its children leaves some behind.
        if not interrupted:
            interrupted = True
            playing.cancel()

    loop = asyncio.get_running_loop()
    for number in ending_signals():
        loop.add_signal_handler(number, interrupt)
    try:
        await demo.play()
    except asyncio.CancelledError:
        if not interrupted:
            raise
        with suppress(OSError):
            sys.stderr.write("\nInterrupted; everything that was started has been ended.\n")
        return int(ExitCode.INTERRUPTED)
    return int(ExitCode.DONE)


class _Screen:
    """Standard output, in colours on a terminal only."""

    def __init__(self) -> None:
        self.coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def line(self, text: str = "", *, style: str = "") -> None:
        """Print a line; `style` is a number of ANSI's: 1 bold, 2 dim."""
        shown = f"\x1b[{style}m{text}\x1b[0m" if style and self.coloured and text else text
        sys.stdout.write(f"{shown}\n")
        sys.stdout.flush()

    def chunk(self, text: str) -> None:
        """Print what a command said, as it is."""
        sys.stdout.write(text)
        sys.stdout.flush()


class _Demo:
    def __init__(
        self, options: UpOptions, environ: Mapping[str, str], screen: _Screen, data_dir: Path
    ) -> None:
        self._screen = screen
        self._data_dir = data_dir
        self._parts = Parts(options, environ=environ, say=self._told)
        self._starting = True
        self._warnings: list[str] = []
        self._http = httpx.AsyncClient(trust_env=False, timeout=_STEP_SECONDS)

    def _told(self, text: str) -> None:
        # A worker that was killed leaves warnings with the next one: they are the point here, and
        # of interest only where something fails.
        if self._starting:
            self._screen.line(text, style="2")
        else:
            self._warnings.append(text)

    async def play(self) -> None:
        """Show everything.

        Raises:
            RunlaneError: a part doesn't start, or something went otherwise than told.
        """
        line = self._screen.line
        line("Two runs on this machine, without network or key: the upstream is simulated,")
        line("Temporal and the workers are real.")
        try:
            async with self._http, self._parts:
                self._starting = False
                line(f"Temporal's UI, until this ends:  {self._parts.temporal.ui_url}")
                await self._simulator("POST", "scenarios", _SCENARIO)
                client = await Runlane.connect(environ=self._parts.client_environ())
                first = await self._answered_run(client)
                second = await self._killed_run(client)
                await self._table(client, [first, second])
            self._farewell()
        except RunlaneError:
            for warning in self._warnings:
                line(warning, style="2")
            raise

    async def _answered_run(self, client: Runlane) -> str:
        self._heading("1/2  A run that waits for an answer from outside")
        thread = f"thread_{secrets.token_hex(2)}"
        run_id = await self._create(thread)
        await self._command("poll", run_id, expect=ExitCode.WAITING)
        answer = f"{await _waiting_call(client, run_id)}={_ANSWER}"
        await self._submit(run_id, answer, receipt="accepted")
        self._remark("The same answer once more, as a retry or an impatient person would give it:")
        await self._submit(run_id, answer, receipt="duplicate")
        await self._command("poll", run_id)
        return run_id

    async def _killed_run(self, client: Runlane) -> str:
        self._heading("2/2  The worker dies in the middle")
        thread = f"thread_{secrets.token_hex(2)}"
        # The worst moment there is: the upstream has acted, and only the worker waits to hear it.
        order = {"operation": "runs.create", "kind": "hold_after", "thread_id": thread}
        fault = (await self._simulator("POST", "faults", order))["id"]
        run_id = await self._create(thread)
        async with asyncio.timeout(_STEP_SECONDS):
            # Another process changes it, so there is no event to wait for.
            while not (await self._simulator("GET", f"faults/{fault}"))["waiting"]:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_SECONDS)
        self._remark("The upstream has begun the run; its answer is on the way to the worker.")
        worker = self._parts.worker
        self._prompt(f"kill -9 {worker.pid}")
        os.kill(worker.pid, signal.SIGKILL)
        await worker.wait()
        # The answer comes now, and there is nobody to take it.
        await self._simulator("POST", f"faults/{fault}/release", {"answer": True})
        begun = (await self._simulator("GET", f"threads/{thread}"))["runs"]
        _expect(len(begun) == 1, f"the upstream has {len(begun)} runs for {run_id}, not 1")
        self._remark("The worker is gone, and the answer with it. Temporal keeps the run;")
        self._remark("the upstream has not noticed.")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._command("poll", run_id, expect=ExitCode.WAITING))
                group.create_task(self._replace_worker())
        except* RunlaneError as failed:
            raise failed.exceptions[0] from None
        call_id = await _waiting_call(client, run_id)
        await self._submit(run_id, f"{call_id}={_ANSWER}", receipt="accepted")
        await self._command("poll", run_id)
        return run_id

    async def _replace_worker(self) -> None:
        await asyncio.sleep(_WITHOUT_WORKER_SECONDS)
        worker = await self._parts.start_worker()
        self._remark(f"A service manager would start another worker. Here it is: pid {worker.pid}.")
        self._remark("It gets the run once the dead one's heartbeats have failed to come for 10 s.")

    async def _create(self, thread: str) -> str:
        said = await self._command("create", "--thread", thread, "--assistant", _ASSISTANT)
        found = _RUN_ID.search(said)
        if found is None:
            raise DemoFailed("`runlane create` named no run.")
        return found[0]

    async def _submit(self, run_id: str, answer: str, *, receipt: str) -> None:
        said = await self._command("submit", run_id, answer)
        _expect(receipt in said.split(), f"the answer was to be {receipt}")

    async def _table(self, client: Runlane, run_ids: Sequence[str]) -> None:
        rows = [("run", "status", "upstream got", "events", "history")]
        for run_id in run_ids:
            view = await client.runs.view(run_id)
            creates, submits = await self._counts(view)
            rows.append(
                (
                    run_id,
                    str(view.run.status),
                    f"{_plural(creates, 'create')}, {_plural(submits, 'submit')}",
                    str(view.runlane.history_events),
                    f"{round((view.runlane.history_bytes or 0) / 1000)} kB",
                )
            )
            _expect(view.run.status == "completed", f"{run_id} was to be completed")
            _expect((creates, submits) == (1, 1), f"{run_id} was to be done once upstream")
        self._screen.line()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            left = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
            right = [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
            self._screen.line("  ".join([*left, *right]), style="1" if row is rows[0] else "")
        self._screen.line("The second one's worker was killed once, and nothing happened twice.")

    async def _counts(self, view: "RunView") -> tuple[int, int]:
        report = await self._simulator("GET", f"requests?thread_id={view.run.thread_id}")
        counts = report["counts"]
        return counts.get("runs.create", 0), counts.get("runs.submit_tool_outputs", 0)

    def _farewell(self) -> None:
        line = self._screen.line
        line()
        line("The upstream was simulated: no model was asked. Everything has been stopped again.")
        line()
        on_path = shutil.which("runlane") == str(_scripts() / "runlane")
        if not on_path:
            activate = _short(_scripts() / "activate")
            line(f"The command itself, in this shell:   source {shlex.quote(activate)}")
        line(f"Look at these runs again:            runlane up --simulate --data-dir {self._dir()}")
        line("With an upstream of your own:        export RUNLANE_UPSTREAM_URL=https://…/v1")
        line("                                     export RUNLANE_UPSTREAM_API_KEY=…")
        line("                                     runlane up")

    def _dir(self) -> str:
        return shlex.quote(_short(self._data_dir))

    async def _command(self, *arguments: str, expect: ExitCode = ExitCode.DONE) -> str:
        """Show a command, run it, and return what it said."""
        self._prompt(" ".join(["runlane", *(_typed(argument) for argument in arguments)]))
        environ = self._parts.client_environ()
        if self._screen.coloured:
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
            async with asyncio.timeout(_STEP_SECONDS):
                while text := (await process.stdout.readline()).decode(errors="replace"):
                    self._screen.chunk(text)
                    said += text
                status = await process.wait()
        except TimeoutError:
            text = f"`runlane {arguments[0]}` had not ended after {_STEP_SECONDS:g} s."
            raise DemoFailed(text) from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if status != expect:
            raise DemoFailed(f"`runlane {arguments[0]}` ended with {status}, not {int(expect)}.")
        return _ANSI.sub("", said)

    async def _simulator(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        url = self._parts.upstream_url.removesuffix("/v1") + f"/_simulator/{path}"
        try:
            answer = await self._http.request(method, url, json=body)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise DemoFailed(f"The simulator doesn't answer: {error}") from error
        found: dict[str, Any] = answer.json()
        return found

    def _heading(self, text: str) -> None:
        self._screen.line()
        self._screen.line(text, style="1")

    def _prompt(self, command: str) -> None:
        self._screen.line(f"$ {command}", style="36")

    def _remark(self, text: str) -> None:
        self._screen.line(f"# {text}", style="2")


async def _waiting_call(client: Runlane, run_id: str) -> str:
    pending = (await client.runs.view(run_id)).runlane.pending
    _expect(len(pending) == 1, f"{run_id} was to wait for 1 answer, not for {len(pending)}")
    return pending[0].tool_call_id


def _expect(truth: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not truth:
        raise DemoFailed(f"This went otherwise than told: {otherwise}.")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _typed(argument: str) -> str:
    """Return an argument as a person would type it: `call_1='{"a": 1}'`."""
    name, equals, value = argument.partition("=")
    return f"{name}={shlex.quote(value)}" if equals else shlex.quote(argument)


def _scripts() -> Path:
    return Path(sysconfig.get_path("scripts"))


def _program() -> list[str]:
    """Return the command line of this very installation, whatever is first on the PATH."""
    script = _scripts() / "runlane"
    if script.exists():
        return [str(script)]
    return [sys.executable, "-P", "-c", "from runlane.cli import main; main()"]


def _short(path: Path) -> str:
    """Return a path as it is typed here."""
    with suppress(ValueError):
        return str(path.absolute().relative_to(Path.cwd()))
    return str(path)
