"""Commands on batches: many runs from one file."""

# ruff: noqa: FBT002, PLR0917 - typer reads a command's options from its parameters

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from runlane.batches import places
from runlane.cli import batch_checks, batch_watching, output, session, tools
from runlane.cli.batch_watching import Errors, Files, MaxCost, Ordered, Output, WaitForPeople
from runlane.cli.options import Json
from runlane.cli.reading_bar import ReadingBar
from runlane.errors import ExitCode, InvalidRequest

if TYPE_CHECKING:
    from decimal import Decimal

    from ledger import Ledger
    from ledger.batch_record import BatchRecord
    from runlane.batches.checked_line import Added
    from runlane.batches.checking import Totals
    from runlane.batches.lines import InputFile
    from runlane.batches.running import Batches
    from runlane.batches.wanted import Wanted
    from runlane.orchestrator import Runlane

_Input: TypeAlias = Annotated[
    Path, typer.Argument(metavar="INPUT", help="Requests, one a line: .jsonl or .jsonl.gz.")
]


def add_to(batches: typer.Typer) -> None:
    """Give the command its name."""
    batches.command("run")(_run)


def _run(
    source: _Input,
    output_file: Output = None,
    errors: Errors = None,
    ordered: Ordered = False,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="To know it by. Default: INPUT's name."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Where it has ended, do the whole of it again.")
    ] = False,
    max_in_flight: Annotated[
        int, typer.Option("--max-in-flight", metavar="N", help="Items at a time, but for people's.")
    ] = 64,
    rpm: Annotated[
        float | None, typer.Option("--rpm", metavar="N", help="Requests a minute, of all workers.")
    ] = None,
    tpm: Annotated[
        float | None, typer.Option("--tpm", metavar="N", help="Tokens a minute, of all workers.")
    ] = None,
    tries: Annotated[
        int, typer.Option("--tries", metavar="N", help="Of an item, before it has failed.")
    ] = 3,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", metavar="N", help="Pause once so many tokens are used."),
    ] = None,
    max_cost: MaxCost = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            "--deadline", metavar="06:00", help="Begin nothing after it; the rest is expired."
        ),
    ] = None,
    timezone: Annotated[
        str | None, typer.Option("--timezone", metavar="Z", help="Of --deadline: Europe/Berlin.")
    ] = None,
    with_tools: Annotated[
        bool,
        typer.Option("--with-tools", help="Hand each run the tools that are registered here."),
    ] = False,
    with_messages: Annotated[
        bool,
        typer.Option("--with-messages", help="In the results: what was said in each run."),
    ] = False,
    wait_for_people: WaitForPeople = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once it has begun; it goes on.")
    ] = False,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Go on without the lines that can't be used.")
    ] = False,
    problems: Annotated[
        Path | None,
        typer.Option(
            "--problems", metavar="FILE", help="For bad lines. Default: INPUT.problems.jsonl"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and estimate; nothing is sent.")
    ] = False,
    prices: Annotated[
        str | None,
        typer.Option(
            "--price-per-million-tokens",
            metavar="IN,OUT",
            help="What tokens cost that are read, and written.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Run every request of a file. The same command goes on where it was.

    Exit codes: 0 all completed, or finished before; 1 results can't be written; 2 bad input,
    nothing was sent; 3 some failed, or it expired or was cancelled; 4 only people's items are left.
    """
    files = Files(output_file, errors, ordered)
    files.check()
    bad_lines = problems or Path(f"{source.name}.problems.jsonl")
    places.check(
        {
            places.INPUT: source,
            "--problems": bad_lines,
            "--output": files.output,
            "--errors": files.place_of_errors,
        }
    )
    # Before anything is loaded, which takes a while.
    output.note(f"Checking {output.safe(str(source))} …")
    from runlane.batches.estimating import read_amount, read_prices  # noqa: PLC0415

    priced = None if prices is None else read_prices(prices, "--price-per-million-tokens")
    wanted = _wanted(
        # `.` has none, and can't be read.
        name or source.name or str(source),
        {
            "rpm": rpm,
            "tpm": tpm,
            "tries": tries,
            "prices": None if priced is None else str(priced),
            "with_tools": with_tools or None,
            "with_messages": with_messages or None,
        },
        max_in_flight=max_in_flight,
        token_limit=max_tokens,
        cost_limit=None if max_cost is None else read_amount(max_cost, "--max-cost"),
        deadline=deadline,
        timezone=timezone,
    )
    added = None
    if with_tools:
        registry = tools.registered()
        tools.warn(registry)
        added = registry.added_to
    with batch_checks.opened(source) as file:
        totals, estimate = batch_checks.check(
            file, bad_lines, skip_invalid=skip_invalid, added=added
        )
        if dry_run:
            batch_checks.show_estimate(source, totals, estimate, priced)
            return
        work = _Work(
            *(file, totals, wanted, files, added), again=again, wait_for_people=wait_for_people
        )
        batch_watching.perform(work.begun if detach else work.done)


def _wanted(
    name: str,
    options: dict[str, Any],
    *,
    max_in_flight: int,
    token_limit: int | None,
    cost_limit: "Decimal | None",
    deadline: str | None,
    timezone: str | None,
) -> "Wanted":
    from runlane.batches import deadlines  # noqa: PLC0415
    from runlane.batches.wanted import Wanted  # noqa: PLC0415
    from runlane.person import person  # noqa: PLC0415
    from runlane.settings import Settings  # noqa: PLC0415

    if timezone is not None and deadline is None:
        raise InvalidRequest("--timezone is of --deadline, which is missing.", param="--timezone")
    until = None if deadline is None else deadlines.read(deadline, timezone, datetime.now(UTC))
    wanted = Wanted(
        name=name,
        options={
            **{key: value for key, value in options.items() if value is not None},
            "requested_by": person(Settings.from_env()),
        },
        deadline=until,
        token_limit=token_limit,
        cost_limit=cost_limit,
        max_in_flight=max_in_flight,
    )
    wanted.check()
    return wanted


@dataclass(frozen=True)
class _Work:
    """One call of `batch run`, once its input is checked."""

    source: "InputFile"
    totals: "Totals"
    wanted: "Wanted"
    files: Files
    added: "Added | None"
    again: bool
    wait_for_people: bool

    async def begun(self, client: "Runlane", ledger: "Ledger", batches: "Batches") -> int:
        """See that the batch runs; return."""
        from runlane.batches import presenting  # noqa: PLC0415

        batch, _ = await self._begin(client, ledger, batches)
        if session.wants_json():
            output.document(presenting.document(batch, await ledger.batches.counts(batch.id)))
        else:
            output.say(f"{batch.id}  {batch.status.value}")
            output.note(f"See  runlane batch watch {output.word(batch.name)}{self.files.words}")
        return int(ExitCode.DONE)

    async def done(self, client: "Runlane", ledger: "Ledger", batches: "Batches") -> int:
        """Run the batch to its end, and bring its results."""
        batch, finished_before = await self._begin(client, ledger, batches)
        code = await batch_watching.watched(
            client, ledger, batch, self.files, wait_for_people=self.wait_for_people
        )
        return int(ExitCode.DONE) if finished_before else code

    async def _begin(
        self, client: "Runlane", ledger: "Ledger", batches: "Batches"
    ) -> "tuple[BatchRecord, bool]":
        from ledger.batch_record import BatchStatus  # noqa: PLC0415
        from runlane.batches.uploading import upload  # noqa: PLC0415
        from runlane.person import person  # noqa: PLC0415

        planned = await batches.plan(self.wanted, self.totals, again=self.again)
        # Before anything is begun: a place that can't be written is found out now.
        opened = self.files.open(ledger, planned)
        if opened is not None:
            try:
                await opened.check_known()
            finally:
                opened.close()
        batch = await batches.create(planned, person(client.settings))
        name = output.safe(batch.name)
        if batch.status.is_end:
            output.note(f"{name} has ended already: {batch.status.value}. Do it again:  --again")
            return batch, True
        if batch.status is BatchStatus.VALIDATING:
            with ReadingBar(self.source, "Storing") as bar:
                await upload(ledger, batch, self.source, self.totals, bar.move, added=self.added)
        else:
            output.note(f"Going on with {name}, begun {output.moment(_at(batch))}.")
        without = self.wanted.unlike(batch)
        if without:
            told = ", ".join(without)
            output.note(f"It stays as it was begun; given now, of no use: {told}.")
        await batches.start(batch)
        return batch, False


def _at(batch: "BatchRecord") -> float:
    return batch.created_at.timestamp()
