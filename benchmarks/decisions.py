"""From a person's decision until the upstream has the tool's output, and what such a run costs."""

import asyncio
import sqlite3
import statistics
import time
from contextlib import closing
from typing import Any

from benchmarks import tools
from benchmarks.figures import Row, Target
from benchmarks.parts import RunlaneWorker, Site
from benchmarks.upstream import new_thread, one_round
from ledger.tables import metadata
from runlane import Registry
from tests.handed_on import AT_A_TIME
from tests.histories import undisturbed

MAX_EVENTS = 66
"""Of a run with one round, in which a worker runs one tool by itself and one that is approved."""

_TOOLS = Registry.of(tools.look_up, tools.refund)
_BETWEEN_SECONDS = 0.2
_LOOK_SECONDS = 0.5
_RECORDED_WITHIN = 120.0


async def measure(site: Site, *, quick: bool) -> list[Row]:
    """Return the way of a decision beside many waiting runs, and the cost of a run with tools."""
    waiting, samples = (5, 3) if quick else (200, 100)
    async with site.runlane_worker(RUNLANE_TOOLS=tools.__name__) as worker:
        site.progress.say("Decisions: one run with an automatic and an approved tool")
        rows = await _cost(site, worker)
        site.progress.say(f"Decisions: until {waiting + samples} runs wait for a person")
        runs = await _ask(site, worker, waiting + samples)
        site.progress.say(f"Decisions: {samples} of them, one after the other")
        seconds = await _decide(site, worker, runs, samples)
        left = [run_id for run_id, _ in list(runs.values())[samples:]]
        await asyncio.gather(*(worker.handle(run_id).terminate() for run_id in left))
    what = f"decision to the upstream's receipt, {waiting} runs waiting"
    percentiles = statistics.quantiles(seconds, n=100, method="inclusive")
    return [
        *rows,
        Row(subject="decisions", what=what, unit="s, p50", runlane=percentiles[49]),
        Row(subject="decisions", what=what, unit="s, p99", runlane=percentiles[98]),
    ]


async def _cost(site: Site, worker: RunlaneWorker) -> list[Row]:
    """Return events and ledger rows of a run with both tools, and rows of one without any."""
    both = await _started(site, worker, "look_up", "refund")
    calls: dict[str, str] = {}
    await _awaited(worker, [both], calls)
    await worker.client.approvals.approve(calls[both], run_id=both)
    thread_id = new_thread()
    plain = await worker.start(thread_id, await site.upstream.assistant(rounds=one_round(0, 0)))
    await worker.answer(plain, await site.upstream.asked(thread_id))
    for run_id in (both, plain):
        await worker.handle(run_id).result()
    events = len(undisturbed(list((await worker.handle(both).fetch_history()).events)))
    target = Target(f"at most {MAX_EVENTS}", events <= MAX_EVENTS)
    what = "one round, an automatic and an approved tool"
    return [
        Row(subject="decisions", what=what, unit="events", runlane=events, target=target),
        Row(subject="decisions", what=what, unit="rows of the ledger",
            runlane=await _rows(site, both)),
        Row(subject="decisions", what="one round, answered by its caller",
            unit="rows of the ledger", runlane=await _rows(site, plain)),
    ]  # fmt: skip


async def _ask(site: Site, worker: RunlaneWorker, number: int) -> dict[str, tuple[str, str]]:
    """Create runs that wait for a person; return run and call by thread."""
    created: dict[str, str] = {}
    assistant_id = await _assistant(site, "refund")

    room = asyncio.Semaphore(AT_A_TIME)

    async def create() -> None:
        async with room:
            run = await worker.client.runs.create(
                thread_id := new_thread(), assistant_id=assistant_id, with_tools=_TOOLS
            )
            created[thread_id] = run.id

    calls: dict[str, str] = {}
    with site.progress.watching(lambda: f"{len(created)} created, {len(calls)} wait"):
        await asyncio.gather(*(create() for _ in range(number)))
        await _awaited(worker, list(created.values()), calls)
    return {thread_id: (run_id, calls[run_id]) for thread_id, run_id in created.items()}


async def _decide(
    site: Site, worker: RunlaneWorker, runs: dict[str, tuple[str, str]], samples: int
) -> list[float]:
    """Return the seconds that each of so many decisions took until the upstream had the output."""
    found: list[float] = []
    with site.progress.watching(lambda: f"{len(found)} decided"):
        for thread_id, (run_id, call_id) in list(runs.items())[:samples]:
            asked_at = time.time()
            await worker.client.approvals.approve(call_id, run_id=run_id)
            received_at = await site.upstream.received_at(thread_id, "runs.submit_tool_outputs")
            found.append(received_at - asked_at)
            await asyncio.sleep(_BETWEEN_SECONDS)
    return found


async def _started(site: Site, worker: RunlaneWorker, *names: str) -> str:
    run = await worker.client.runs.create(
        new_thread(), assistant_id=await _assistant(site, *names), with_tools=_TOOLS
    )
    return run.id


async def _assistant(site: Site, *names: str) -> str:
    calls = [{"name": name, "arguments": {"order_id": "A-1042"}} for name in names]
    rounds: list[dict[str, Any]] = [
        {"queued": 0, "in_progress": 0, "calls": calls},
        {"queued": 0, "in_progress": 0, "says": "Done."},
    ]
    return await site.upstream.assistant(expires_after=0, rounds=rounds)


async def _awaited(worker: RunlaneWorker, run_ids: list[str], calls: dict[str, str]) -> None:
    """Wait until a person is asked about a call of each run; put the calls in, by run."""
    while not calls.keys() >= set(run_ids):
        await asyncio.sleep(_LOOK_SECONDS)
        waiting = await worker.client.approvals.list(limit=1_000)
        calls |= {each.run_id: each.call.tool_call_id for each in waiting}


async def _rows(site: Site, run_id: str) -> int:
    """Return how many rows the ledger has of a run, once it knows that it has ended."""
    until = time.monotonic() + _RECORDED_WITHIN
    with closing(sqlite3.connect(site.data_dir / "ledger.db", timeout=60)) as ledger:
        ended = "SELECT ended_at FROM runs WHERE run_id = ?"
        while not any(row[0] for row in ledger.execute(ended, (run_id,))):
            assert time.monotonic() < until, f"the ledger doesn't know that {run_id} has ended"
            await asyncio.sleep(_LOOK_SECONDS)
        names = [table.name for table in metadata.sorted_tables if "run_id" in table.c]
        # The names are the ledger's own.
        queries = [f"SELECT count(*) FROM {name} WHERE run_id = ?" for name in names]  # noqa: S608
        return sum(ledger.execute(query, (run_id,)).fetchone()[0] for query in queries)
