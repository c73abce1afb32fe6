"""The demonstration from its first line to its last.

Nothing is staged: the commands shown are run as shown, Temporal and the workers are real, and the
figures in the end are counted by the simulated upstream and by the shop. What goes otherwise than
told is an error.
"""

import asyncio
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from runlane.demo import acts, shop
from runlane.demo.screen import Screen
from runlane.demo.stage import STEP_SECONDS, Stage, expect, scripts
from runlane.errors import ExitCode, RunlaneError
from runlane.parts import Parts
from runlane.up import ending_signals
from runlane.up_options import DEFAULT_DATA_DIR, UpOptions

if TYPE_CHECKING:
    from workflows.contract import RunView

DEMO_DATA_DIR = DEFAULT_DATA_DIR / "demo"

_OUR_VARIABLES = ("RUNLANE_", "TEMPORAL_")


def run_demo(*, data_dir: Path | None = None) -> int:
    """Show the runs and return the exit code; everything that was started has ended then.

    Each demonstration adds its runs to those of the ones before.

    Args:
        data_dir: where the runs are kept; `.runlane/demo` if not given.

    Raises:
        RunlaneError: a part doesn't start, or something went otherwise than told.
    """
    data_dir = (data_dir or DEMO_DATA_DIR).absolute()
    # Somebody's own upstream or Temporal has no part in this.
    environ = {k: v for k, v in os.environ.items() if not k.startswith(_OUR_VARIABLES)}
    environ |= {"RUNLANE_TOOLS": shop.__name__, shop.RECORD: str(data_dir / "shop.db")}
    options = UpOptions.from_env(
        simulate=True, temporal_port=0, ui_port=0, data_dir=data_dir, environ=environ
    )
    try:
        return asyncio.run(_until_interrupted(_Demo(options, environ, Screen(), data_dir)))
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


class _Demo:
    def __init__(
        self, options: UpOptions, environ: Mapping[str, str], screen: Screen, data_dir: Path
    ) -> None:
        self._screen = screen
        self._data_dir = data_dir
        self._parts = Parts(options, environ=environ, say=self._told)
        self._starting = True
        self._warnings: list[str] = []

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
        line("Three runs on this machine, without network or key: the upstream is simulated,")
        line("Temporal and the workers are real.")
        http = httpx.AsyncClient(trust_env=False, timeout=STEP_SECONDS)
        try:
            async with http, self._parts:
                self._starting = False
                line(f"Temporal's UI, until this ends:  {self._parts.temporal.ui_url}")
                stage = Stage(self._screen, self._parts, http)
                for scenario in acts.SCENARIOS:
                    await stage.simulator("POST", "scenarios", scenario)
                record = self._data_dir / "shop.db"
                runs = [await acts.answered(stage), await acts.killed(stage)]
                runs.append(await acts.refunded(stage, record))
                await self._table(stage, runs)
            self._farewell()
        except RunlaneError:
            for warning in self._warnings:
                line(warning, style="2")
            raise

    async def _table(self, stage: Stage, run_ids: Sequence[str]) -> None:
        rows = [("run", "status", "upstream got", "events", "history")]
        client = await stage.client()
        for run_id in run_ids:
            view = await client.runs.view(run_id)
            creates, submits = await _counts(stage, view)
            rows.append(
                (
                    run_id,
                    str(view.run.status),
                    f"{_plural(creates, 'create')}, {_plural(submits, 'submit')}",
                    str(view.runlane.history_events),
                    f"{round((view.runlane.history_bytes or 0) / 1000)} kB",
                )
            )
            expect(view.run.status == "completed", f"{run_id} was to be completed")
            expect((creates, submits) == (1, 1), f"{run_id} was to be done once upstream")
        self._screen.line()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            left = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
            right = [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
            self._screen.line("  ".join([*left, *right]), style="1" if row is rows[0] else "")
        self._screen.line("Workers were killed on the way, and nothing happened twice.")

    def _farewell(self) -> None:
        line = self._screen.line
        line()
        line("The upstream was simulated: no model was asked. Everything has been stopped again.")
        line()
        on_path = shutil.which("runlane") == str(scripts() / "runlane")
        if not on_path:
            activate = _short(scripts() / "activate")
            line(f"The command itself, in this shell:   source {shlex.quote(activate)}")
        line(f"Look at these runs again:            runlane up --simulate --data-dir {self._dir()}")
        line("With an upstream of your own:        export RUNLANE_UPSTREAM_URL=https://…/v1")
        line("                                     export RUNLANE_UPSTREAM_API_KEY=…")
        line("                                     runlane up")

    def _dir(self) -> str:
        return shlex.quote(_short(self._data_dir))


async def _counts(stage: Stage, view: "RunView") -> tuple[int, int]:
    report = await stage.simulator("GET", f"requests?thread_id={view.run.thread_id}")
    counts = report["counts"]
    return counts.get("runs.create", 0), counts.get("runs.submit_tool_outputs", 0)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _short(path: Path) -> str:
    """Return a path as it is typed here."""
    with suppress(ValueError):
        return str(path.absolute().relative_to(Path.cwd()))
    return str(path)
