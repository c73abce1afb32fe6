"""How late a caller can know that a leg has ended, and how many looks it took."""

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from benchmarks.figures import Row, Target
from benchmarks.parts import PlainWorker, RunlaneWorker, Site
from benchmarks.upstream import new_thread
from runsapi import Assistants

LONG_LEG = 20.0
"""Seconds; a leg beyond this is held to a share of its length, the others to the loop of 1 s."""
LARGEST_SHARE = 0.03

_SPREAD = 0.2
_LEAST_SPREAD = 0.5
"""Legs are spread evenly around their length, by this share or these seconds: a loop of 1 s meets
ends at any moment of its second, and none is lucky by the length chosen."""
_START_WITHIN = 10.0
"""Seconds in which the longest legs begin. Shorter ones begin all the while, so that no crowd of
starts is measured."""

Drive = Callable[[str, str], Awaitable[None]]
"""Create a run on a thread, by an assistant, and return as soon as its end can be known."""


class _Leg(NamedTuple):
    way: str
    nominal: float
    thread_id: str
    lasts: float
    known_at: float


async def measure(site: Site, *, quick: bool) -> list[Row]:
    """Return median added latency and GETs of legs, one leg a run and all of them side by side."""
    nominals, samples = ((1.0,), 3) if quick else ((1.0, 5.0, 20.0, 60.0), 15)
    spread_out = 1.0 if quick else _START_WITHIN
    if not quick:
        # What is read in the end is then this subject's alone, and small.
        await site.upstream.forget()
    async with Assistants(site.upstream.url) as upstream:
        ways: dict[str, Drive] = {
            "runlane": lambda *ids: _until_closed(site.runlane, *ids),
            "workflow": lambda *ids: _until_closed(site.plain, *ids),
            "loop_1s": lambda *ids: _loop(upstream, 1000, *ids),
            "loop_5s": lambda *ids: _loop(upstream, 5000, *ids),
        }
        tasks = [
            asyncio.create_task(
                _leg(
                    site,
                    way,
                    drive,
                    nominal,
                    place=(number + 0.5) / samples,
                    begin_within=max(nominals) - nominal + spread_out,
                )
            )
            for nominal in nominals
            for number in range(samples)
            for way, drive in ways.items()
        ]
        site.progress.say(
            f"Latency: {len(tasks)} legs of up to {max(nominals) * 1.2:g} s at a time"
        )
        with site.progress.watching(
            lambda: f"{sum(task.done() for task in tasks)} of {len(tasks)} legs ended"
        ):
            legs = await asyncio.gather(*tasks)
    return await _rows(site, legs, nominals)


async def _leg(
    site: Site, way: str, drive: Drive, nominal: float, *, place: float, begin_within: float
) -> _Leg:
    lasts = nominal + max(_SPREAD * nominal, _LEAST_SPREAD) * (2 * place - 1)
    rounds = [{"queued": 0, "in_progress": lasts, "says": "Done."}]
    assistant_id, thread_id = await site.upstream.assistant(rounds=rounds), new_thread()
    await asyncio.sleep(place * begin_within)
    await drive(thread_id, assistant_id)
    return _Leg(way, nominal, thread_id, lasts, time.time())


async def _until_closed(
    worker: RunlaneWorker | PlainWorker, thread_id: str, assistant_id: str
) -> None:
    await worker.handle(await worker.start(thread_id, assistant_id)).result()


async def _loop(upstream: Assistants, interval_ms: int, thread_id: str, assistant_id: str) -> None:
    await upstream.runs.create_and_poll(
        thread_id, assistant_id=assistant_id, poll_interval_ms=interval_ms
    )


async def _rows(site: Site, legs: list[_Leg], nominals: tuple[float, ...]) -> list[Row]:
    received = await site.upstream.received()
    added: dict[tuple[str, float], list[float]] = defaultdict(list)
    looks: dict[tuple[str, float], list[int]] = defaultdict(list)
    for leg in legs:
        got = received[leg.thread_id]
        # The simulator begins a leg with the request, and ends it to the microsecond.
        ended_at = got.at["runs.create"][0] + leg.lasts
        added[leg.way, leg.nominal].append(leg.known_at - ended_at)
        looks[leg.way, leg.nominal].append(got.counts["runs.retrieve"])
    late, gets = [], []
    for nominal in nominals:
        medians = {way: statistics.median(added[way, nominal]) for way, _ in added}
        means = {way: statistics.mean(looks[way, nominal]) for way, _ in looks}
        what = f"a leg of {nominal:g} s"
        late.append(
            _row("latency", f"added to {what}, s, median", medians, _target(nominal, medians))
        )
        gets.append(_row("GETs", f"GETs in {what}, mean", means, None))
    return late + gets


def _row(subject: str, what: str, of: dict[str, float], target: Target | None) -> Row:
    return Row(
        subject=subject,
        what=what,
        runlane=of["runlane"],
        workflow=of["workflow"],
        loop_1s=of["loop_1s"],
        loop_5s=of["loop_5s"],
        target=target,
    )


def _target(nominal: float, medians: dict[str, float]) -> Target:
    if nominal <= LONG_LEG:
        return Target("below the loop of 1 s", medians["runlane"] < medians["loop_1s"])
    most = LARGEST_SHARE * nominal
    return Target(f"at most {most:g}, {LARGEST_SHARE:.0%} of it", medians["runlane"] <= most)
