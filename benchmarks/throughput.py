"""Runs a second, with dozens and with hundreds under way at a time: ours, then the plain way's."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psutil

from benchmarks.figures import Row, Target
from benchmarks.parts import PlainWorker, RunlaneWorker, Site
from benchmarks.upstream import new_thread, one_round

TIMES_THE_BASELINE = 2.0
TOOL_SECONDS = 2.0
"""From the upstream's question to the answer, for either."""

_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class _Plan:
    at_a_time: int
    leg: float
    """Seconds of each of the two legs of a run."""
    settle: int
    """Runs that end before anything is measured: those begun together are in step at first."""
    measured: int
    """Runs that end while it is."""
    target: bool = False


@dataclass
class _Turn:
    """What one worker did while it was measured."""

    done: int = 0
    seconds: float = 0.0
    server_cpu: float = 0.0
    worker_cpu: float = 0.0

    @property
    def rate(self) -> float:
        return self.done / self.seconds

    @property
    def server_ms(self) -> float:
        return self.server_cpu / self.done * 1000

    @property
    def worker_ms(self) -> float:
        return self.worker_cpu / self.done * 1000


@dataclass
class _Load:
    """As many runs under way as asked for, each with one tool round; one ends, one begins."""

    site: Site
    worker: RunlaneWorker | PlainWorker
    assistant_id: str
    done: int = 0
    alive: dict[str, str] = field(default_factory=dict)
    """Thread → run."""
    _asked: dict[str, float] = field(default_factory=dict)
    """Call → since when, as far as was seen."""
    _one_more: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def slot(self, delay: float) -> None:
        """Drive one run after another, for ever."""
        await asyncio.sleep(delay)
        while True:
            thread_id = new_thread()
            run_id = await self.worker.start(thread_id, self.assistant_id)
            self.alive[thread_id] = run_id
            await self.worker.handle(run_id).result()
            del self.alive[thread_id]
            self.done += 1
            async with self._one_more:
                self._one_more.notify_all()

    async def until(self, done: int) -> None:
        """Wait until so many runs are done."""
        async with self._one_more:
            await self._one_more.wait_for(lambda: self.done >= done)

    async def answer(self) -> None:
        """Answer each call some time after the upstream asked, for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            due = []
            for thread_id, call_id in (await self.site.upstream.waiting()).items():
                if thread_id in self.alive:
                    since = self._asked.setdefault(call_id, now)
                    if since <= now - TOOL_SECONDS:
                        self._asked[call_id] = float("inf")
                        due.append(self.worker.answer(self.alive[thread_id], call_id))
            await asyncio.gather(*due)


async def measure(site: Site, *, quick: bool) -> list[Row]:
    """Return runs a second and the ratio, and what of the processors a run took.

    Once with so few at a time that both poll as they mean to, and once with so many that the
    machine is what limits them.
    """
    plans: tuple[_Plan, ...] = (
        _Plan(at_a_time=60, leg=5.0, settle=60, measured=150),
        _Plan(at_a_time=300, leg=5.0, settle=200, measured=300, target=True),
    )
    if quick:
        plans = (_Plan(at_a_time=10, leg=0.5, settle=1, measured=5, target=True),)
    rows: list[Row] = []
    for plan in plans:
        ours = await _turn(site, "Runlane", site.runlane, plan)
        theirs = await _turn(site, "the plain workflow", site.plain, plan)
        rows += _rows(ours, theirs, plan)
    return rows


def _rows(ours: _Turn, theirs: _Turn, plan: _Plan) -> list[Row]:
    what = f"{plan.at_a_time} runs at a time, legs of {plan.leg:g} s"
    ratio = ours.rate / theirs.rate
    target = Target(f"{TIMES_THE_BASELINE:g} times", ratio >= TIMES_THE_BASELINE)
    return [
        Row(subject="throughput", what=what, unit="runs/s",
            runlane=ours.rate, workflow=theirs.rate),
        Row(subject="throughput", what="of the plain workflow's", unit="times",
            runlane=ratio, workflow=1.0, target=target if plan.target else None),
        Row(subject="throughput", what="processor time of the server", unit="ms/run",
            runlane=ours.server_ms, workflow=theirs.server_ms),
        Row(subject="throughput", what="processor time of the worker", unit="ms/run",
            runlane=ours.worker_ms, workflow=theirs.worker_ms),
    ]  # fmt: skip


async def _turn(site: Site, name: str, worker: RunlaneWorker | PlainWorker, plan: _Plan) -> _Turn:
    site.progress.say(
        f"Throughput of {name}: {plan.at_a_time} runs at a time, two legs of {plan.leg:g} s, "
        f"{plan.settle + plan.measured} runs"
    )
    rounds = one_round(plan.leg, plan.leg)
    load = _Load(site, worker, await site.upstream.assistant(rounds=rounds))
    async with _running(load, plan):
        with site.progress.watching(lambda: f"{len(load.alive)} under way, {load.done} done"):
            await load.until(plan.settle)
            began, done, cpu = time.monotonic(), load.done, _cpu(site, worker)
            await load.until(done + plan.measured)
            used = [after - before for after, before in zip(_cpu(site, worker), cpu, strict=True)]
            turn = _Turn(load.done - done, time.monotonic() - began, *used)
    site.progress.say(f"  {turn.rate:.1f} runs/s")
    return turn


@asynccontextmanager
async def _running(load: _Load, plan: _Plan) -> AsyncIterator[None]:
    # Begun over as long as a run lasts at least, so that they don't all poll in step.
    lasts = 2 * plan.leg + TOOL_SECONDS
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(load.slot(lasts * number / plan.at_a_time))
                for number in range(plan.at_a_time)
            ]
            tasks.append(group.create_task(load.answer()))
            yield
            for task in tasks:
                task.cancel()
    finally:
        ending = [load.worker.handle(run_id).terminate() for run_id in load.alive.values()]
        await asyncio.gather(*ending, return_exceptions=True)


def _cpu(site: Site, worker: RunlaneWorker | PlainWorker) -> tuple[float, float]:
    """Return the processor seconds that the server and the worker have used."""
    times = [psutil.Process(pid).cpu_times() for pid in (site.temporal.pid, worker.pid)]
    server, own = (time.user + time.system for time in times)
    return server, own
