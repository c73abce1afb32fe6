"""One call of the command line: its connection, and what the end must know of it."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from runlane.errors import ExitCode, RunlaneError

if TYPE_CHECKING:
    from runlane.orchestrator import Runlane


_GIVE_UP_SECONDS = 3.0
"""How long a call that was interrupted may take to let go."""


class _Session:
    json = False
    followed: str | None = None
    see = ""
    more = ""


_session = _Session()


def begin(*, json: bool) -> None:
    """Forget an earlier call in the same process."""
    _session.json = json
    _session.followed = None
    _session.see = _session.more = ""


def wants_json() -> bool:
    """Tell whether standard output is for one JSON document."""
    return _session.json


def follow(run_id: str, see: str = "poll", more: str = "") -> None:
    """Note what goes on if the command is interrupted now, and by which words it is shown.

    Args:
        run_id: of the run; or a batch's name.
        see: the command that shows it.
        more: what follows the name there, with a blank before it.
    """
    _session.followed, _session.see, _session.more = run_id, see, more


def followed() -> str | None:
    """Return the run that goes on."""
    return _session.followed


class Interrupted(RunlaneError):
    """Somebody pressed Ctrl-C. What they waited for goes on."""

    exit_code = ExitCode.INTERRUPTED
    type = "interrupted"
    code = "interrupted"


class Unseen(RunlaneError):
    """What was asked for is done, and what became of it can't be shown."""

    def __init__(self, run_id: str, done: str, error: RunlaneError) -> None:
        """Name the run, and say what is done already."""
        super().__init__(f"{run_id} {done}, but it can't be shown here: {error.message}")
        self.run_id = run_id
        self.type, self.code = error.type, error.code
        # Bad input says that nothing was sent.
        bad_input = error.exit_code is ExitCode.BAD_INPUT
        self.exit_code = ExitCode.OTHER if bad_input else error.exit_code

    def as_json(self) -> dict[str, Any]:
        """Return the error document with the run's id beside the error."""
        return {**super().as_json(), "run_id": self.run_id}


@contextlib.contextmanager
def after(done: str, run_id: str) -> Iterator[None]:
    """Say of whatever fails from here on that it was done: `was nudged`.

    Raises:
        Unseen: in place of another error of ours.
    """
    try:
        yield
    except RunlaneError as error:
        raise Unseen(run_id, done, error) from error


def perform(work: Callable[["Runlane"], Awaitable[int]]) -> None:
    """Connect as the environment says, do the work, and end with the exit code it returns."""

    async def connected() -> int:
        # Deferred: Temporal's client takes half a second to import, and `--help` needs none.
        from runlane.orchestrator import Runlane  # noqa: PLC0415

        return await work(await Runlane.connect())

    perform_apart(connected)


def perform_apart(work: Callable[[], Awaitable[int]]) -> None:
    """Do work that connects by itself, if at all, and end with the exit code it returns."""

    async def interruptible() -> int:
        with contextlib.suppress(NotImplementedError):  # on Windows Ctrl-C is asyncio's own
            asyncio.get_running_loop().add_signal_handler(
                signal.SIGINT, _interrupt, asyncio.current_task()
            )
        # Deferred, as above.
        from runlane.monitoring import logs, traces  # noqa: PLC0415

        logs.silence_runtime()
        try:
            return await work()
        finally:
            # The process ends without Python's own last words.
            traces.flush()

    try:
        code = asyncio.run(interruptible())
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise Interrupted(_goes_on()) from None
    raise typer.Exit(code)


def _goes_on() -> str:
    run_id = followed()
    if run_id is None:
        return "Interrupted."
    words = f"{_session.see} {run_id}{_session.more}"
    return f"Interrupted; {run_id} goes on. See  runlane {words}"


def _interrupt(task: asyncio.Task[Any] | None) -> None:
    """Give the work up, and end the process if it can't be given up: Ctrl-C always ends it."""
    if task is not None:
        task.cancel()
    last_resort = threading.Timer(_GIVE_UP_SECONDS, _leave)
    last_resort.daemon = True
    last_resort.start()


def _leave() -> None:
    sys.stderr.write(_goes_on() + "\n")
    sys.stderr.flush()
    os._exit(int(ExitCode.INTERRUPTED))
