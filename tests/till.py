"""A tool that people must approve, in runs of one lab."""

import asyncio
from typing import Any

from runlane.tools.functions import tool
from runlane.tools.registry import Registry
from runlane.tools.toolbox import RegisteredTools
from tests.lab import Lab, LabRun


class Till:
    """A tool that pays money back once a person has approved it, and what it paid."""

    def __init__(self, **options: Any) -> None:
        self.paid: list[tuple[str, int]] = []
        self.hangs = 0
        """How often it pays and never says so."""

        @tool(policy="approve", **options)
        async def refund(order_id: str, amount: int) -> str:
            """Pay an order back."""
            self.paid.append((order_id, amount))
            if self.hangs:
                self.hangs -= 1
                await asyncio.sleep(60)
            return f"{amount} paid for {order_id}"

        @tool(policy="auto", read_only=True)
        async def look_up(order_id: str) -> str:
            """Look an order up."""
            return f"{order_id} has shipped"

        self.tools = RegisteredTools(Registry.of(refund, look_up))


def refund(order_id: str = "A-1", amount: int = 5) -> dict[str, Any]:
    return {"name": "refund", "arguments": {"order_id": order_id, "amount": amount}}


async def submitted(lab: Lab) -> list[str]:
    """Return the outputs that the upstream got, in order."""
    journal = await asyncio.to_thread(lambda: lab.simulator.requests(thread_id=lab.thread_id))
    return [
        each["output"]
        for entry in journal["data"]
        if entry["operation"] == "runs.submit_tool_outputs"
        for each in entry["body"]["tool_outputs"]
    ]


async def started(lab: Lab, *calls: dict[str, Any], **options: Any) -> LabRun:
    """Start a run whose only round asks for calls."""
    await lab.scenario(rounds=[{"calls": list(calls) or [refund()]}, {"says": "Done."}])
    return await lab.start(with_tools=True, **options)
