"""Watching a batch and bringing its results: what `run` and the commands beside it share."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from runlane.batches import places
from runlane.cli import batch_pauses, output, session
from runlane.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ledger import Ledger
    from ledger.batch_record import BatchRecord
    from runlane.batches.results import Results
    from runlane.batches.running import Batches
    from runlane.cli.batch_standing import Standing
    from runlane.orchestrator import Runlane

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
MaxCost: TypeAlias = Annotated[
    str | None,
    typer.Option("--max-cost", metavar="AMOUNT", help="Pause once the tokens have cost so much."),
]
Ordered: TypeAlias = Annotated[
    bool, typer.Option("--ordered", help="At the end, in the input's order.")
]
WaitForPeople: TypeAlias = Annotated[
    bool, typer.Option("--wait-for-people", help="Go on while only people's items are left.")
]


@dataclass(frozen=True)
class Files:
    """Where results go."""

    output: Path | None
    errors: Path | None
    ordered: bool

    @property
    def place_of_errors(self) -> Path | None:
        """Where what failed goes; None where no results are wanted."""
        return self.errors or (None if self.output is None else places.errors_path(self.output))

    @property
    def words(self) -> str:
        """The options by which another command brings the same files, each after a blank."""
        given = (("-o", self.output), ("--errors", self.errors))
        named = [f" {option} {output.word(str(path))}" for option, path in given if path]
        return "".join([*named, " --ordered" if self.ordered else ""])

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            InvalidRequest: an option needs `--output`, or a file can't lie where it is to.
        """
        if self.output is None:
            for given, option in ((self.errors, "--errors"), (self.ordered, "--ordered")):
                if given:
                    raise InvalidRequest(f"{option} needs --output FILE.", param=option)
        places.check({"--output": self.output, "--errors": self.place_of_errors})

    def open(self, ledger: "Ledger", batch: "BatchRecord") -> "Results | None":
        """Open the files; None where no results are wanted.

        Raises:
            ResultsLost: one of them can't be used.
        """
        from runlane.batches.results import Results  # noqa: PLC0415

        if self.output is None or self.place_of_errors is None:
            return None
        return Results(ledger, batch.id, self.output, self.place_of_errors)


def perform(work: "Callable[[Runlane, Ledger, Batches], Awaitable[int]]") -> None:
    """Connect to Temporal and to the workers' ledger, do the work, and end with its exit code."""
    with ExitStack() as connecting:
        connecting.enter_context(output.waiting("Connecting …"))

        async def connected(client: "Runlane") -> int:
            from runlane.batches.running import Batches  # noqa: PLC0415
            from runlane.client_ledger import ClientLedger  # noqa: PLC0415

            place = ClientLedger(client.settings, client.temporal)
            await place.check_there()
            async with place.opened() as ledger:
                connecting.close()
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
    from runlane.batches import people  # noqa: PLC0415
    from runlane.cli import batch_progress, batch_standing  # noqa: PLC0415

    session.follow(output.word(batch.name), "batch watch", files.words)
    results = files.open(ledger, batch)
    missing = _MissingWorker(client)
    try:
        standing = await batch_progress.follow(
            ledger,
            batch,
            None if files.ordered else results,
            wait_for_people=wait_for_people,
            with_people=lambda counts: people.waiting(client.temporal, ledger, batch.id, counts),
            missing_worker=missing.look,
        )
        if results is not None and files.ordered:
            output.note("Writing the results in the input's order.")
            await results.write_in_order()
    finally:
        if results is not None:
            results.close()
    _tell_end(standing, files)
    return int(batch_standing.exit_code(standing))


def _tell_end(standing: "Standing", files: Files) -> None:
    from runlane.batches import presenting  # noqa: PLC0415

    if session.wants_json():
        output.document(presenting.document(standing.batch, standing.counts))
    else:
        tell(standing)
    if files.output is not None:
        output.note(f"Results are in {output.safe(str(files.output))}")
    batch = output.word(standing.batch.name)
    if files.output is None and standing.ended:
        output.note(f"Its results:  runlane batch results {batch} -o FILE")
    if standing.only_people_left:
        output.note("Only items that wait for people are left. For decisions, and for answers:")
        output.note("  runlane approval list")
        output.note("  runlane list --status requires_action")
        watch = f"runlane batch watch {batch}{files.words} --wait-for-people"
        output.note(f"See them to their end:  {watch}")
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
    cost = presenting.cost(batch, counts)
    if cost is not None:
        rows.append(("cost", cost))
    if batch.ended_at is not None and batch.started_at is not None:
        took = (batch.ended_at - batch.started_at).total_seconds()
        rows.append(("took", _took(took, counts.by_state[ItemState.COMPLETED])))
    output.fields(rows)
    output.fields([("id", batch.id)])
    for line in batch_pauses.ways_on(batch):
        output.note(line)


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
    from runlane.cli.batch_standing import clock  # noqa: PLC0415

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
