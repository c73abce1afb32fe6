"""Commands on batches that were begun: looked at, paused, cancelled, tried again."""

# ruff: noqa: FBT002, PLR0917 - typer reads a command's options from its parameters

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from runlane.cli import batch_erasing, batch_listing, batch_watching, batches, output, session
from runlane.cli.batch_watching import Errors, Files, Ordered, Output, WaitForPeople
from runlane.cli.options import Json
from runlane.errors import ExitCode, InvalidRequest

if TYPE_CHECKING:
    from ledger import Ledger
    from ledger.batch_record import BatchRecord
    from runlane.batches.running import Batches
    from runlane.cli.batch_standing import Standing
    from runlane.orchestrator import Runlane

_Batch: TypeAlias = Annotated[
    str, typer.Argument(metavar="BATCH", help="Name or id of a batch; of a name, the latest.")
]


def add_to(app: typer.Typer) -> None:
    """Give the commands their names."""
    group = typer.Typer(help="Run a file of requests, and get a file of results.")
    batches.add_to(group)
    group.command("status")(_status)
    group.command("watch")(_watch)
    group.command("pause")(_pause)
    group.command("resume")(_resume)
    group.command("cancel")(_cancel)
    group.command("results")(_results)
    group.command("retry-failed")(_retry_failed)
    batch_listing.add_to(group)
    batch_erasing.add_to(group)
    app.add_typer(group, name="batch")


def _status(batch: _Batch, json: Json = False) -> None:
    """Show where a batch stands. Needs no worker."""

    async def work(client: "Runlane", ledger: "Ledger", known: "Batches") -> int:
        _show(await _look(client, ledger, await known.find(batch)))
        return int(ExitCode.DONE)

    batch_watching.perform(work)


def _watch(
    batch: _Batch,
    output_file: Output = None,
    errors: Errors = None,
    ordered: Ordered = False,
    wait_for_people: WaitForPeople = False,
    json: Json = False,
) -> None:
    """Watch a batch until it has ended, and bring its results. Exit codes as `batch run`."""
    files = Files(output_file, errors, ordered)
    files.check()

    async def work(client: "Runlane", ledger: "Ledger", known: "Batches") -> int:
        found = await known.find(batch)
        return await batch_watching.watched(
            client, ledger, found, files, wait_for_people=wait_for_people
        )

    batch_watching.perform(work)


def _pause(
    batch: _Batch,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Shown wherever the batch is.")
    ] = "paused by hand",
    json: Json = False,
) -> None:
    """Let nothing of a batch begin any more. What has begun goes on to its end."""

    async def work(client: "Runlane", ledger: "Ledger", known: "Batches") -> int:
        from runlane.batches import steering  # noqa: PLC0415
        from runlane.person import person  # noqa: PLC0415

        found = await known.find(batch)
        found = await steering.pause(known, found, reason, person(client.settings))
        _show(await _look(client, ledger, found))
        return int(ExitCode.DONE)

    batch_watching.perform(work)


def _resume(
    batch: _Batch,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", metavar="N", help="A new budget, with what is used already."),
    ] = None,
    max_cost: Annotated[
        str | None,
        typer.Option("--max-cost", metavar="AMOUNT", help="Likewise, of what the tokens cost."),
    ] = None,
    json: Json = False,
) -> None:
    """Let a batch go on, whatever it was paused for."""

    async def work(client: "Runlane", ledger: "Ledger", known: "Batches") -> int:
        from runlane.batches import steering  # noqa: PLC0415
        from runlane.batches.estimating import read_amount  # noqa: PLC0415
        from runlane.person import person  # noqa: PLC0415

        cost = None if max_cost is None else read_amount(max_cost, "--max-cost")
        found = await known.find(batch)
        by = person(client.settings)
        found = await steering.resume(known, found, by, token_limit=max_tokens, cost_limit=cost)
        _show(await _look(client, ledger, found))
        return int(ExitCode.DONE)

    batch_watching.perform(work)


