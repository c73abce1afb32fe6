"""From asking for a change until the upstream has it, on an idle worker and on a full one.

The changes are create, submit and cancel. The full worker holds attached polls and waiting runs.
"""

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence

from benchmarks.figures import Row
from benchmarks.parts import RunlaneWorker, Site
from benchmarks.upstream import new_thread, one_round
from runlane import requests
from runsapi import Assistants
from tests.handed_on import Starter
from workflows.contract import RunRequest

NEVER_ENDS = {"queued": 0, "ends": "never"}

_POLL_INTERVAL = 5.0
"""Seconds between the polls of a run: what the SDKs take unless told otherwise. A fixed interval
keeps them attached; by our own curve a leg of five minutes is polled by timers."""
_WAITED_FOR = 3600.0
"""Seconds, at most; the runs began one after another over this time."""
_NOTICED_WITHIN = 3.0
_BETWEEN_SECONDS = 0.3

Samples = Mapping[str, Sequence[float]]
"""Seconds by change."""


async def measure(site: Site, *, quick: bool) -> list[Row]:
    """Return median and worst of some changes of each kind, on an idle worker and a full one."""
    polls, waiting, samples = (10, 5, 2) if quick else (500, 300, 15)
    async with site.runlane_worker() as worker:
        site.progress.say(f"Submit: {samples} creates, submits and cancels by an idle worker")
        idle = await _samples(site, worker, samples)
        site.progress.say(f"Submit: {polls} attached polls and {waiting} waiting runs on it ...")
        alive = await _fill(site, worker, polls, waiting)
        site.progress.say(f"Submit: {samples} creates, submits and cancels beside them")
        busy = await _samples(site, worker, samples)
        await asyncio.gather(*(worker.handle(run_id).terminate() for run_id in alive))
    return [
        *_rows("idle", idle),
        *_rows(f"beside {polls} attached polls and {waiting} waiting runs", busy),
    ]


def _rows(where: str, samples: Samples) -> list[Row]:
    return [
        Row(subject="submit", what=f"{change} to upstream, {where}", unit=f"s, {name}",
            runlane=value)
        for change, seconds in samples.items()
        for name, value in (("median", statistics.median(seconds)), ("worst", max(seconds)))
    ]  # fmt: skip


async def _fill(site: Site, worker: RunlaneWorker, polls: int, waiting: int) -> list[str]:
    """Give the worker runs that wait and runs in their legs; return their ids."""
    asks = await site.upstream.assistant(expires_after=0, rounds=one_round(0, 0))
    endless = await site.upstream.assistant(expires_after=0, rounds=[NEVER_ENDS])
    client = worker.client
    legs = [_request(endless) for _ in range(polls)]
    async with Assistants(site.upstream.url) as upstream:
        starter = Starter(client.temporal, upstream, client.settings.task_queue)
        with site.progress.watching(lambda: f"{len(starter.taken_up)} of {polls + waiting}"):
            began = (_WAITED_FOR * number / waiting for number in range(waiting))
            await asyncio.gather(*(starter.waiting(_request(asks), age=age) for age in began))
            await asyncio.gather(*(starter.in_leg(leg) for leg in legs))
            await site.upstream.polled({leg.thread_id for leg in legs})
    return starter.taken_up


def _request(assistant_id: str) -> RunRequest:
    params = {"assistant_id": assistant_id}
    return requests.asked(new_thread(), params, poll_interval_ms=int(_POLL_INTERVAL * 1000)).request


async def _samples(site: Site, worker: RunlaneWorker, count: int) -> Samples:
    """Return the seconds from asking for a change until the upstream had it, of several runs."""
    (asks, _) = one_round(0, 0)
    assistant_id = await site.upstream.assistant(rounds=[asks, NEVER_ENDS])
    found: dict[str, list[float]] = {"create": [], "answer": [], "cancel": []}
    runs: dict[str, str] = {}

    async def note(change: str, thread_id: str, operation: str, asked_at: float) -> None:
        found[change].append(await site.upstream.received_at(thread_id, operation) - asked_at)
        await asyncio.sleep(_BETWEEN_SECONDS)

    with site.progress.watching(lambda: ", ".join(f"{len(s)} {c}s" for c, s in found.items())):
        for thread_id in (new_thread() for _ in range(count)):
            asked_at = time.time()
            runs[thread_id] = await worker.start(thread_id, assistant_id)
            await note("create", thread_id, "runs.create", asked_at)
        calls = {thread_id: await site.upstream.asked(thread_id) for thread_id in runs}
        # What the upstream asks, the run has noticed by then.
        await asyncio.sleep(_NOTICED_WITHIN)
        for thread_id, run_id in runs.items():
            asked_at = time.time()
            await worker.answer(run_id, calls[thread_id])
            await note("answer", thread_id, "runs.submit_tool_outputs", asked_at)
        for thread_id, run_id in runs.items():
            asked_at = time.time()
            await worker.cancel(run_id)
            await note("cancel", thread_id, "runs.cancel", asked_at)
    return found
