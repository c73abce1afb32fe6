"""Commands on schedules: made, shown, paused, triggered, deleted."""

# ruff: noqa: FBT002, PLR0917 - typer reads a command's options from its parameters

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from runlane.cli import inputs, output, runs, schedule_words, scheduled_batches, session
from runlane.cli.options import Json
from runlane.cli.scheduled_batches import BatchOptions, When
from runlane.errors import ExitCode, InvalidRequest

if TYPE_CHECKING:
    from runlane.orchestrator import Runlane
    from runlane.schedule_facts import Described
    from runlane.schedules import Schedules

_Name: TypeAlias = Annotated[str, typer.Argument(metavar="NAME", help="Name of a schedule.")]
_ON_EXPIRY, _MAX_ROUNDS = "recreate", 50


def add_to(app: typer.Typer) -> None:
    """Give the commands their names."""
    group = typer.Typer(help="Start runs and batches by the clock.")
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
            help="When what an earlier start began still goes on.",
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
    on_expiry: runs.OnExpiry = _ON_EXPIRY,
    deadline: Annotated[
        str | None,
        typer.Option(
            "--deadline",
            metavar="90d|06:00",
            help="Of a run, after which it is cancelled; of a batch, a time of day.",
        ),
    ] = None,
    max_rounds: runs.MaxRounds = _MAX_ROUNDS,
    with_tools: runs.WithTools = False,
    batch: Annotated[
        Path | None,
        typer.Option("--batch", metavar="INPUT", help="Begin batches of this file, and no runs."),
    ] = None,
    max_in_flight: Annotated[
        int | None,
        typer.Option("--max-in-flight", metavar="N", help="Of a batch, as with batch run."),
    ] = None,
    rpm: Annotated[
        float | None, typer.Option("--rpm", metavar="N", help="Of a batch, as with batch run.")
    ] = None,
    tpm: Annotated[
        float | None, typer.Option("--tpm", metavar="N", help="Of a batch, as with batch run.")
    ] = None,
    tries: Annotated[
        int | None, typer.Option("--tries", metavar="N", help="Of a batch, as with batch run.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", metavar="N", help="Of a batch, as with batch run."),
    ] = None,
    max_cost: Annotated[
        str | None,
        typer.Option("--max-cost", metavar="AMOUNT", help="Of a batch, as with batch run."),
    ] = None,
    prices: Annotated[
        str | None,
        typer.Option(
            "--price-per-million-tokens", metavar="IN,OUT", help="Of a batch, as with batch run."
        ),
    ] = None,
    with_messages: Annotated[
        bool, typer.Option("--with-messages", help="Of a batch, as with batch run.")
    ] = False,
    paused: Annotated[
        bool, typer.Option("--paused", help="Make it, and let nothing start yet.")
    ] = False,
    json: Json = False,
) -> None:
    """Start a run, or a batch, whenever the clock says so. The same again changes nothing."""
    window = inputs.duration(catchup_window, "--catchup-window")
    limits = BatchOptions(
        max_in_flight, rpm, tpm, tries, max_tokens, max_cost, prices, with_messages
    )
    if batch is not None:
        scheduled_batches.refuse(
            {
                "--thread": thread,
                "--assistant": assistant,
                "--params": params,
                "--poll-interval": poll_interval,
                "--on-expiry": on_expiry if on_expiry != _ON_EXPIRY else None,
                "--max-rounds": max_rounds if max_rounds != _MAX_ROUNDS else None,
            },
            "is of runs; the lines of --batch say it.",
        )
        when = When(name, cron, timezone, overlap, window)
        scheduled_batches.create(
            when, batch, limits, deadline=deadline, with_tools=with_tools, paused=paused
        )
        return
    scheduled_batches.refuse(limits.given(), "is of batches: add --batch INPUT.")
    body = runs.create_body(assistant, params, with_tools=with_tools)
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
        schedule_words.tell(await schedules.create(wanted, paused=paused))
        await runs.mention_missing_worker(client)
        return int(ExitCode.DONE)

    _perform(work)


