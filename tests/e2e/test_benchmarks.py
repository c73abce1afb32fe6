"""`make bench` in its quick version: every subject still measures what it is there to measure."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import SUBJECTS
from benchmarks.figures import BatchRow

ROOT = Path(__file__).parents[2]
ROWS_OF = {"latency": {"latency", "GETs"}}


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_every_subject_yields_figures(tmp_path: Path) -> None:
    """The whole program runs on real parts, tells how it gets on, and writes every subject."""
    file = tmp_path / "figures.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks", "--quick", "--json", str(file)),
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith(("RUNLANE_", "TEMPORAL_"))},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, told = await asyncio.wait_for(process.communicate(), 560)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert process.returncode == 0, told.decode()[-3000:]
    rows = json.loads(file.read_text())["rows"]
    wanted = set().union(*(ROWS_OF.get(name, {name}) for name in SUBJECTS))
    assert wanted == {row["subject"] for row in rows}
    assert all(row["runlane"] > 0 for row in rows)
    ways = {row["what"]: row for row in rows if row["subject"] == "batches"}
    rates = ways["rate, 10 at a time"]
    assert all(rates[way] > 0 for way in BatchRow.WAYS)
    each = ways["history"]
    # A batch's history doesn't grow with its items, of which there are few here.
    assert each["runlane"] < each["run_each"]
    (events, *_) = [row for row in rows if row["unit"] == "events"]
    # Nothing about time holds on a busy machine, but a run costs what it costs.
    assert 30 < events["runlane"] < events["workflow"] * 2
    assert b"the figures say nothing" in out
    assert b"Memory: until" in told
