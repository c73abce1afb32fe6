"""Tools for worker processes of tests: `RUNLANE_TOOLS=tests.shop_tools`."""

import os
import time
from pathlib import Path

import runlane
from runlane import ToolContext


@runlane.tool(policy="auto", read_only=True)
def look_up(order_id: str, context: ToolContext) -> str:
    """Look an order up; the first who does so takes long.

    Args:
        order_id: which order.
        context: of the call.
    """
    _work("look_up", order_id, context)
    return f"{order_id} has shipped"


@runlane.tool(policy="auto")
def refund(order_id: str, context: ToolContext) -> str:
    """Pay an order back; the first who does so takes long.

    Args:
        order_id: which order.
        context: of the call.
    """
    _work("refund", order_id, context)
    return f"{order_id} is paid back"


@runlane.tool(policy="auto", at_most_once=True)
def charge(order_id: str, context: ToolContext) -> str:
    """Charge for an order; the first who does so takes long.

    Args:
        order_id: which order.
        context: of the call.
    """
    _work("charge", order_id, context)
    return f"{order_id} is charged"


def done(journal: Path) -> list[tuple[str, str, str]]:
    """Return what the tools did: name, order and idempotency key."""
    if not journal.exists():
        return []
    lines = (line.split() for line in journal.read_text().splitlines())
    return [(name, order_id, key) for name, order_id, key in lines]


def _work(name: str, order_id: str, context: ToolContext) -> None:
    journal = Path(os.environ["SHOP_JOURNAL"])
    is_first = all(name != each for each, _, _ in done(journal))
    with journal.open("a") as lines:
        lines.write(f"{name} {order_id} {context.idempotency_key}\n")
    if is_first and "SHOP_IS_QUICK" not in os.environ:
        time.sleep(60)