def _list(json: Json = False) -> None:
    """List schedules, and when each starts next. A new one may be missing for seconds."""

    async def work(client: "Runlane", schedules: "Schedules") -> int:
        found = sorted([each async for each in schedules.list()], key=lambda each: each.name)
        if session.wants_json():
            data = [schedule_words.document(each) for each in found]
            output.document({"object": "list", "data": data})
        elif not found:
            output.say("There are no schedules.")
        else:
            head = ("schedule", "begins", "next", "cron", "zone")
            output.table(head, [schedule_words.row(each) for each in found])
        return int(ExitCode.DONE)

    _perform(work)


def _show(name: _Name, json: Json = False) -> None:
    """Show a schedule: what it starts, when, and its latest runs or batches."""

    async def work(client: "Runlane", schedules: "Schedules") -> int:
        await _tell(client, schedules, await schedules.find(name))
        return int(ExitCode.DONE)

    _perform(work)


def _pause(
    name: _Name,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Shown with the schedule.")
    ] = "paused by hand",
    json: Json = False,
) -> None:
    """Let the clock start nothing. What has begun goes on; a trigger still starts something."""
    if not reason.strip() or not reason.isprintable():
        raise InvalidRequest("reason must be a line of text.", param="--reason")

    async def work(client: "Runlane", schedules: "Schedules") -> int:
        await _tell(client, schedules, await schedules.pause(name, reason.strip()))
        return int(ExitCode.DONE)

    _perform(work)


def _resume(name: _Name, json: Json = False) -> None:
    """Let the clock start again. What it missed meanwhile isn't made up for."""

    async def work(client: "Runlane", schedules: "Schedules") -> int:
        await _tell(client, schedules, await schedules.resume(name))
        return int(ExitCode.DONE)

    _perform(work)


def _trigger(name: _Name, json: Json = False) -> None:
    """Start a run, or a batch, now. Exit code 8: the schedule's overlap let none begin."""

    async def work(client: "Runlane", schedules: "Schedules") -> int:
        triggered = await schedules.trigger(name)
        start = triggered.start
        if session.wants_json():
            output.document(schedule_words.trigger_document(triggered))
        elif start is not None:
            output.say(output.safe(start.run_id or start.batch or ""))
        if triggered.skipped:
            output.note(
                "Skipped: an earlier one goes on. See  runlane schedule show " + output.word(name)
            )
            return int(ExitCode.REFUSED)
        if start is None:
            output.note("It begins once the earlier one has ended.")
        elif not triggered.begun:
            output.note("It is about to begin.")
            await runs.mention_missing_worker(client)
        return int(ExitCode.DONE)

    _perform(work)


def _delete(name: _Name, json: Json = False) -> None:
    """Delete a schedule. What it has begun goes on, and stays."""

    async def work(client: "Runlane", schedules: "Schedules") -> int:
        found = await schedules.find(name)
        going_on: list[str] | None = None
        if found.of_batches:
            going_on = await scheduled_batches.delete(client, schedules, found)
        else:
            await schedules.delete(name)
        if session.wants_json():
            more = {} if going_on is None else {"going_on": going_on}
            output.document({"object": "schedule", "name": name, "deleted": True, **more})
        else:
            output.say(f"Deleted: {output.safe(name)}")
        if going_on is not None:
            output.note("Its batches stay, with their results. See  runlane batch list")
            for batch in going_on:
                output.note(f"Going on: {output.safe(batch)}")
        return int(ExitCode.DONE)

    _perform(work)


def _perform(work: "Callable[[Runlane, Schedules], Awaitable[int]]") -> None:
    async def connected(client: "Runlane") -> int:
        from runlane.schedules import Schedules  # noqa: PLC0415 - it brings Temporal's client

        return await work(client, Schedules(client.temporal, client.settings.task_queue))

    session.perform(connected)


async def _tell(client: "Runlane", schedules: "Schedules", found: "Described") -> None:
    if found.of_batches:
        await scheduled_batches.tell(client, schedules, found)
    else:
        schedule_words.tell(found)
