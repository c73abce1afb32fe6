"""`runlane prune`: delete the payload files that nothing refers to any more."""

# ruff: noqa: FBT002 - typer reads a command's options from its parameters

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from runlane.cli import output, session
from runlane.cli.options import Json
from runlane.errors import ExitCode, InvalidRequest

if TYPE_CHECKING:
    from runlane.orchestrator import Runlane


def add_to(app: typer.Typer) -> None:
    """Give the command its name."""
    app.command("prune")(_prune)


def _prune(
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    json: Json = False,
) -> None:
    """Delete payload files of runs that Temporal has forgotten.

    The ledger is another matter: see RUNLANE_RETENTION_DAYS, and `runlane erase`.
    """
    if not yes and (session.wants_json() or not sys.stdin.isatty()):
        raise InvalidRequest("This asks first, and nobody can answer: add --yes.", param="--yes")
    session.perform(lambda client: _work(client, yes=yes))


async def _work(client: "Runlane", *, yes: bool) -> int:
    from runlane import pruning  # noqa: PLC0415 - Temporal's client takes half a second to import
    from runlane.rpc import explained  # noqa: PLC0415

    temporal = client.temporal
    with explained(temporal):
        root = await pruning.payload_directory(temporal, client.settings)
        found = [left async for left in pruning.forgotten(temporal, root)]
    where = f"payloads are in {output.safe(str(root))}"
    knower = (
        f"namespace {output.safe(temporal.namespace)} at "
        f"{temporal.service_client.config.target_host}"
    )
    if found:
        size = output.size(sum(left.bytes for left in found))
        output.note(f"{len(found)} of the runs whose {where} are unknown to {knower}: {size}.")
    else:
        output.note(f"No run whose {where}, the last day's aside, is unknown to {knower}.")
    if found and not yes and not typer.confirm("Does no other Temporal use it? Delete?", err=True):
        output.note("Nothing was deleted.")
        return int(ExitCode.DONE)
    files = deleted = 0
    with explained(temporal):
        for left in found:
            more_files, more_bytes = await pruning.delete(temporal, left)
            files, deleted = files + more_files, deleted + more_bytes
    if session.wants_json():
        output.document({"object": "prune", "files": files, "bytes": deleted})
    else:
        output.say(f"Deleted {files} files, {output.size(deleted)}.")
    return int(ExitCode.DONE)
