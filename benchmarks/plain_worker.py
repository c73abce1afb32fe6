"""The plain workflow's worker, a process with temporalio's defaults.

It takes the variables of `runlane worker`, and says in the same way that it is ready.
"""

import asyncio
import json
import os
import signal
import sys

from temporalio.worker import Worker

from benchmarks.plain_workflow import PlainActivities, PlainRun
from runlane.settings import Settings
from runlane.temporal import connect
from runlane.upstream import open_upstream


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with open_upstream(settings) as upstream:
        activities = PlainActivities(upstream)
        worker = Worker(
            await connect(settings),
            task_queue=settings.task_queue,
            workflows=[PlainRun],
            activities=[
                activities.create_run,
                activities.retrieve_run,
                activities.submit_outputs,
            ],
        )
        async with worker:
            sys.stdout.write(json.dumps({"pid": os.getpid()}) + "\n")
            sys.stdout.flush()
            await stop.wait()


if __name__ == "__main__":
    asyncio.run(_serve(Settings.from_env()))
