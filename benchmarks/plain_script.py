"""The items by a plain asyncio script with the official SDK, as its documentation has it.

It keeps nothing: what dies with the process is begun anew, and runs twice.
"""

import asyncio
import time

from openai import AsyncOpenAI

from benchmarks.items import POLL_MS, Task, say_done, task, thread


async def _do(wanted: Task) -> float:
    turns = asyncio.Semaphore(wanted.at_a_time)
    async with AsyncOpenAI(base_url=wanted.upstream_url, api_key="none") as client:

        async def one(number: int) -> None:
            async with turns:
                run = await client.beta.threads.create_and_run_poll(
                    assistant_id=wanted.assistant_id,
                    thread=thread(number),
                    poll_interval_ms=POLL_MS,
                )
            assert run.status == "completed", run.status

        began = time.monotonic()
        await asyncio.gather(*(one(number) for number in range(wanted.items)))
        return time.monotonic() - began


if __name__ == "__main__":
    say_done(asyncio.run(_do(task())))
