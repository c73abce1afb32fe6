"""Commands that show runs: retrieve, view, list."""

# ruff: noqa: FBT002, PLR0917 - typer reads a command's options from its parameters

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from runlane.cli import blocked as blocked_runs
from runlane.cli import output, progress, session, stops
from runlane.cli.options import Json, RunId
from runlane.errors import ExitCode

if TYPE_CHECKING:
    from runlane.orchestrator import Runlane
    from workflows.contract import RunningTool, RunView


_DECISION = {
    "checking": "being verified: ",
    "counted": "",
    "late": "late: ",
    "refused": "refused: ",
}


def add_to(app: typer.Typer) -> None:
    """Give the commands their names."""
    app.command("retrieve")(_retrieve)
    app.command("view")(_view)
    app.command("list")(_list)


def _retrieve(run_id: RunId, json: Json = False) -> None:
    """Print a run in short."""

    async def work(client: "Runlane") -> int:
        view = await client.runs.view(run_id)
        if session.wants_json():
            output.document(view.as_json())
        else:
            output.run_line(view)
            output.fields(_short(view))
            _print_remarks(view)
        _mention_age(view)
        return int(ExitCode.DONE)

    session.perform(work)


def _view(run_id: RunId, json: Json = False) -> None:
    """Print all that is known of a run.

    That is what `retrieve` prints, and its upstream runs, calls, answers and history.
    """

    async def work(client: "Runlane") -> int:
        view = await client.runs.view(run_id)
        if session.wants_json():
            output.document(view.as_json())
        else:
            output.run_line(view)
            output.fields([*_short(view), *_long(view)])
            _print_answers(view)
            _print_remarks(view)
        _mention_age(view)
        return int(ExitCode.DONE)

    session.perform(work)


def _list(
    thread: Annotated[
        str | None, typer.Option("--thread", metavar="T", help="Only this thread's runs.")
    ] = None,
    status: Annotated[
        str | None, typer.Option("--status", metavar="S", help="Only runs in this status.")
    ] = None,
    blocked: blocked_runs.Blocked = False,
    kind: blocked_runs.Kind = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="Runs on a page.")] = 20,
    after: Annotated[
        str | None, typer.Option("--after", metavar="ID", help="Begin after this run.")
    ] = None,
    before: Annotated[
        str | None, typer.Option("--before", metavar="ID", help="End before this run.")
    ] = None,
    order: Annotated[
        str, typer.Option("--order", metavar="asc|desc", help="By creation.")
    ] = "desc",
    all_ages: Annotated[
        bool,
        typer.Option("--all-ages", help="From the ledger: runs that Temporal has forgotten, too."),
    ] = False,
    json: Json = False,
) -> None:
    """List runs, the newest first. No worker is needed."""
    only_blocked = blocked_runs.meant(blocked, kind)

    async def work(client: "Runlane") -> int:
        from runlane import workers  # noqa: PLC0415

        page = await client.runs.list(
            thread,
            status=status,
            limit=limit,
            after=after,
            before=before,
            order=order,  # type: ignore[arg-type]  # checked by the list itself
            blocked=only_blocked,
            all_ages=all_ages,
        )
        if only_blocked:
            page = replace(page, views=await blocked_runs.read(client, page.views))
        if session.wants_json():
            output.document(page.as_json())
        elif not page.data:
            output.say("No run is blocked." if only_blocked else "No runs.")
        else:
            if only_blocked:
                blocked_runs.table(page.views)
            else:
                rows = [_row(view) for view in page.views]
                output.table(("run", "status", "created", "thread", "waits for"), rows, styled=1)
            if page.has_more:
                _mention_next_page(page.last_id, page.first_id, before=before, after=after)
        stops.mention(page.stops)
        _mention_unreadable(page.views)
        seen = await workers.last_seen(client.temporal, client.settings.task_queue)
        whose = "the ledger" if all_ages else "Temporal"
        output.note(_age_of_list(whose, seen, client.settings.task_queue))
        return int(ExitCode.DONE)

    session.perform(work)


def _short(view: "RunView") -> list[tuple[str, str]]:
    run = view.run
    pairs = [
        ("thread", output.safe(run.thread_id)),
        ("assistant", output.safe(run.assistant_id)),
        ("created", output.moment(run.created_at)),
    ]
    ended = run.completed_at or run.cancelled_at or run.failed_at
    if ended is not None:
        pairs.append(("ended", output.moment(ended)))
    if run.metadata:
        pairs.append(("metadata", output.pairs(run.metadata)))
    if run.usage is not None:
        pairs.append(("tokens", f"{run.usage.total_tokens:,}"))
    if view.runlane.simulated:
        pairs.append(("simulated", "no model was asked"))
    calls = view.runlane.pending if run.status == "requires_action" else []
    pairs.extend(("waits for", output.call_text(call)) for call in calls)
    pairs.extend(("runs", _running(tool)) for tool in view.runlane.running)
    return pairs


