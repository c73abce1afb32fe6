"""What a worker needs for runs that wait for somebody's answer."""

import asyncio

import psutil
from temporalio.common import WorkflowIDReusePolicy

from benchmarks.figures import Row, Target
from benchmarks.parts import RunlaneWorker, Site
from benchmarks.upstream import new_thread, one_round
from runlane import requests
from runlane.visibility import first_attributes
from workflows.contract import REQUEST_MEMO, WORKFLOW, RunOptions, Timing
from workflows.state import RunInput

MOST_MEGABYTES = 300
"""Of a worker with the largest number of waiting runs."""

_MEGABYTE = 1_000_000
_ON_THEIR_WAY = 150
"""Runs started and not yet waiting: more would only queue up in the server."""
_LOOK_SECONDS = 0.5
_SETTLED_AFTER = 3.0

# A run looks every minute whether its upstream still waits. Here nobody else answers, and the looks
# of thousands of young runs would only slow the start of the others.
_NO_LOOKS = RunOptions(timing=Timing(look_floor=86_400.0))


async def measure(site: Site, *, quick: bool) -> list[Row]:
    """Return the resident memory of one worker, with more and more runs that wait."""
    numbers = (5, 10) if quick else (1000, 5000)
    assistant_id = await site.upstream.assistant(expires_after=0, rounds=one_round(0, 0))
    async with site.runlane_worker() as worker:
        rows = [_row("no run", worker)]
        started = 0
        for number in numbers:
            site.progress.say(f"Memory: until {number:,} runs wait")
            started = await _until_waiting(site, worker, assistant_id, number, started)
            await asyncio.sleep(_SETTLED_AFTER)
            rows.append(_row(f"{number:,} waiting runs", worker, is_last=number == numbers[-1]))
    return rows


def _row(what: str, worker: RunlaneWorker, *, is_last: bool = False) -> Row:
    used = psutil.Process(worker.pid).memory_info().rss / _MEGABYTE
    target = Target(f"under {MOST_MEGABYTES}", used < MOST_MEGABYTES) if is_last else None
    return Row(subject="memory", what=f"a worker with {what}", unit="MB", runlane=used,
               target=target)  # fmt: skip


async def _until_waiting(
    site: Site, worker: RunlaneWorker, assistant_id: str, number: int, started: int
) -> int:
    """Start runs until that many wait; return how many have been started."""
    queue = worker.client.settings.task_queue
    query = f"TaskQueue = '{queue}' AND RunlaneStatus = 'requires_action'"
    waiting = 0
    with site.progress.watching(lambda: f"{waiting:,} wait"):
        while (waiting := (await site.client.count_workflows(query)).count) < number:
            more = min(number, waiting + _ON_THEIR_WAY) - started
            await asyncio.gather(*(_start(worker, assistant_id) for _ in range(more)))
            started += max(more, 0)
            await asyncio.sleep(_LOOK_SECONDS)
    return started


async def _start(worker: RunlaneWorker, assistant_id: str) -> None:
    """Start a run as `create` does, and without its looks."""
    run_id, request = requests.asked(new_thread(), {"assistant_id": assistant_id})
    request = request.model_copy(update={"options": _NO_LOOKS})
    await worker.client.temporal.start_workflow(
        WORKFLOW,
        RunInput(request=request),
        id=run_id,
        task_queue=worker.client.settings.task_queue,
        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        memo={REQUEST_MEMO: request.memo({})},
        search_attributes=first_attributes(request),
    )
