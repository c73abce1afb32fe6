"""The acts: an answer from outside, a worker that dies, and a refund that a person decides."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runlane.demo import shop
from runlane.demo.stage import LOOK_SECONDS, STEP_SECONDS, Stage, expect, new_thread
from runlane.errors import ExitCode

if TYPE_CHECKING:
    from workflows.contract import PendingCall

_ORDERS = "asst_orders"
_REFUNDS = "asst_refunds"
SCENARIOS: tuple[Mapping[str, Any], ...] = (
    {
        "assistant_id": _ORDERS,
        "rounds": [
            {
                "queued": 0.5,
                "in_progress": 1.0,
                "calls": [{"name": "lookup_order", "arguments": {"order_id": "A-1042"}}],
            },
            {"queued": 0.5, "in_progress": 2.0, "says": "Order A-1042 is {state}."},
        ],
    },
    {
        "assistant_id": _REFUNDS,
        "rounds": [
            {
                "queued": 0.5,
                "in_progress": 0.5,
                "calls": [{"name": "refund", "arguments": {"order_id": "A-1042", "amount": 250}}],
            },
            {"queued": 0.2, "in_progress": 0.5, "says": "Done: {refund}."},
        ],
    },
)
"""What the simulated model does."""
_ANSWER = '{"state": "shipped"}'
_TO_TYPE = 8.0
"""Seconds before a deadline in which a command may come too late."""


async def answered(stage: Stage) -> str:
    """Play a run that waits for an answer; return its id."""
    stage.screen.heading("1/3  A run that waits for an answer from outside")
    run_id = await stage.create(new_thread(), _ORDERS)
    await stage.command("poll", run_id, expect=ExitCode.WAITING)
    answer = f"{(await stage.waiting_call(run_id)).tool_call_id}={_ANSWER}"
    await stage.submit(run_id, answer, receipt="accepted")
    stage.screen.remark("The same answer once more, as a retry or an impatient person gives it:")
    await stage.submit(run_id, answer, receipt="duplicate")
    await stage.command("poll", run_id)
    return run_id


async def killed(stage: Stage) -> str:
    """Play a run whose worker dies while the upstream's answer is on its way; return its id."""
    remark = stage.screen.remark
    stage.screen.heading("2/3  The worker dies in the middle")
    thread = new_thread()
    # The worst moment there is: the upstream has acted, and only the worker waits to hear it.
    order = {"operation": "runs.create", "kind": "hold_after", "thread_id": thread}
    fault = (await stage.simulator("POST", "faults", order))["id"]
    run_id = await stage.create(thread, _ORDERS)
    async with asyncio.timeout(STEP_SECONDS):
        # Another process changes it, so there is no event to wait for.
        while not (await stage.simulator("GET", f"faults/{fault}"))["waiting"]:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)
    remark("The upstream has begun the run; its answer is on the way to the worker.")
    await stage.kill_worker()
    # The answer comes now, and there is nobody to take it.
    await stage.simulator("POST", f"faults/{fault}/release", {"answer": True})
    begun = (await stage.simulator("GET", f"threads/{thread}"))["runs"]
    expect(len(begun) == 1, f"the upstream has {len(begun)} runs for {run_id}, not 1")
    remark("The worker is gone, and the answer with it. Temporal keeps the run;")
    remark("the upstream has not noticed.")
    await stage.poll_while_it_is_replaced(run_id, expect=ExitCode.WAITING)
    answer = f"{(await stage.waiting_call(run_id)).tool_call_id}={_ANSWER}"
    await stage.submit(run_id, answer, receipt="accepted")
    await stage.command("poll", run_id)
    return run_id


async def refunded(stage: Stage, record: Path) -> str:
    """Play a refund that a person decides, and whose worker dies once it is paid; return its run.

    Args:
        stage: with a worker that has the shop's tool.
        record: the shop's file.
    """
    remark = stage.screen.remark
    stage.screen.heading("3/3  A refund that a person decides, and its worker dies in the middle")
    run_id = await stage.create(new_thread(), _REFUNDS, "--with-tools")
    await stage.command("poll", run_id, expect=ExitCode.WAITING)
    call = await stage.waiting_call(run_id)
    await stage.command("approval", "show", call.tool_call_id)
    if not await _approved(stage, call):
        await stage.command("poll", run_id)
        expect(not shop.refunds(record, run_id), "nothing was to be paid back")
        remark("The shop was never asked.")
        return run_id
    async with asyncio.timeout(STEP_SECONDS):
        while not shop.refunds(record, run_id):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(LOOK_SECONDS)
    remark("The worker runs the tool, and the shop has paid; the worker is yet to hear it.")
    await stage.kill_worker()
    await stage.poll_while_it_is_replaced(run_id, expect=ExitCode.DONE)
    (paid,) = shop.refunds(record, run_id)
    expect(paid.asked > 1, "the second worker was to ask the shop, too")
    remark(
        f"The shop was asked {paid.asked} times, under one key, and paid {paid.amount} euros once."
    )
    return run_id


async def _approved(stage: Stage, call: "PendingCall") -> bool:
    remark = stage.screen.remark
    word: bool | None = True
    if stage.screen.asks:
        left = _left(call)
        remark(f"This is yours to decide, in the {left:.0f} seconds until the deadline.")
        word = await stage.screen.ask("Pay 250 euros back?", seconds=left - _TO_TYPE)
    else:
        remark("Nobody sits at this terminal, so the demonstration decides: yes.")
    if word is None:
        remark("Nobody decided. Silence never approves: at the deadline the run goes on without.")
        await asyncio.sleep(_left(call) + 1)
    elif word:
        await stage.command("approval", "approve", call.tool_call_id)
    else:
        reason = ("--reason", "Not this time")
        await stage.command("approval", "reject", call.tool_call_id, *reason)
    return bool(word)


def _left(call: "PendingCall") -> float:
    """Return the seconds until the call's deadline."""
    return (call.deadline_at or 0.0) - time.time()
