"""A shop's two tools: everybody may look an order up; a big refund needs a person."""

import sqlite3
from contextlib import closing
from typing import Annotated

from pydantic import Field

import runlane
from runlane import ToolContext

LIMIT = 100


def over_the_limit(arguments):
    if arguments["amount"] > LIMIT:
        return "approve", f"over {LIMIT} euros"
    return "auto"


@runlane.tool(policy="auto", read_only=True)
def look_up_order(order_id: Annotated[str, Field(examples=["A-1042"])]) -> dict:
    """Look an order up.

    Args:
        order_id: The number on the invoice.
    """
    return {"order_id": order_id, "paid": 250, "state": "lost in the post"}


@runlane.tool(policy=over_the_limit, deadline="4h", reminders=["1h"])
def refund(
    order_id: Annotated[str, Field(examples=["A-1042"])],
    amount: Annotated[int, Field(gt=0, examples=[250])],
    context: ToolContext,
) -> str:
    """Pay an order's money back.

    Args:
        order_id: The number on the invoice.
        amount: In euros.
    """
    with closing(sqlite3.connect("refunds.db")) as record, record:
        record.execute("CREATE TABLE IF NOT EXISTS refunds (key TEXT PRIMARY KEY, amount INT)")
        # A call that runs again after a crash has the same key: it is paid once.
        record.execute(
            "INSERT OR IGNORE INTO refunds VALUES (?, ?)", (context.idempotency_key, amount)
        )
    return f"{amount} euros are paid back"
