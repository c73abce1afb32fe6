"""The items as durable workflows of DBOS: a queue, and two steps an item.

Written for the fewest writes that DBOS allows: a run is created in one step and polled to its end
in another, since a durable sleep between two looks would be one step more for each. All workflows
are queued before any is waited for. A step that a death cut off is taken again, so an item may be
created twice.
"""

import asyncio
import time
from typing import Any

from dbos import DBOS, DBOSConfig
from openai import AsyncOpenAI

from benchmarks.items import POLL_MS, Task, say_done, task, thread

_QUEUE = "items"
_QUEUE_SECONDS = 0.1
"""Between two looks at the queue; with a second, as it is by default, places stay empty."""
_ENQUEUED_AT_ONCE = 50
_LOOK_SECONDS = 0.05


class _App:
    """The workflows of this process; DBOS knows functions by their names, so there is one."""

    wanted: Task
    client: AsyncOpenAI
    left: int
    all_done: asyncio.Event


@DBOS.step()
async def create(number: int) -> tuple[str, str]:
    """Create the thread and its run; return their ids."""
    run = await _App.client.beta.threads.create_and_run(
        assistant_id=_App.wanted.assistant_id,
        thread=thread(number),
    )
    return run.thread_id, run.id


@DBOS.step()
async def follow(thread_id: str, run_id: str) -> dict[str, Any]:
    """Poll the run to its end."""
    run = await _App.client.beta.threads.runs.poll(
        run_id, thread_id=thread_id, poll_interval_ms=POLL_MS
    )
    return run.model_dump(mode="json")


@DBOS.workflow()
async def item(number: int) -> dict[str, Any]:
    """Do one item; the result is the run."""
    thread_id, run_id = await create(number)
    run = await follow(thread_id, run_id)
    assert run["status"] == "completed", run["status"]
    _App.left -= 1
    if not _App.left:
        _App.all_done.set()
    return run


async def _do(wanted: Task) -> float:
    config = DBOSConfig(name="items", system_database_url=wanted.database_url, log_level="ERROR")
    DBOS(config=config)
    async with AsyncOpenAI(base_url=wanted.upstream_url, api_key="none") as client:
        _App.wanted, _App.client = wanted, client
        _App.left, _App.all_done = wanted.items, asyncio.Event()
        DBOS.launch()
        await DBOS.register_queue_async(
            _QUEUE, worker_concurrency=wanted.at_a_time, polling_interval_sec=_QUEUE_SECONDS
        )
        began = time.monotonic()
        for start in range(0, wanted.items, _ENQUEUED_AT_ONCE):
            some = range(start, min(start + _ENQUEUED_AT_ONCE, wanted.items))
            await asyncio.gather(
                *(DBOS.enqueue_workflow_async(_QUEUE, item, number) for number in some)
            )
        await _App.all_done.wait()
        # The last ones' results are being written.
        while True:
            if not await DBOS.list_workflows_async(status=["PENDING", "ENQUEUED"], limit=1):
                break
            await asyncio.sleep(_LOOK_SECONDS)
        seconds = time.monotonic() - began
        DBOS.destroy()
        return seconds


if __name__ == "__main__":
    say_done(asyncio.run(_do(task())))
