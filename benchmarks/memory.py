"""What a worker needs for runs that wait for somebody's answer."""

import asyncio

import psutil

from benchmarks.figures import Row, Target
from benchmarks.parts import RunlaneWorker, Site
from benchmarks.upstream import new_thread, one_round
from runlane import requests
from runsapi import Assistants
from tests.handed_on import Starter

MOST_MEGABYTES = 300
"""Of a worker with the largest number of waiting runs."""

_MEGABYTE = 1_000_000
_WAITED_FOR = 8 * 3600.0
"""Seconds: at this age a run looks every quarter of an hour whether its upstream still waits."""
_LOOK_SECONDS = 0.5
_SETTLED_AFTER = 3.0


async def measure(site: Site, *, quick: bool) -> list[Row]:
    """Return the resident memory of one worker, with more and more runs that wait."""
    created, numbers = (2, (5, 10)) if quick else (100, (1000, 5000))
    assistant_id = await site.upstream.assistant(expires_after=0, rounds=one_round(0, 0))
    async with site.runlane_worker() as worker:
        rows = [_row("no run", worker)]
        site.progress.say(f"Memory: until {created:,} created runs wait")
        # Whatever a worker needs once, for creates and polls, it has then.
        await _create(worker, assistant_id, created)
        running = created
        for number in numbers:
            site.progress.say(f"Memory: until {number:,} runs wait")
            await _hand_on(site, worker, assistant_id, number - running)
            running = number
            await asyncio.sleep(_SETTLED_AFTER)
            rows.append(_row(f"{number:,} waiting runs", worker, is_last=number == numbers[-1]))
    return rows


def _row(what: str, worker: RunlaneWorker, *, is_last: bool = False) -> Row:
    used = psutil.Process(worker.pid).memory_info().rss / _MEGABYTE
    target = Target(f"under {MOST_MEGABYTES}", used < MOST_MEGABYTES) if is_last else None
    return Row(subject="memory", what=f"a worker with {what}", unit="MB", runlane=used,
               target=target)  # fmt: skip


async def _create(worker: RunlaneWorker, assistant_id: str, number: int) -> None:
    """Create runs as anybody does, and wait until they wait."""
    await asyncio.gather(*(worker.start(new_thread(), assistant_id) for _ in range(number)))
    client = worker.client
    query = f"TaskQueue = '{client.settings.task_queue}' AND RunlaneStatus = 'requires_action'"
    while True:
        if (await client.temporal.count_workflows(query)).count >= number:
            return
        await asyncio.sleep(_LOOK_SECONDS)


async def _hand_on(site: Site, worker: RunlaneWorker, assistant_id: str, number: int) -> None:
    """Start runs that wait already."""
    client = worker.client
    async with Assistants(site.upstream.url) as upstream:
        starter = Starter(client.temporal, upstream, client.settings.task_queue)

        async def start() -> None:
            asked = requests.asked(new_thread(), {"assistant_id": assistant_id})
            await starter.waiting(asked.request, age=_WAITED_FOR)

        with site.progress.watching(lambda: f"{len(starter.taken_up):,} more"):
            await asyncio.gather(*(start() for _ in range(number)))
