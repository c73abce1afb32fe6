"""Ask for a refund, and let whoever sits here decide about it."""

import asyncio
import secrets
import sys

import shop

from runlane import Registry, Runlane

THREAD, ASSISTANT = sys.argv[1:3] or (f"thread_{secrets.token_hex(4)}", "asst_shop")


async def main():
    client = await Runlane.connect()
    run = await client.runs.create_and_poll(
        THREAD,
        assistant_id=ASSISTANT,
        with_tools=Registry.of(shop.look_up_order, shop.refund),
    )
    print(run.id)
    while run.status == "requires_action":
        for waiting in await client.approvals.list(run_id=run.id):
            await decide(client, waiting)
        run = await client.runs.poll(run.id)
    print(run.status)


async def decide(client, waiting):
    call = waiting.call
    print(f"{call.name} {call.arguments} waits: {call.reason}")
    if await asyncio.to_thread(says_yes):
        await client.approvals.approve(call.tool_call_id, run_id=waiting.run_id)
    else:
        await client.approvals.reject(
            call.tool_call_id, run_id=waiting.run_id, reason="Not without the parcel."
        )


def says_yes():
    if not sys.stdin.isatty():
        print("Nobody sits here, so it is approved.")
        return True
    return input("Pay? [y/N] ").strip().lower() == "y"


asyncio.run(main())
