"""One call of the command line: its connection, and what the end must know of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import typer

from runlane.errors import ExitCode, RunlaneError

if TYPE_CHECKING:
    from runlane.orchestrator import Runlane


class _Session:
    json = False
    followed: str | None = None


_session = _Session()


def begin(*, json: bool) -> None:
    """Forget an earlier call in the same process."""
    _session.json = json
    _session.followed = None


def wants_json() -> bool:
    """Tell whether standard output is for one JSON document."""
    return _session.json


def follow(run_id: str) -> None:
    """Note which run goes on if the command is interrupted now."""
    _session.followed = run_id


def followed() -> str | None:
    """Return the run that goes on."""
    return _session.followed


class Interrupted(RunlaneError):
    """Somebody pressed Ctrl-C. What they waited for goes on."""

    exit_code = ExitCode.INTERRUPTED
    type = "interrupted"
    code = "interrupted"


def perform(work: Callable[["Runlane"], Awaitable[int]]) -> None:
    """Connect as the environment says, do the work, and end with the exit code it returns."""

    async def connected() -> int:
        # Deferred: Temporal's client takes half a second to import, and `--help` needs none.
        from runlane.orchestrator import Runlane  # noqa: PLC0415

        return await work(await Runlane.connect())

    try:
        code = asyncio.run(connected())
    except KeyboardInterrupt:
        run_id = followed()
        rest = "." if run_id is None else f"; {run_id} goes on. See  runlane poll {run_id}"
        raise Interrupted(f"Interrupted{rest}") from None
    raise typer.Exit(code)
