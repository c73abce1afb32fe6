"""Commands on batches: many runs from one file."""

# ruff: noqa: FBT002, PLR0917 - typer reads a command's options from its parameters

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from runlane.cli import STARTED, batch_checks, output, session, tools
from runlane.cli.options import Json
from runlane.errors import ExitCode, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ledger import Ledger
    from ledger.batch_record import BatchRecord
    from runlane.batches.checking import Added, Totals
    from runlane.batches.lines import InputFile
    from runlane.batches.results import Results
    from runlane.batches.running import Batches, Wanted
    from runlane.cli.batch_progress import Standing
    from runlane.orchestrator import Runlane

_Input: TypeAlias = Annotated[
    Path, typer.Argument(metavar="INPUT", help="Requests, one a line: .jsonl or .jsonl.gz.")
]
Output: TypeAlias = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="For the results, one line an item."),
]
Errors: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--errors", metavar="FILE", help="For what failed. Default: OUTPUT's name, .errors.jsonl"
    ),
]
Ordered: TypeAlias = Annotated[
    bool, typer.Option("--ordered", help="At the end, in the input's order.")
]
WaitForPeople: TypeAlias = Annotated[
    bool, typer.Option("--wait-for-people", help="Go on while only people's items are left.")
]


def add_to(batches: typer.Typer) -> None:
    """Give the command its name."""
    batches.command("run")(_run)


@dataclass(frozen=True)
class Files:
    """Where results go."""

    output: Path | None
    errors: Path | None
    ordered: bool

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            InvalidRequest: an option needs `--output`.
        """
        if self.output is None:
            for given, option in ((self.errors, "--errors"), (self.ordered, "--ordered")):
                if given:
                    raise InvalidRequest(f"{option} needs --output FILE.", param=option)

    def open(self, ledger: "Ledger", batch: "BatchRecord") -> "Results | None":
        """Open the files; None where no results are wanted.

        Raises:
            ResultsLost: one of them can't be used.
        """
        from runlane.batches.results import Results, errors_path  # noqa: PLC0415

        if self.output is None:
            return None
        return Results(ledger, batch.id, self.output, self.errors or errors_path(self.output))


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

    Exit codes: 0 all completed, or finished before; 3 some failed; 4 only people's items are left.
    """
    files = Files(output_file, errors, ordered)
    files.check()
    with output.unless_quick("Loading …", since=STARTED):
        from runlane.batches.estimating import Prices  # noqa: PLC0415

        priced = None if prices is None else Prices.read(prices, "--price-per-million-tokens")
        wanted = _wanted(
            name or source.name,
            {
                "rpm": rpm,
                "tpm": tpm,
                "tries": tries,
                "prices": None if priced is None else str(priced),
                "with_tools": with_tools or None,
            },
            max_in_flight=max_in_flight,
            token_limit=max_tokens,
            deadline=deadline,
            timezone=timezone,
        )
    added = None
    if with_tools:
        registry = tools.registered()
        tools.warn(registry)
        added = registry.added_to
    bad_lines = problems or Path(f"{source.name}.problems.jsonl")
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
        perform(work.begun if detach else work.done)


def _wanted(
    name: str,
    options: dict[str, Any],
    *,
    max_in_flight: int,
    token_limit: int | None,
    deadline: str | None,
    timezone: str | None,
) -> "Wanted":
    from runlane.batches import deadlines  # noqa: PLC0415
    from runlane.batches.running import Wanted  # noqa: PLC0415
    from runlane.person import person  # noqa: PLC0415
    from runlane.settings import Settings  # noqa: PLC0415

    for option, value in (("--rpm", options["rpm"]), ("--tpm", options["tpm"])):
        if value is not None and not 0 < value < float("inf"):
            raise InvalidRequest(f"{option} must be above 0, got {value:g}.", param=option)
    if not 1 <= options["tries"] <= _MOST_TRIES:
        text = f"--tries must be between 1 and {_MOST_TRIES}, got {options['tries']}."
        raise InvalidRequest(text, param="--tries")
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
        max_in_flight=max_in_flight,
    )
    wanted.check()
    return wanted


_MOST_TRIES = 100


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
            output.note(f"See  runlane batch watch {output.word(batch.name)}")
        return int(ExitCode.DONE)

    async def done(self, client: "Runlane", ledger: "Ledger", batches: "Batches") -> int:
        """Run the batch to its end, and bring its results."""
        batch, finished_before = await self._begin(client, ledger, batches)
        code = await watched(
            client, ledger, batch, self.files, wait_for_people=self.wait_for_people
        )
        return int(ExitCode.DONE) if finished_before else code

    async def _begin(
        self, client: "Runlane", ledger: "Ledger", batches: "Batches"
    ) -> "tuple[BatchRecord, bool]":
        from ledger.batch_record import BatchStatus  # noqa: PLC0415
        from runlane.person import person  # noqa: PLC0415

        planned = await batches.plan(self.wanted, self.totals, again=self.again)
        # Before anything is begun: a place that can't be written is found out now.
        opened = self.files.open(ledger, planned)
        if opened is not None:
            opened.close()
        batch = await batches.create(planned, person(client.settings))
        name = output.safe(batch.name)
        if batch.status.is_end:
            output.note(f"{name} has ended already: {batch.status.value}. Do it again:  --again")
            return batch, True
        if batch.status is BatchStatus.VALIDATING:
            with batch_checks.ReadingBar(self.source, "Storing") as bar:
                await batches.upload(batch, self.source, self.totals, bar.move, self.added)
        else:
            output.note(f"Going on with {name}, begun {output.moment(_at(batch))}.")
        await batches.start(batch)
        return batch, False


