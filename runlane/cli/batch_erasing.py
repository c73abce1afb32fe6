"""`runlane batch erase`: remove what people and models wrote in a whole batch, for good."""

# ruff: noqa: FBT002 - typer reads a command's options from its parameters

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from runlane.cli import batch_watching, output, session
from runlane.cli.options import Json
from runlane.errors import ExitCode, InvalidRequest, Refused

if TYPE_CHECKING:
    from ledger import Ledger
    from runlane.batches.erasing import ErasedBatch
    from runlane.batches.running import Batches
    from runlane.orchestrator import Runlane


def add_to(batches: typer.Typer) -> None:
    """Give the command its name."""
    batches.command("erase")(_erase)


def _erase(
    batch: Annotated[
        str, typer.Argument(metavar="BATCH", help="Name or id of a batch; of a name, the latest.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    json: Json = False,
) -> None:
    """Remove for good what was written in a batch that has ended.

    Its lines, results and messages, its runs, and its uploaded input. Digests, counts and the audit
    trail stay; what stands upstream, and in files of results, is left.
    """
    if not yes and (session.wants_json() or not sys.stdin.isatty()):
        raise InvalidRequest("This asks first, and nobody can answer: add --yes.", param="--yes")

    async def work(client: "Runlane", ledger: "Ledger", known: "Batches") -> int:
        from runlane.batches.erasing import erase  # noqa: PLC0415
        from runlane.erasing import Erasing  # noqa: PLC0415
        from runlane.person import person  # noqa: PLC0415

        found = await known.find(batch)
        name = output.safe(found.name)
        if not found.status.is_end:
            text = f"{name} hasn't ended, and nothing was erased. Cancel it, or wait for its end."
            raise Refused(text, code="batch_alive")
        output.note(f"To erase: {name}, {output.counted(found.total, 'item')}, {found.id}.")
        if not yes and not typer.confirm("Erase what was written in it, for good?", err=True):
            output.note("Nothing was erased.")
            return int(ExitCode.DONE)
        erasing = Erasing(client.temporal, client.settings)
        by = person(client.settings)
        _tell(await erase(ledger, erasing, found, by, _erasing_run))
        return int(ExitCode.DONE)

    batch_watching.perform(work)


def _erasing_run(run_id: str) -> None:
    output.note(f"Erasing {output.safe(run_id)}; Temporal takes up to a minute to delete.")


def _tell(erased: "ErasedBatch") -> None:
    if session.wants_json():
        output.document({"object": "batch.erasure", **asdict(erased)})
        return
    runs = output.counted(len(erased.runs), "run")
    output.say(
        f"Erased {erased.batch_id}: {output.counted(erased.contents, 'content')} of the ledger, "
        f"and {runs} that items had become."
    )
    for each in erased.runs:
        if each.still_there:
            again = "the same command again looks after it"
            output.note(f"Temporal is still deleting {output.safe(each.run_id)}; {again}.")
        if each.payloads_left is not None:
            output.note(f"Payloads may be left in {output.safe(each.payloads_left)}.")
    if erased.file_id is not None:
        output.note(f"Its input {erased.file_id} was deleted, too.")
    if erased.file_left is not None:
        output.note(f"A schedule still reads its input {erased.file_left}, which is left.")
    output.note("Left: its threads and runs upstream, files of results, and backups made before.")
