"""`runlane batch list`: all batches, a page at a time."""

# ruff: noqa: FBT002 - typer reads a command's options from its parameters

from typing import TYPE_CHECKING, Annotated

import typer

from runlane.cli import batch_watching, output, session
from runlane.cli.options import Json
from runlane.errors import ExitCode

if TYPE_CHECKING:
    from ledger import Ledger
    from runlane.batches.running import Batches
    from runlane.cli.batch_standing import Standing
    from runlane.orchestrator import Runlane


def add_to(batches: typer.Typer) -> None:
    """Give the command its name."""
    batches.command("list")(_list)


def _list(
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="At most so many.")] = 20,
    after: Annotated[
        str | None,
        typer.Option("--after", metavar="ID", help="Those that follow this batch; a name, too."),
    ] = None,
    json: Json = False,
) -> None:
    """List batches, the newest first. Needs no worker."""

    async def work(client: "Runlane", ledger: "Ledger", known: "Batches") -> int:
        from runlane.batches import presenting  # noqa: PLC0415
        from runlane.cli.batch_standing import look  # noqa: PLC0415

        behind = None if after is None else (await known.find(after)).id
        found = list(await ledger.batches.list(None, limit=limit, after=behind))
        standing = [await look(client, ledger, each) for each in found]
        last = found[-1].id if len(found) == limit else None
        has_more = last is not None and bool(await ledger.batches.list(None, limit=1, after=last))
        if session.wants_json():
            data = [presenting.document(each.batch, each.counts) for each in standing]
            first_id, last_id = (found[0].id, found[-1].id) if found else (None, None)
            ends = {"first_id": first_id, "last_id": last_id, "has_more": has_more}
            output.document({"object": "list", "data": data, **ends})
        elif not standing:
            output.say("There are no batches.")
        else:
            head = ("batch", "status", "ended", "failed", "people", "begun")
            output.table(head, [_row(each) for each in standing], styled=1)
            if has_more:
                output.note(f"There are more:  runlane batch list --after {last}")
        return int(ExitCode.DONE)

    batch_watching.perform(work)


def _row(standing: "Standing") -> tuple[str, ...]:
    from runlane.batches import presenting  # noqa: PLC0415

    batch, counts = standing.batch, standing.counts
    return (
        # Names are looked up among those that the command line gave.
        batch.id if batch.owner else output.shortened(batch.name, 30),
        "paused" if batch.paused_at is not None else batch.status.value,
        f"{standing.ended:,}/{batch.total:,}",
        f"{presenting.failed(counts):,}",
        "?" if standing.people is None else f"{standing.people:,}",
        output.moment(batch.created_at.timestamp())[:16],
    )
