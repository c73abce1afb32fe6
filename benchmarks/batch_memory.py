"""What the command and the worker of a batch need, be it small or large."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from benchmarks.contenders import write_input
from benchmarks.figures import Row
from benchmarks.items import ROUND
from benchmarks.parts import RunlaneWorker, Site
from ledger import Ledger
from ledger.batch_record import batch_id
from runlane.batches import steering
from runlane.batches.presenting import ended
from runlane.batches.running import Batches
from runlane.ledger_access import open_ledger

_SUBJECT = "batch-memory"
_AT_A_TIME = 256
_MEGABYTE = 1_000_000
_LOOK_SECONDS = 0.2
_LONGEST = timedelta(minutes=15)


@dataclass(frozen=True)
class _Plan:
    items: int
    run: int
    """So many end by themselves at least. The rest is cancelled, and has its lines all the same."""


async def measure(site: Site, *, quick: bool) -> list[Row]:
    """Return the highest resident memory of both, by a small batch and by a large one."""
    plans = (_Plan(1_000, 1_000), _Plan(100_000, 5_000))
    if quick:
        plans = (_Plan(10, 10), _Plan(200, 20))
    assistant_id = await site.upstream.assistant(rounds=[ROUND])
    rows: list[Row] = []
    async with await open_ledger(site.runlane.client.settings, site.client) as ledger:
        for plan in plans:
            async with site.runlane_worker() as worker:
                rows += await _batch(site, worker, ledger, assistant_id, plan)
    return rows


async def _batch(
    site: Site, worker: RunlaneWorker, ledger: Ledger, assistant_id: str, plan: _Plan
) -> list[Row]:
    site.progress.say(f"Memory of a batch: {plan.items:,} items, of which {plan.run:,} are run")
    source = await asyncio.to_thread(write_input, site.data_dir, assistant_id, plan.items)
    results = Path(f"{source}.out")
    words = ("-o", str(results), "--max-in-flight", str(_AT_A_TIME), "--json")
    command = site.command("batch run", worker, "batch", "run", str(source), *words)
    at_start = _highest(worker.pid)
    stopping = asyncio.create_task(_stop(worker, ledger, source, plan))
    with site.progress.watching(lambda: "still at it"):
        running = asyncio.create_task(command.start(_LONGEST))
        most = 0.0
        while not (await asyncio.wait({running}, timeout=_LOOK_SECONDS))[0]:
            if command.is_running:
                most = max(most, _highest(command.pid))
        document = await running
        await command.wait()
    await stopping
    assert document["request_counts"]["total"] == plan.items, document
    assert await asyncio.to_thread(_lines, results) == plan.items
    run = document["runlane"]["items"]["completed"]
    what = f"{plan.items:,} items, {run:,} of them run"
    return [
        Row(subject=_SUBJECT, what=f"the command, {what}", unit="MB", runlane=most),
        Row(subject=_SUBJECT, what=f"the worker, {what}", unit="MB", runlane=_highest(worker.pid)),
        Row(subject=_SUBJECT, what="the worker, before them", unit="MB", runlane=at_start),
    ]


async def _stop(worker: RunlaneWorker, ledger: Ledger, source: Path, plan: _Plan) -> None:
    """Cancel the batch once enough of it has run."""
    while True:
        batch = await ledger.batches.find(batch_id("", source.name))
        if batch is not None and ended(await ledger.batches.counts(batch.id)) >= plan.run:
            break
        await asyncio.sleep(_LOOK_SECONDS)
    if plan.run < plan.items:
        batches = Batches(worker.client.temporal, worker.client.settings.task_queue, ledger)
        await steering.cancel(batches, batch, "bench")


def _lines(file: Path) -> int:
    with file.open() as lines:
        return sum(1 for _ in lines)


def _highest(pid: int) -> float:
    """Return the most memory that a process has held so far; Linux alone keeps count of it."""
    status = Path(f"/proc/{pid}/status")
    with contextlib.suppress(OSError):
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / _MEGABYTE
    return 0.0
