"""Calls that wait for people, on the command line: listed, shown, and decided."""

# ruff: noqa: FBT002, PLR0917 - typer reads a command's options from its parameters

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from runlane.cli import approval_words as words
from runlane.cli import inputs, output, session
from runlane.cli.options import Json
from runlane.errors import ExitCode, InvalidRequest, NoWorker

if TYPE_CHECKING:
    from runlane.api_approvals import ApiApprovals
    from runlane.approvals import Approvals
    from runlane.faces import Decided, Face, Told
    from runlane.waiting_calls import WaitingCall

CallId: TypeAlias = Annotated[
    str, typer.Argument(metavar="CALL_ID", help="Id of a call that waits.")
]
Run: TypeAlias = Annotated[
    str | None,
    typer.Option("--run", metavar="RUN_ID", help="Its run, where several have such a call."),
]
Note: TypeAlias = Annotated[
    str | None, typer.Option("--note", metavar="TEXT", help="Why; kept with the decision.")
]


def add_to(app: typer.Typer) -> None:
    """Give the commands their names."""
    approvals = typer.Typer(help="Show and decide calls that wait for people.")
    approvals.command("list")(_list)
    approvals.command("show")(_show)
    approvals.command("approve")(_approve)
    approvals.command("reject")(_reject)
    approvals.command("answer")(_answer)
    approvals.command("claim")(_claim)
    approvals.command("release")(_release)
    approvals.command("revoke")(_revoke)
    app.add_typer(approvals, name="approval")


def _list(
    tool: Annotated[
        str | None, typer.Option("--tool", metavar="NAME", help="Only this tool's.")
    ] = None,
    group: Annotated[
        str | None, typer.Option("--group", metavar="NAME", help="Only where it is its turn.")
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN_ID", help="Only this run's.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="4h", help="Only what waits longer.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="At most so many.")] = 20,
    json: Json = False,
) -> None:
    """List the calls that wait for people, the longest first. No worker is needed."""
    age = inputs.duration(older_than, "--older-than")

    async def work(face: "Face") -> int:
        found = await face.approvals.list(
            tool=tool, group=group, run_id=run, older_than=age, limit=limit
        )
        if session.wants_json():
            data = [waiting.as_json() for waiting in found]
            output.document({"object": "list", "data": data, "has_more": len(found) == limit})
        elif found:
            words.table(found)
            if len(found) == limit:
                output.note(f"There may be more:  --limit {limit * 5}")
            output.note("All of one:  runlane approval show CALL_ID")
        elif tool or group or run or age:
            output.say("No such call waits for people.")
        else:
            output.say("No call waits for people.")
        return int(ExitCode.DONE)

    _perform(work)


def _show(call_id: CallId, run: Run = None, json: Json = False) -> None:
    """Print all that a person should know of a call before deciding it."""

    async def work(face: "Face") -> int:
        waiting, is_live = await _read(face, call_id, run)
        if session.wants_json():
            output.document(waiting.as_json())
        else:
            words.show(waiting)
        if not is_live:
            queue = output.safe(face.settings.task_queue)
            output.note(
                f"No worker on queue {queue} answers: this is what the ledger knows, and nobody "
                "can decide it now. Start one:  runlane worker"
            )
        return int(ExitCode.DONE)

    _perform(work)


def _approve(
    call_id: CallId,
    arguments: Annotated[
        str | None,
        typer.Option("--arguments", metavar="FILE|-", help="Run with these instead; JSON."),
    ] = None,
    note: Note = None,
    for_rest_of_run: Annotated[
        bool,
        typer.Option("--for-rest-of-run", help="Later calls of the tool in this run, too."),
    ] = False,
    run: Run = None,
    json: Json = False,
) -> None:
    """Let a call run, with its own arguments or with edited ones."""
    edited = None if arguments is None else inputs.read_text(arguments, "--arguments")
    _decide(
        lambda approvals: approvals.approve(
            call_id, run_id=run, arguments=edited, note=note, for_rest_of_run=for_rest_of_run
        )
    )


def _reject(
    call_id: CallId,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; the model is told.")
    ],
    run: Run = None,
    json: Json = False,
) -> None:
    """Refuse a call. It doesn't run, and the model is told why."""
    _decide(lambda approvals: approvals.reject(call_id, run_id=run, reason=reason))


def _answer(
    call_id: CallId,
    output: Annotated[
        str,
        typer.Option("--output", metavar="TEXT|@FILE|-", help="What the model gets; @@ is an @."),
    ],
    note: Note = None,
    run: Run = None,
    json: Json = False,
) -> None:
    """Give a call's output yourself. The tool doesn't run."""
    given = _output(output)
    _decide(lambda approvals: approvals.answer(call_id, run_id=run, output=given, note=note))


def _claim(call_id: CallId, run: Run = None, json: Json = False) -> None:
    """Look after a call for an hour: nobody else decides it meanwhile."""
    _decide(lambda approvals: approvals.claim(call_id, run_id=run))


def _release(call_id: CallId, run: Run = None, json: Json = False) -> None:
    """Look after a call no more."""
    _decide(lambda approvals: approvals.release(call_id, run_id=run))


def _revoke(call_id: CallId, run: Run = None, json: Json = False) -> None:
    """Take back what was approved for the rest of the run on this call."""
    _decide(lambda approvals: approvals.revoke(call_id, run_id=run))


async def _read(face: "Face", call_id: str, run_id: str | None) -> "tuple[WaitingCall, bool]":
    """Return a call as its run knows it; as the ledger does, where no worker answers."""
    try:
        return await face.approvals.retrieve(call_id, run_id=run_id), True
    except NoWorker:
        for waiting in await face.approvals.list(run_id=run_id, limit=1_000):
            if waiting.call.tool_call_id == call_id:
                return waiting, False
        raise


def _decide(send: "Callable[[Approvals | ApiApprovals], Awaitable[Decided | Told]]") -> None:
    async def work(face: "Face") -> int:
        decided = await send(face.approvals)
        if session.wants_json():
            output.document(decided.as_json())
        else:
            has_temporal = face.settings.api_url is None
            words.became(decided, (await face.stops.seen()).standing, has_temporal=has_temporal)
        return int(ExitCode.DONE if decided.state == "counted" else ExitCode.OTHER)

    _perform(work)


def _perform(work: "Callable[[Face], Awaitable[int]]") -> None:
    async def through() -> int:
        # Deferred: they bring Temporal's client and the database's.
        from runlane.faces import deciding  # noqa: PLC0415
        from runlane.settings import Settings  # noqa: PLC0415

        async with deciding(Settings.from_env()) as face:
            return await work(face)

    session.perform_apart(through)


def _output(given: str) -> str:
    if given == "-":
        return inputs.read_text("-", "--output")
    if given.startswith("@@"):
        return given[1:]
    if given.startswith("@"):
        if given == "@":
            raise InvalidRequest("@ needs the name of a file.", param="--output")
        return inputs.read_text(given[1:], "--output")
    return given
