"""From an accepted answer to the upstream's receipt of the submit, idle and beside many polls."""

import asyncio
import statistics
import time

from benchmarks.figures import Row
from benchmarks.parts import RunlaneWorker, Site
from benchmarks.upstream import new_thread, one_round

_STARTS_AT_A_TIME = 20
_NOTICED_WITHIN = 3.0
_BETWEEN_SECONDS = 0.3


async def measure(site: Site, *, quick: bool) -> list[Row]:
    """Return median and worst of some answers, without and with attached polls on the worker."""
    polls, samples, age = (10, 2, 0.0) if quick else (500, 20, 30.0)
    site.progress.say(f"Submit: {samples} answers to an idle worker")
    async with site.runlane_worker() as worker:
        idle = await _samples(site, worker, samples)
        site.progress.say(f"Submit: {polls} runs in their legs on the worker ...")
        never_ends = [{"queued": 0, "ends": "never"}]
        assistant_id = await site.upstream.assistant(expires_after=0, rounds=never_ends)
        slots = asyncio.Semaphore(_STARTS_AT_A_TIME)
        alive: list[str] = []

        async def start() -> None:
            async with slots:
                alive.append(await worker.start(new_thread(), assistant_id))

        with site.progress.watching(lambda: f"{len(alive)} started"):
            await asyncio.gather(*(start() for _ in range(polls)))
            # The youngest legs poll twice a second; at this age, all together poll as a fleet does.
            await asyncio.sleep(age)
        site.progress.say(f"Submit: {samples} answers beside them")
        busy = await _samples(site, worker, samples)
        await asyncio.gather(*(worker.handle(run_id).terminate() for run_id in alive))
    return [*_rows("idle", idle), *_rows(f"beside {polls} attached polls", busy)]


def _rows(where: str, samples: list[float]) -> list[Row]:
    return [
        Row(subject="submit", what=f"answer to upstream, {where}", unit=f"s, {name}", runlane=value)
        for name, value in (("median", statistics.median(samples)), ("worst", max(samples)))
    ]


async def _samples(site: Site, worker: RunlaneWorker, count: int) -> list[float]:
    """Return the seconds from giving an answer until the upstream had it, of several runs."""
    assistant_id = await site.upstream.assistant(rounds=one_round(0, 0))
    runs = {}
    for _ in range(count):
        thread_id = new_thread()
        runs[thread_id] = await worker.start(thread_id, assistant_id)
    calls = {thread_id: await site.upstream.asked(thread_id) for thread_id in runs}
    # What the upstream asks, the run has noticed by then.
    await asyncio.sleep(_NOTICED_WITHIN)
    samples = []
    for thread_id, run_id in runs.items():
        given_at = time.time()
        await worker.answer(run_id, calls[thread_id])
        samples.append(await site.upstream.submitted_at(thread_id) - given_at)
        await asyncio.sleep(_BETWEEN_SECONDS)
    return samples