def _cancel(batch: _Batch, json: Json = False) -> None:
    """Begin nothing more of a batch, and cancel what has begun. It can't be taken back."""

    async def work(client: "Runlane", ledger: "Ledger", known: "Batches") -> int:
        from runlane.batches import steering  # noqa: PLC0415
        from runlane.person import person  # noqa: PLC0415

        found = await steering.cancel(known, await known.find(batch), person(client.settings))
        _show(await _look(client, ledger, found))
        if not found.status.is_end:
            output.note(f"See its end:  runlane batch watch {output.word(found.name)}")
        return int(ExitCode.DONE)

    batch_watching.perform(work)


def _results(
    batch: _Batch,
    output_file: Output = None,
    errors: Errors = None,
    ordered: Ordered = False,
    json: Json = False,
) -> None:
    """Write the results that there are by now: to a file, or to standard output."""
    files = Files(output_file, errors, ordered)
    if output_file is None and (json or errors is not None):
        option = "--json" if json else "--errors"
        raise InvalidRequest(f"{option} needs --output FILE.", param=option)
    if output_file is not None:
        files.check()

    async def work(client: "Runlane", ledger: "Ledger", known: "Batches") -> int:
        found = await known.find(batch)
        results = files.open(ledger, found)
        if results is None:
            await _print_results(ledger, found, in_order=ordered)
            return int(ExitCode.DONE)
        try:
            await (results.write_in_order() if ordered else results.follow())
        finally:
            results.close()
        standing = await _look(client, ledger, found)
        _show(standing)
        output.note(f"Results are in {output.safe(str(output_file))}")
        return int(ExitCode.DONE)

    batch_watching.perform(work)


def _retry_failed(
    batch: _Batch,
    deadline: Annotated[
        str | None,
        typer.Option("--deadline", metavar="06:00", help="Of a batch that had ended: a new one."),
    ] = None,
    timezone: Annotated[
        str | None, typer.Option("--timezone", metavar="Z", help="Of --deadline: Europe/Berlin.")
    ] = None,
    json: Json = False,
) -> None:
    """Try again what has failed or expired. What is uncertain stays so: it may have run."""

    async def work(client: "Runlane", ledger: "Ledger", known: "Batches") -> int:
        from datetime import UTC, datetime  # noqa: PLC0415

        from runlane.batches import deadlines, steering  # noqa: PLC0415
        from runlane.person import person  # noqa: PLC0415

        if timezone is not None and deadline is None:
            text = "--timezone is of --deadline, which is missing."
            raise InvalidRequest(text, param="--timezone")
        now = datetime.now(UTC)
        until = None if deadline is None else deadlines.read(deadline, timezone, now)
        found, by = await known.find(batch), person(client.settings)
        count = await steering.retry_failed(known, found, by, deadline=until)
        _show(await _look(client, ledger, await known.find(found.id)))
        if count:
            output.note(f"Trying {output.counted(count, 'item')} again. See them to their end:")
            output.note(f"  runlane batch watch {output.word(found.name)}")
        else:
            output.note("Nothing of it has failed or expired that could be tried again.")
        return int(ExitCode.DONE)

    batch_watching.perform(work)


async def _look(client: "Runlane", ledger: "Ledger", batch: "BatchRecord") -> "Standing":
    # Deferred: it brings Temporal's client, which `--help` does without.
    from runlane.cli.batch_standing import look  # noqa: PLC0415

    return await look(client, ledger, batch)


def _show(standing: "Standing") -> None:
    if session.wants_json():
        from runlane.batches import presenting  # noqa: PLC0415

        output.document(presenting.document(standing.batch, standing.counts))
    else:
        batch_watching.tell(standing)


async def _print_results(ledger: "Ledger", batch: "BatchRecord", *, in_order: bool) -> None:
    import sys  # noqa: PLC0415

    from runlane.batches.outputs import encoded  # noqa: PLC0415
    from runlane.batches.results import PAGE  # noqa: PLC0415

    items, seq, index = ledger.batch_items, 0, -1
    while page := await (
        items.ordered(batch.id, index, PAGE) if in_order else items.results(batch.id, seq, PAGE)
    ):
        seq, index = page[-1].seq or 0, page[-1].index
        sys.stdout.buffer.write(b"".join(encoded(item) for item in page))
    sys.stdout.buffer.flush()
