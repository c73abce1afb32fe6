"""`runlane erase`: remove what people and models wrote in runs, for good."""

# ruff: noqa: FBT002 - typer reads a command's options from its parameters

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from runlane.cli import output, session
from runlane.cli.options import Json
from runlane.errors import ExitCode, InvalidRequest

if TYPE_CHECKING:
    from runlane.orchestrator import Runlane


def add_to(app: typer.Typer) -> None:
    """Give the command its name."""
    app.command("erase")(_erase)


def _erase(
    run: Annotated[str | None, typer.Option("--run", metavar="RUN_ID", help="This run.")] = None,
    thread: Annotated[
        str | None, typer.Option("--thread", metavar="T", help="All runs of this thread.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    json: Json = False,
) -> None:
    """Remove for good what was written in a run, or a thread.

    Out of ledger, Temporal and payload files. Digests and the audit trail stay. What stands
    upstream is named, and left.
    """
    if (run is None) == (thread is None):
        raise InvalidRequest("Say what: --run RUN_ID or --thread T.", param="--run")
    if not yes and (session.wants_json() or not sys.stdin.isatty()):
        raise InvalidRequest("This asks first, and nobody can answer: add --yes.", param="--yes")
    session.perform(lambda client: _work(client, run, thread, yes=yes))


async def _work(client: "Runlane", run: str | None, thread: str | None, *, yes: bool) -> int:
    from runlane.erasing import Erasing, left_upstream  # noqa: PLC0415 - Temporal's client is slow

    erasing = Erasing(client.temporal, client.settings)
    found = await erasing.find(run_id=run, thread_id=thread)
    output.note(f"To erase: {output.safe(', '.join(found))}.")
    if not yes and not typer.confirm("Erase what was written in them, for good?", err=True):
        output.note("Nothing was erased.")
        return int(ExitCode.DONE)
    erased = []
    for run_id in found:
        output.note(f"Erasing {output.safe(run_id)}; Temporal takes up to a minute to delete.")
        erased.append(await erasing.erase(run_id))
    upstream = left_upstream(erased)
    if session.wants_json():
        output.document(
            {"object": "erasure", "data": [asdict(each) for each in erased], "left": upstream}
        )
        return int(ExitCode.DONE)
    for each in erased:
        output.say(
            f"Erased {output.safe(each.run_id)}: {output.counted(each.contents, 'content')} of the "
            f"ledger, {output.counted(each.executions, 'execution')} in Temporal, "
            f"{output.counted(each.files, 'payload file')}."
        )
        if each.still_there:
            output.note("Temporal is still deleting it; the same command again looks after it.")
        if each.payloads_left is not None:
            output.note(f"Payloads may be left in {output.safe(each.payloads_left)}.")
    output.note("Left upstream, where Runlane deletes nothing:")
    for line in upstream:
        output.note(f"  {output.safe(line)}")
    output.note("Backups made before hold the contents still.")
    return int(ExitCode.DONE)
