"""Runs a second, with hundreds under way at a time: ours and the plain workflow in turns."""

import asyncio
import statistics
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
    turns: int
    warm_up: float
    window: float


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
        """Wait until so many runs are done: a machine under load may need more than its time."""
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
    """Return runs a second and the ratio, and what of the processors a run took."""
    if quick:
        plan = _Plan(at_a_time=10, leg=0.5, turns=1, warm_up=1, window=2)
    else:
        plan = _Plan(at_a_time=300, leg=5.0, turns=2, warm_up=20, window=20)
    turns: dict[str, list[_Turn]] = {"Runlane": [], "the plain workflow": []}
    for number in range(plan.turns):
        for name, worker in (("Runlane", site.runlane), ("the plain workflow", site.plain)):
            site.progress.say(
                f"Throughput of {name}, turn {number + 1} of {plan.turns}: {plan.at_a_time} "
                f"runs at a time, two legs of {plan.leg:g} s"
            )
            turn = await _turn(site, worker, plan)
            site.progress.say(f"  {turn.rate:.1f} runs/s")
            turns[name].append(turn)
    return _rows(turns["Runlane"], turns["the plain workflow"], plan)


def _rows(ours: list[_Turn], theirs: list[_Turn], plan: _Plan) -> list[Row]:
    what = f"{plan.at_a_time} runs at a time, legs of {plan.leg:g} s"
    rate, baseline = (sum(t.done for t in ts) / sum(t.seconds for t in ts) for ts in (ours, theirs))
    ratio = statistics.median(
        our.rate / their.rate for our, their in zip(ours, theirs, strict=True)
    )
    target = Target(f"{TIMES_THE_BASELINE:g} times", ratio >= TIMES_THE_BASELINE)
    cpu = {
        name: [sum(getattr(turn, name) for turn in turns) / sum(turn.done for turn in turns) * 1000
               for turns in (ours, theirs)]
        for name in ("server_cpu", "worker_cpu")
    }  # fmt: skip
    return [
        Row(subject="throughput", what=what, unit="runs/s", runlane=rate, workflow=baseline),
        Row(subject="throughput", what="the same, of the plain workflow's", unit="times",
            runlane=ratio, workflow=1.0, target=target),
        Row(subject="throughput", what="processor time of the server", unit="ms/run",
            runlane=cpu["server_cpu"][0], workflow=cpu["server_cpu"][1]),
        Row(subject="throughput", what="processor time of the worker", unit="ms/run",
            runlane=cpu["worker_cpu"][0], workflow=cpu["worker_cpu"][1]),
    ]  # fmt: skip


async def _turn(site: Site, worker: RunlaneWorker | PlainWorker, plan: _Plan) -> _Turn:
    rounds = one_round(plan.leg, plan.leg)
    load = _Load(site, worker, await site.upstream.assistant(rounds=rounds))
    async with _running(load, plan):
        with site.progress.watching(lambda: f"{len(load.alive)} under way, {load.done} done"):
            await asyncio.sleep(plan.warm_up)
            await load.until(load.done + 1)
            began, done, cpu = time.monotonic(), load.done, _cpu(site, worker)
            await asyncio.sleep(plan.window)
            await load.until(done + 1)
            used = [after - before for after, before in zip(_cpu(site, worker), cpu, strict=True)]
            return _Turn(load.done - done, time.monotonic() - began, *used)


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
