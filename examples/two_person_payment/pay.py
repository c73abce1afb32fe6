"""Ask for a payment as Cleo, and approve it as Ann and as Ben."""

import asyncio
import os
import secrets
import sys
from datetime import UTC, datetime

import payments

from runlane import Registry, Runlane, RunlaneError

THREAD, ASSISTANT = sys.argv[1:3] or (f"thread_{secrets.token_hex(4)}", "asst_payments")


async def main():
    client = await Runlane.connect(environ=os.environ | {"RUNLANE_PERSON": "cleo"})
    run = await client.runs.create_and_poll(
        THREAD, assistant_id=ASSISTANT, with_tools=Registry.of(payments.pay_invoice)
    )
    print(run.id)
    (waiting,) = await client.approvals.list(run_id=run.id)
    call = waiting.call
    until = datetime.fromtimestamp(call.deadline_at, UTC).astimezone(payments.OFFICE.zone)
    print(f"{call.name} {call.arguments} waits for two people of {call.groups[0]}")
    print(f"until {until:%A %d %B %H:%M} in the office")
    for person in ("cleo", "ann", "ann", "ben"):
        try:
            await client.approvals.approve(
                call.tool_call_id, run_id=run.id, by=person, groups=["finance"]
            )
            print(f"{person}: approved")
        except RunlaneError as error:
            print(f"{person}: {error}")
    run = await client.runs.poll(run.id)
    print(run.status)


asyncio.run(main())
