"""Commands on schedules: made, shown, paused, triggered, deleted."""

# ruff: noqa: FBT002, PLR0917 - typer reads a command's options from its parameters

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from runlane.cli import inputs, output, runs, session
from runlane.cli.options import Json
from runlane.errors import ExitCode, InvalidRequest

if TYPE_CHECKING:
    from datetime import datetime

    from runlane.orchestrator import Runlane
    from runlane.schedules import Described, Known, Schedules

_Name: TypeAlias = Annotated[str, typer.Argument(metavar="NAME", help="Name of a schedule.")]
_SHOWN = 3
"""Times and runs that are shown of those to come and those that were."""


def add_to(app: typer.Typer) -> None:
    """Give the commands their names."""
    group = typer.Typer(help="Start runs by the clock.")
    group.command("create")(_create)
    group.command("list")(_list)
    group.command("show")(_show)
    group.command("pause")(_pause)
    group.command("resume")(_resume)
    group.command("trigger")(_trigger)
    group.command("delete")(_delete)
    app.add_typer(group, name="schedule")


def _create(
    name: _Name,
    cron: Annotated[
        list[str],
        typer.Option("--cron", metavar="'0 6 * * *'", help="When; may be given several times."),
    ],
    timezone: Annotated[
        str, typer.Option("--timezone", metavar="Z", help="Of --cron: Europe/Berlin.")
    ] = "UTC",
    overlap: Annotated[
        str,
        typer.Option(
            "--overlap",
            metavar="skip|buffer-one|buffer-all|cancel-other|terminate-other|allow-all",
            help="When an earlier run still goes on.",
        ),
    ] = "skip",
    catchup_window: Annotated[
        str | None,
        typer.Option(
            "--catchup-window", metavar="6h", help="Make up for what was missed, up to this old."
        ),
    ] = None,
    thread: Annotated[
        str | None,
        typer.Option("--thread", metavar="T", help="Thread to work on. Default: each a new one."),
    ] = None,
    assistant: runs.Assistant = None,
    params: runs.Params = None,
    poll_interval: runs.PollInterval = None,
    on_expiry: runs.OnExpiry = "recreate",
    deadline: runs.Deadline = None,
    max_rounds: runs.MaxRounds = 50,
    with_tools: runs.WithTools = False,
    paused: Annotated[
        bool, typer.Option("--paused", help="Make it, and let nothing start yet.")
    ] = False,
    json: Json = False,
) -> None:
    """Start a run whenever the clock says so. The same command again changes nothing."""
    body = runs.create_body(assistant, params, with_tools=with_tools)
    window = inputs.duration(catchup_window, "--catchup-window")
    options: dict[str, Any] = {
        **runs.create_options(poll_interval, deadline),
        "on_expiry": on_expiry,
        "max_rounds": max_rounds,
        "with_tools": with_tools,
    }

    async def work(client: "Runlane", schedules: "Schedules") -> int:
        from runlane.person import person  # noqa: PLC0415
        from runlane.scheduling import Wanted  # noqa: PLC0415

        wanted = Wanted(
            name=name,
            cron=cron,
            timezone=timezone,
            overlap=overlap,
            catchup_window=window,
            thread_id=thread,
            params=body,
            options={**options, "requested_by": person(client.settings)},
        )
        _tell(await schedules.create(wanted, paused=paused))
        await runs.mention_missing_worker(client)
        return int(ExitCode.DONE)

    _perform(work)


def _list(json: Json = False) -> None:
    """List schedules, and when each starts next. A new one may be missing for seconds."""

    async def work(client: "Runlane", schedules: "Schedules") -> int:
        found = sorted([each async for each in schedules.list()], key=lambda each: each.name)
        if session.wants_json():
            output.document({"object": "list", "data": [_document(each) for each in found]})
        elif not found:
            output.say("There are no schedules.")
        else:
            output.table(("schedule", "next", "cron", "zone"), [_row(each) for each in found])
        return int(ExitCode.DONE)

    _perform(work)


def _show(name: _Name, json: Json = False) -> None:
    """Show a schedule: what it starts, when, and its latest runs."""

    async def work(client: "Runlane", schedules: "Schedules") -> int:
        _tell(await schedules.find(name))
        return int(ExitCode.DONE)

    _perform(work)


def _pause(
    name: _Name,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Shown with the schedule.")
    ] = "paused by hand",
    json: Json = False,
) -> None:
    """Let the clock start nothing. Runs that have begun go on; a trigger still starts one."""
    if not reason.strip() or not reason.isprintable():
        raise InvalidRequest("reason must be a line of text.", param="--reason")

    async def work(client: "Runlane", schedules: "Schedules") -> int:
        _tell(await schedules.pause(name, reason.strip()))
        return int(ExitCode.DONE)

    _perform(work)


