"""Blocked runs on the command line: the table of them, and the nudge."""

# ruff: noqa: FBT002 - typer reads a command's options from its parameters

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from runlane.cli import output, progress, session
from runlane.cli.options import Json
from runlane.errors import CannotDecrypt, ExitCode, InvalidRequest, RunNotFound

if TYPE_CHECKING:
    from runlane.orchestrator import Runlane
    from workflows.contract import RunView

Blocked: TypeAlias = Annotated[
    bool, typer.Option("--blocked", help="Blocked runs: something must be mended for them.")
]
Kind: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--kind",
        metavar="credentials|quota|not_found|other_upstream",
        help="Only those blocked by this.",
    ),
]

_ASKED_AT_ONCE = 10


def add_to(app: typer.Typer) -> None:
    """Give the command its name."""
    app.command("nudge")(_nudge)


def meant(blocked: bool, kind: str | None) -> bool | str:  # noqa: FBT001 - an option's value
    """Return what the two options say together, as `Runs.list` takes it."""
    return kind if kind is not None else blocked


async def read(client: "Runlane", views: "Sequence[RunView]") -> "list[RunView]":
    """Return the listed runs as their workflows know them, or as listed where no worker answers.

    Lists know the kind alone; since when, and what the upstream said, is in the workflow.
    """
    readable = [view for view in views if view.runlane.unreadable is None]
    if not readable:
        return list(views)
    first = await _known(client, readable[0])
    if not first.runlane.worker and first.runlane.unreadable is None:
        return list(views)
    slots = asyncio.Semaphore(_ASKED_AT_ONCE)

    async def one(view: "RunView") -> "RunView":
        if view is readable[0]:
            return first
        if view.runlane.unreadable is not None:
            return view
        async with slots:
            return await _known(client, view)

    return [*await asyncio.gather(*(one(view) for view in views))]


async def _known(client: "Runlane", listed: "RunView") -> "RunView":
    # Deferred: they bring Temporal's client.
    from runlane.payload_store import PayloadStoreError  # noqa: PLC0415
    from runlane.visibility import not_read  # noqa: PLC0415

    try:
        return await client.runs.view(listed.run.id)
    except RunNotFound:
        return listed
    except (CannotDecrypt, PayloadStoreError) as error:
        # Listed by a memo that can be read, and driven under another key.
        return not_read(listed, error)


def table(views: "Sequence[RunView]") -> None:
    """Print blocked runs and what happened to each, and below them what lets each kind go on."""
    # Deferred: it brings Temporal's client.
    from runlane.blocked import REMEDIES  # noqa: PLC0415

    head = ("run", "status", "blocked by", "since")
    output.table(head, [_row(view) for view in views], below=[_cause(view) for view in views])
    for kind in sorted({v.runlane.blocked.kind for v in views if v.runlane.blocked is not None}):
        output.say("")
        for line in output.folded(f"{kind}: {REMEDIES[kind]}"):
            output.say(line)


def _row(view: "RunView") -> tuple[str, ...]:
    blocked, run = view.runlane.blocked, view.run
    row = (output.safe(run.id), output.safe(str(run.status)))
    if blocked is None:
        return (*row, "goes on", "")
    return (*row, str(blocked.kind), output.moment(blocked.since_at))


def _cause(view: "RunView") -> str:
    # Deferred, as above.
    from runlane.blocked import cause  # noqa: PLC0415

    if view.runlane.unreadable is not None:
        return not_read_text(view)
    return "" if view.runlane.blocked is None else output.safe(cause(view.runlane.blocked))


def not_read_text(view: "RunView") -> str:
    """Return in a few words why a listed run can't be read; empty where it can."""
    unreadable = view.runlane.unreadable
    if unreadable is None:
        return ""
    if unreadable.key_id is None:
        return "can't be read here"
    return f"can't be read here: key {output.safe(unreadable.key_id)}"


def _nudge(
    run_id: Annotated[
        str | None, typer.Argument(metavar="RUN_ID", help="Id of a run; or --blocked.")
    ] = None,
    blocked: Blocked = False,
    kind: Kind = None,
    json: Json = False,
) -> None:
    """Have a run, or all blocked runs, look at the upstream now."""
    every = blocked or kind is not None
    if every == (run_id is not None):
        text = "Name a run, or say --blocked for all that are blocked."
        raise InvalidRequest(text, param="RUN_ID")
    session.perform(lambda client: _one(client, run_id) if run_id else _all(client, kind))


async def _one(client: "Runlane", run_id: str) -> int:
    await client.runs.nudge(run_id)
    with session.after("was nudged", run_id):
        view = await progress.unless_silent(client.runs.view(run_id), client.settings.task_queue)
    if session.wants_json():
        output.document(view.as_json())
    else:
        output.run_line(view)
    return int(ExitCode.DONE)


async def _all(client: "Runlane", kind: str | None) -> int:
    told = await client.runs.nudge_blocked(kind)
    if session.wants_json():
        output.document({"object": "nudge", "runs": told})
        return int(ExitCode.DONE)
    runs = "1 blocked run" if told == 1 else f"{told} blocked runs"
    output.say(f"Nudged {runs}." if told else "No run is blocked.")
    if told:
        output.note("Whether they go on:  runlane list --blocked")
    return int(ExitCode.DONE)