def _running(tool: "RunningTool") -> str:
    words = [f"{tool.name}  {tool.tool_call_id}  since {output.moment(tool.begun_at)}"]
    if tool.progress is not None:
        words.append(f": {tool.progress}")
    if tool.failure is not None:
        words.append(f" (failed: {tool.failure})")
    return output.safe("".join(words))


def _long(view: "RunView") -> list[tuple[str, str]]:
    known = view.runlane
    pairs = []
    if known.upstream is not None:
        # An upstream without a name of its own has that of its host.
        named = urlsplit(known.upstream.url).netloc != known.upstream.name
        name = f"{output.safe(known.upstream.name)} " if named else ""
        pairs.append(("upstream", f"{name}{known.upstream.url}"))
    pairs.extend(
        (f"attempt {attempt.attempt}", output.safe(f"{attempt.upstream_run_id}  {attempt.status}"))
        for attempt in known.attempts
    )
    pairs += [("polls", f"{known.polls:,}"), ("rounds", f"{known.rounds:,}")]
    if known.early:
        pairs.append(("early", ", ".join(output.safe(call_id) for call_id in known.early)))
    if known.deadline_at is not None:
        pairs.append(("deadline", output.moment(known.deadline_at)))
    if known.history_events is not None:
        events = f"{known.history_events} events, {output.size(known.history_bytes)}"
        pairs.append(("history", events))
    return pairs


def _print_answers(view: "RunView") -> None:
    known = view.runlane
    for answer in known.answers:
        by = "" if answer.by is None else f" by {output.safe(answer.by)}"
        when = "" if answer.answered_at is None else f" at {output.moment(answer.answered_at)}"
        given = f", given{by}{when}" if by or when else ""
        failed = "" if answer.failure is None else f"; it failed: {output.safe(answer.failure)}"
        line = f"{output.safe(answer.name)}  {answer.outcome}{given}{failed}"
        output.fields([("answered", f"{output.safe(answer.tool_call_id)}  {line}")])
    for decision in known.decisions:
        line = f"{output.safe(decision.tool_call_id)}  {_DECISION[decision.state]}{decision.kind}"
        reason = "" if decision.reason is None else f": {output.safe(decision.reason)}"
        by = f"by {output.safe(decision.by)} at {output.moment(decision.at)}"
        output.fields([("decision", f"{line} {by}{reason}")])
    for rejected in known.rejected:
        line = f"{output.safe(rejected.tool_call_id)}  {rejected.reason}"
        output.fields([("rejected", f"{line} at {output.moment(rejected.at)}")])


def _print_remarks(view: "RunView") -> None:
    for remark in progress.remarks(view):
        output.say(remark, style="yellow")
    for line in progress.closing_lines(view):
        output.say(line)


def _mention_age(view: "RunView") -> None:
    if view.runlane.worker is False and view.runlane.known_at is not None:
        output.note(
            f"No worker answered; this is as of {output.moment(view.runlane.known_at)}. "
            "Start one:  runlane worker"
        )


def _age_of_list(whose: str, seen: float | None, task_queue: str) -> str:
    from runlane import workers  # noqa: PLC0415

    now = f"As {whose} knew at {output.moment(time.time())}."
    if workers.is_fresh(seen):
        return now
    since = "" if seen is None else f" since {output.moment(seen)}"
    return (
        f"{now} No worker has been on queue {output.safe(task_queue)}{since}, so a status may be "
        "older. Start one:  runlane worker"
    )


def _mention_next_page(
    last_id: str | None, first_id: str | None, *, before: str | None, after: str | None
) -> None:
    if before is not None and after is None:
        output.note(f"More:  --before {first_id}")
    else:
        output.note(f"More:  --after {last_id}")


def _mention_unreadable(views: "Sequence[RunView]") -> None:
    """Say what is missing to read the runs that can't be read here, each cause once."""
    causes = [view.runlane.unreadable for view in views if view.runlane.unreadable is not None]
    if not causes:
        return
    runs = "1 run" if len(causes) == 1 else f"{len(causes)} runs"
    output.note(f"{runs} can't be read here; listed is what Temporal has in the clear.")
    for message in dict.fromkeys(cause.message for cause in causes):
        output.note(f"  {output.safe(message)}")


def _row(view: "RunView") -> tuple[str, ...]:
    calls = view.runlane.pending
    waits = (
        ""
        if not calls
        else f"{output.safe(calls[0].name)} {output.shortened(calls[0].arguments, 40)}"
    )
    if len(calls) > 1:
        waits += f" and {len(calls) - 1} more"
    if view.runlane.stopped is not None:
        waits = f"stopped: {output.shortened(view.runlane.stopped.reason, 40)}"
    if view.runlane.blocked is not None:
        waits = f"blocked: {view.runlane.blocked.kind}"
    if view.runlane.unreadable is not None:
        waits = blocked_runs.not_read_text(view)
    run = view.run
    if view.runlane.uncertain is not None:
        waits = output.safe(view.runlane.uncertain)
    return (
        output.safe(run.id),
        output.safe(str(run.status)),
        output.moment(run.created_at),
        output.safe(run.thread_id),
        waits,
    )
