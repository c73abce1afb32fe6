"""Tools for worker processes of tests: `RUNLANE_TOOLS=tests.shop_tools`."""

import os
import time
from pathlib import Path

import runlane


@runlane.tool(policy="auto", read_only=True)
def look_up(order_id: str) -> str:
    """Look an order up; the first who does so takes long.

    Args:
        order_id: which order.
    """
    journal = Path(os.environ["SHOP_JOURNAL"])
    is_first = not journal.exists()
    with journal.open("a") as lines:
        lines.write(f"{order_id}\n")
    if is_first:
        time.sleep(60)
    return f"{order_id} has shipped"
