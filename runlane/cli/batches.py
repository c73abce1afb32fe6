"""Commands on batches: many runs from one file."""

# ruff: noqa: FBT002, PLR0917 - typer reads a command's options from its parameters

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from runlane.cli import batch_checks
from runlane.cli.options import Json

_Input: TypeAlias = Annotated[
    Path, typer.Argument(metavar="INPUT", help="Requests, one a line: .jsonl or .jsonl.gz.")
]


def add_to(app: typer.Typer) -> None:
    """Give the commands their names."""
    batches = typer.Typer(help="Run a file of requests, and get a file of results.")
    batches.command("run")(_run)
    app.add_typer(batches, name="batch")


def _run(
    source: _Input,
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
            help="With --dry-run, for an estimate of the money.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Run every request of a file. The same command goes on where it was."""
    priced = None
    if prices is not None:
        from runlane.batches.estimating import Prices  # noqa: PLC0415

        priced = Prices.read(prices, "--price-per-million-tokens")
    bad_lines = problems or Path(f"{source.name}.problems.jsonl")
    with batch_checks.opened(source) as file:
        totals, estimate = batch_checks.check(file, bad_lines, skip_invalid=skip_invalid)
        if dry_run:
            batch_checks.show_estimate(source, totals, estimate, priced)
            return