def _resume(name: _Name, json: Json = False) -> None:
    """Let the clock start runs again. What it missed meanwhile isn't made up for."""

    async def work(client: "Runlane", schedules: "Schedules") -> int:
        _tell(await schedules.resume(name))
        return int(ExitCode.DONE)

    _perform(work)


def _trigger(name: _Name, json: Json = False) -> None:
    """Start a run now, besides the clock. Exit code 8: its overlap let none begin."""

    async def work(client: "Runlane", schedules: "Schedules") -> int:
        triggered = await schedules.trigger(name)
        if session.wants_json():
            output.document(
                {
                    "object": "schedule.trigger",
                    "run_id": triggered.run_id,
                    "begun": triggered.begun,
                    "skipped": triggered.skipped,
                }
            )
        elif triggered.run_id is not None:
            output.say(output.safe(triggered.run_id))
        if triggered.skipped:
            output.note(
                "Skipped: an earlier run goes on. See  runlane schedule show " + output.word(name)
            )
            return int(ExitCode.REFUSED)
        if triggered.run_id is None:
            output.note("It begins once the earlier run has ended.")
        elif not triggered.begun:
            output.note("It is about to begin.")
            await runs.mention_missing_worker(client)
        return int(ExitCode.DONE)

    _perform(work)


def _delete(name: _Name, json: Json = False) -> None:
    """Delete a schedule. Runs that it has started go on."""

    async def work(client: "Runlane", schedules: "Schedules") -> int:
        await schedules.delete(name)
        if session.wants_json():
            output.document({"object": "schedule", "name": name, "deleted": True})
        else:
            output.say(f"Deleted: {output.safe(name)}")
        return int(ExitCode.DONE)

    _perform(work)


def _perform(work: "Callable[[Runlane, Schedules], Awaitable[int]]") -> None:
    async def connected(client: "Runlane") -> int:
        from runlane.schedules import Schedules  # noqa: PLC0415 - it brings Temporal's client

        return await work(client, Schedules(client.temporal, client.settings.task_queue))

    session.perform(connected)


def _tell(found: "Described") -> None:
    if session.wants_json():
        output.document(_full_document(found))
        return
    from runlane.durations import format_duration  # noqa: PLC0415

    standing = "paused" if found.paused else "active"
    output.say_parts((output.safe(found.name), "bold"), (f"  {standing}", None))
    request = found.request
    pairs = [
        ("next", "; ".join(map(_moment, found.next[:_SHOWN])) or "never"),
        ("cron", f"{_crons(found)}  ({output.safe(found.timezone)})"),
        ("overlap", f"{found.overlap}, {found.skipped:,} skipped"),
        ("catch-up", f"{format_duration(found.catchup_window)}, {found.missed:,} missed"),
        ("thread", output.safe(request.thread_id or "a new one each")),
        ("assistant", output.safe(str(request.params["assistant_id"]))),
        ("made by", output.safe(request.requested_by or "-")),
    ]
    if found.paused and found.note:
        pairs.insert(0, ("reason", output.safe(found.note)))
    pairs += [
        ("run", f"{each.run_id}  of {_moment(each.scheduled_at)}")
        for each in reversed(found.recent[-_SHOWN:])
    ]
    output.fields(pairs)


def _row(found: "Known") -> tuple[str, ...]:
    begins = "paused" if found.paused else _moment(found.next[0]) if found.next else "never"
    cron = _crons(found) if found.cron else "its key is missing here"
    return (output.safe(found.name), begins, cron, output.safe(found.timezone))


def _crons(found: "Known") -> str:
    return output.safe("; ".join(found.cron))


def _moment(at: "datetime") -> str:
    """Return a time as the schedule's own zone has it, with its offset."""
    return at.isoformat(" ", timespec="seconds")


def _document(found: "Known") -> dict[str, Any]:
    return {
        "object": "schedule",
        "name": found.name,
        "cron": list(found.cron),
        "timezone": found.timezone,
        "paused": found.paused,
        "note": found.note,
        "next": [each.timestamp() for each in found.next],
        "recent": [
            {"run_id": each.run_id, "scheduled_at": each.scheduled_at.timestamp()}
            for each in found.recent
        ],
    }


def _full_document(found: "Described") -> dict[str, Any]:
    request = found.request
    return {
        **_document(found),
        "overlap": found.overlap,
        "catchup_window": found.catchup_window.total_seconds(),
        "skipped": found.skipped,
        "missed": found.missed,
        "thread_id": request.thread_id,
        "params": request.params,
        "options": request.options.model_dump(mode="json", exclude={"timing"}),
        "requested_by": request.requested_by,
    }
