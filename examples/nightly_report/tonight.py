"""Start tonight's report, unless it has been started, and wait for it."""

import asyncio
import sys
from datetime import datetime

import report

from runlane import Registry, Runlane

NIGHT = datetime.now().astimezone().date().isoformat()
THREAD, ASSISTANT = sys.argv[1:3] or (f"thread_report_{NIGHT}", "asst_report")


async def main():
    client = await Runlane.connect()
    run = await client.runs.create_and_poll(
        THREAD,
        assistant_id=ASSISTANT,
        instructions=f"Publish a report on the sales of {NIGHT}.",
        with_tools=Registry.of(report.sales_of_day, report.publish),
        idempotency_key=f"report {NIGHT}",
    )
    print(run.id, run.status)


asyncio.run(main())
