"""`make bench`: measure, print the table, and exit 1 where a target was missed."""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

from benchmarks import (
    api,
    batch_memory,
    batches,
    decisions,
    figures,
    history,
    latency,
    memory,
    submit,
    throughput,
    week,
)
from benchmarks.parts import Site
from benchmarks.progress import Progress


class Measure(Protocol):
    """A subject's measurement."""

    def __call__(self, site: Site, *, quick: bool) -> Coroutine[Any, Any, Sequence[figures.Figure]]:
        """Measure and return the figures."""


SUBJECTS: dict[str, Measure] = {
    "history": history.measure,
    "throughput": throughput.measure,
    "latency": latency.measure,
    "submit": submit.measure,
    "decisions": decisions.measure,
    "api": api.measure,
    "batches": batches.measure,
    "batch-memory": batch_memory.measure,
    "memory": memory.measure,
    "week": week.measure,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for; return 1 where a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=", ".join(SUBJECTS))
    parser.add_argument(
        "--quick", action="store_true", help="see whether it runs; no target counts"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args(argv)
    unknown = [name for name in options.subjects if name not in SUBJECTS]
    if unknown:
        parser.error(f"no subject {', '.join(unknown)}; there are {', '.join(SUBJECTS)}")
    # The server that skips time lacks what the SDK would warn of in the middle of the lines.
    quiet = LoggingConfig(TelemetryFilter(core_level="ERROR", other_level="ERROR"))
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=quiet)))
    rows = asyncio.run(_measure(options.subjects or list(SUBJECTS), quick=options.quick))
    if options.quick:
        rows = [replace(row, target=None) for row in rows]
    return conclude(rows, _facts(quick=options.quick), options.json)


def conclude(rows: Sequence[figures.Figure], facts: dict[str, Any], file: Path | None) -> int:
    """Print the table, write the file if one is asked for, and return the exit code."""
    title = "{date}, {processors} processors ({machine}), Runlane {runlane}".format(**facts)
    console = Console(width=None if sys.stdout.isatty() else figures.WIDTH)
    for table in figures.tables(rows, title):
        console.print(table)
    if file is not None:
        file.write_text(json.dumps(figures.as_json(rows, facts), indent=1) + "\n")
    if facts["quick"]:
        console.print("A quick look at whether everything runs: the figures say nothing.")
        return 0
    if figures.all_reached(rows):
        return 0
    console.print("A target was missed.")
    return 1


async def _measure(subjects: Sequence[str], *, quick: bool) -> list[figures.Figure]:
    rows: list[figures.Figure] = []
    with tempfile.TemporaryDirectory(prefix="runlane-bench-") as directory:
        async with Site(Path(directory), Progress()) as site:
            measuring = [SUBJECTS[name](site, quick=quick) for name in subjects]
            if quick:
                # Side by side they would spoil each other's figures, if there were any.
                return [row for rows in await asyncio.gather(*measuring) for row in rows]
            for measured in measuring:
                rows += await measured
    return rows


def _facts(*, quick: bool) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}",
        "processors": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "runlane": version("runlane"),
        "temporalio": version("temporalio"),
        "quick": quick,
    }


if __name__ == "__main__":
    sys.exit(main())
