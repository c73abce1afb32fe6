"""A tool for worker processes of tests that runs once a person has approved it."""

import os
from pathlib import Path

import runlane


@runlane.tool(policy="approve")
def pay(order_id: str) -> str:
    """Pay an order back, and say so in a journal.

    Args:
        order_id: which order.
    """
    with Path(os.environ["TILL_JOURNAL"]).open("a") as lines:
        lines.write(f"{order_id}\n")
    return f"{order_id} is paid"
