"""The tools of the benchmarks' worker: one that runs by itself, one that people approve."""

import runlane


@runlane.tool(policy="auto", read_only=True)
async def look_up(order_id: str) -> str:
    """Look an order up."""
    return f"{order_id} has shipped"


@runlane.tool(policy="approve")
async def refund(order_id: str) -> str:
    """Pay an order back."""
    return f"{order_id} is paid back"
