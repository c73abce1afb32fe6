"""The kill switch on the command line: stop, resume, and which stops stand."""

# ruff: noqa: FBT002, FBT001 - typer reads a command's options from its parameters

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from runlane.cli import output, session
from runlane.cli.approval_words import spell
from runlane.cli.options import Json
from runlane.errors import ExitCode, InvalidRequest, RunlaneError

if TYPE_CHECKING:
    from ledger.stops import Stop
    from runlane.api_stops import ApiStops
    from runlane.stops import Seen, Stops
    from workflows.contract import RunView, StoppedView

_All: TypeAlias = Annotated[bool, typer.Option("--all", help="Everything.")]
_Tool: TypeAlias = Annotated[
    str | None, typer.Option("--tool", metavar="NAME", help="Only runs of this tool.")
]
_Run: TypeAlias = Annotated[
    str | None, typer.Option("--run", metavar="RUN_ID", help="Only this run.")
]


def add_to(app: typer.Typer) -> None:
    """Give the commands their names."""
    app.command("stop")(_stop)
    app.command("resume")(_resume)
    app.command("stops")(_list)


def _stop(
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Shown wherever it holds something up.")
    ],
    all: _All = False,
    tool: _Tool = None,
    run: _Run = None,
    json: Json = False,
) -> None:
    """Let nothing new begin: no create, no submit, no tool.

    What has begun goes on, and so do waiting, deciding and cancelling. It holds on all workers
    and over restarts, until:  runlane resume
    """
    _check_one(all, tool, run)

    async def work(stops: "Stops | ApiStops") -> int:
        ordered = await stops.stop(all=all, tool=tool, run_id=run, reason=reason)
        stop = ordered.stop
        if ordered.unused is not None:
            output.note(f"Perhaps no worker obeys this. {output.safe(ordered.unused)}")
        if session.wants_json():
            output.document({**_document(stop), "new": ordered.is_new})
            return int(ExitCode.DONE)
        was = "Stopped" if ordered.is_new else "Stopped already"
        output.say_parts((f"{was}: {output.safe(str(stop))}", "bold"))
        output.fields(_fields(stop))
        if not ordered.is_new:
            output.note("The earlier stop stands as it is. To give another reason, resume first.")
        await _mention_unknown(tool, stops)
        output.note(f"Resume with:  runlane resume {_option(stop)}")
        return int(ExitCode.DONE)

    _perform(work)


def _resume(all: _All = False, tool: _Tool = None, run: _Run = None, json: Json = False) -> None:
    """Let go on what was stopped. Workers see it within 5 seconds."""
    _check_one(all, tool, run)

    async def work(stops: "Stops | ApiStops") -> int:
        ended = await stops.resume(all=all, tool=tool, run_id=run)
        left = await stops.list()
        if session.wants_json():
            output.document(_document(ended))
            return int(ExitCode.DONE)
        for_ = spell(time.time() - ended.since.timestamp())
        by = output.safe(ended.by)
        output.say(f"Resumed: {output.safe(str(ended))}, stopped by {by} for {for_}.")
        if left:
            output.note(f"Still stopped: {output.safe(', '.join(map(str, left)))}.")
        return int(ExitCode.DONE)

    _perform(work)


def _list(json: Json = False) -> None:
    """List what is stopped, by whom, why and since when."""

    async def work(stops: "Stops | ApiStops") -> int:
        standing = await stops.list()
        if session.wants_json():
            output.document({"object": "list", "data": [_document(stop) for stop in standing]})
        elif not standing:
            output.say("Nothing is stopped.")
        else:
            rows = [
                (
                    output.safe(str(stop)),
                    output.safe(stop.by),
                    output.moment(stop.since.timestamp()),
                    output.safe(stop.reason),
                )
                for stop in standing
            ]
            output.table(("stopped", "by", "since", "reason"), rows)
        return int(ExitCode.DONE)

    _perform(work)


def mention(seen: "Seen") -> None:
    """Say below a list what is stopped, or that it can't be told."""
    for stop in seen.standing:
        words = f"Stopped: {stop}, by {stop.by} since {output.moment(stop.since.timestamp())}"
        output.note(output.safe(f"{words}: {stop.reason}"))
    if seen.problem is not None:
        output.note(f"Whether something is stopped can't be told: {output.safe(seen.problem)}")


def remark(view: "RunView") -> list[str]:
    """Return who stopped a run that is alive, as a remark; nothing where nobody did."""
    stopped = view.runlane.stopped
    return [] if stopped is None else [f"stopped {_words(stopped)}"]


def _words(stopped: "StoppedView") -> str:
    what = "with everything, " if stopped.target is None else ""
    since = output.moment(stopped.since_at)
    return f"{what}by {output.safe(stopped.by)} since {since}: {output.safe(stopped.reason)}"


def _perform(work: "Callable[[Stops | ApiStops], Awaitable[int]]") -> None:
    async def through() -> int:
        # Deferred: they bring Temporal's client and the database's.
        from runlane.faces import stopping  # noqa: PLC0415
        from runlane.settings import Settings  # noqa: PLC0415

        async with stopping(Settings.from_env()) as stops:
            return await work(stops)

    session.perform_apart(through)


def _check_one(all: bool, tool: str | None, run: str | None) -> None:
    if [all, tool is not None, run is not None].count(True) != 1:
        text = "Say what: --all, --tool NAME or --run RUN_ID."
        raise InvalidRequest(text, param="--all")


async def _mention_unknown(tool: str | None, stops: "Stops | ApiStops") -> None:
    """Say where a tool's name may be mistyped: such a stop would hold up nothing."""
    if tool is None:
        return
    from runlane.api_stops import ApiStops  # noqa: PLC0415
    from runlane.cli.tools import registered  # noqa: PLC0415

    known: list[str] = []
    # The stop stands; a module that can't be imported is another matter.
    with suppress(RunlaneError):
        known += [each.name for each in registered()]
    with suppress(RunlaneError):
        known += await stops.tools() if isinstance(stops, ApiStops) else ()
    if known and tool not in known:
        names = output.safe(", ".join(dict.fromkeys(known)))
        output.note(f"No tool {output.safe(tool)} is known here; there are: {names}.")


def _option(stop: "Stop") -> str:
    return f"--{stop.scope} {output.word(stop.target)}".rstrip() if stop.target else "--all"


def _fields(stop: "Stop") -> list[tuple[str, str]]:
    return [
        ("by", output.safe(stop.by)),
        ("since", output.moment(stop.since.timestamp())),
        ("reason", output.safe(stop.reason)),
    ]


def _document(stop: "Stop") -> dict[str, Any]:
    from runlane.stops import document  # noqa: PLC0415 - it brings Temporal's client

    return document(stop)