def _at(batch: "BatchRecord") -> float:
    return batch.created_at.timestamp()


def perform(work: "Callable[[Runlane, Ledger, Batches], Awaitable[int]]") -> None:
    """Connect to Temporal and to the workers' ledger, do the work, and end with its exit code."""
    with output.unless_quick("Connecting …") as connecting:

        async def connected(client: "Runlane") -> int:
            from runlane.batches.running import Batches  # noqa: PLC0415
            from runlane.client_ledger import ClientLedger  # noqa: PLC0415

            place = ClientLedger(client.settings, client.temporal)
            await place.check_there()
            async with place.opened() as ledger:
                connecting.cancel()
                batches = Batches(client.temporal, client.settings.task_queue, ledger)
                return await work(client, ledger, batches)

        session.perform(connected)


async def watched(
    client: "Runlane",
    ledger: "Ledger",
    batch: "BatchRecord",
    files: Files,
    *,
    wait_for_people: bool,
) -> int:
    """Watch a batch, bring its results, tell how it stands at the end; return the exit code."""
    from runlane.cli import batch_progress  # noqa: PLC0415

    session.follow(output.word(batch.name), "batch watch")
    results = files.open(ledger, batch)
    missing = _MissingWorker(client)
    try:
        standing = await batch_progress.follow(
            ledger,
            batch,
            None if files.ordered else results,
            wait_for_people=wait_for_people,
            missing_worker=missing.look,
        )
        if results is not None and files.ordered:
            output.note("Writing the results in the input's order.")
            await results.write_in_order()
    finally:
        if results is not None:
            results.close()
    _tell_end(standing, files)
    return int(batch_progress.exit_code(standing))


def _tell_end(standing: "Standing", files: Files) -> None:
    from runlane.batches import presenting  # noqa: PLC0415

    if session.wants_json():
        output.document(presenting.document(standing.batch, standing.counts))
    else:
        tell(standing)
    if files.output is not None:
        output.note(f"Results are in {output.safe(str(files.output))}")
    batch = output.word(standing.batch.name)
    if standing.only_people_left:
        output.note("Only items that wait for people are left. For decisions, and for answers:")
        output.note("  runlane approval list")
        output.note("  runlane list --status requires_action")
        output.note(f"See them to their end:  runlane batch watch {batch} --wait-for-people")
    elif standing.can_be_retried:
        output.note(f"Try what failed again:  runlane batch retry-failed {batch}")


def tell(standing: "Standing") -> None:
    """Print where a batch stands, in a few lines."""
    from ledger.batch_item import ItemState  # noqa: PLC0415
    from runlane.batches import presenting  # noqa: PLC0415

    batch, counts = standing.batch, standing.counts
    output.say_parts(
        (output.safe(batch.name), "bold"),
        ("  ", None),
        (batch.status.value, output.style_of(batch.status.value)),
    )
    rows = [("items", f"{standing.ended:,} of {batch.total:,} have ended")]
    states = [
        f"{count:,} {_STATES[state.value]}" for state, count in counts.by_state.items() if count
    ]
    rows.append(("", ", ".join(states) or "none yet"))
    failures, paused = standing.failures(), standing.paused()
    if failures is not None:
        rows.append(("", failures))
    if paused is not None:
        rows.append(("paused", paused.removeprefix("paused ")))
    if batch.deadline is not None:
        rows.append(("deadline", output.moment(batch.deadline.timestamp())))
    usage = counts.usage
    read, wrote = f"{usage.prompt_tokens:,} read", f"{usage.completion_tokens:,} written"
    rows.append(("tokens", f"{usage.total_tokens:,} ({read}, {wrote})"))
    money = presenting.money(batch, counts)
    if money is not None:
        rows.append(("cost", f"{money:,.2f}"))
    if batch.ended_at is not None and batch.started_at is not None:
        took = (batch.ended_at - batch.started_at).total_seconds()
        rows.append(("took", _took(took, counts.by_state[ItemState.COMPLETED])))
    output.fields(rows)
    output.fields([("id", batch.id)])


_STATES = {
    "waiting": "waiting",
    "begun": "in flight",
    "promoted": "with people",
    "completed": "completed",
    "failed": "failed",
    "uncertain": "uncertain",
    "expired": "expired",
    "cancelled": "cancelled",
}


def _took(seconds: float, completed: int) -> str:
    from runlane.cli.batch_progress import clock  # noqa: PLC0415

    rate = f", {completed / seconds:,.1f} items a second" if seconds >= 1 and completed else ""
    return f"{clock(seconds)}{rate}"


class _MissingWorker:
    """Says once that nobody is there to drive the items, and again when somebody is."""

    def __init__(self, client: "Runlane") -> None:
        self._client = client
        self._looks = 0
        self._missed = False

    async def look(self) -> None:
        """Look at every fifth call: Temporal is asked."""
        from runlane import workers  # noqa: PLC0415

        self._looks += 1
        if self._looks % 5 != 2:
            return
        queue = self._client.settings.task_queue
        seen = await workers.last_seen(self._client.temporal, queue)
        if seen is None and not self._missed:
            text = f"No worker is on queue {output.safe(queue)} yet. Start one:  runlane worker"
            output.note(text)
        elif seen is not None and self._missed:
            output.note("A worker answers.")
        self._missed = seen is None
