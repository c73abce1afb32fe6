"""The shop's one tool: small refunds are paid at once, big ones once a person has said so."""

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


@runlane.tool(policy=over_the_limit, deadline="3d")
def pay_back(amount: Annotated[int, Field(gt=0)], context: ToolContext) -> str:
    """Pay a customer's money back.

    Args:
        amount: In euros.
    """
    with closing(sqlite3.connect("paid.db", timeout=30)) as record, record:
        record.execute("CREATE TABLE IF NOT EXISTS paid (key TEXT PRIMARY KEY, amount INT)")
        # A call that runs again after a crash has the same key: it is paid once.
        record.execute(
            "INSERT OR IGNORE INTO paid VALUES (?, ?)", (context.idempotency_key, amount)
        )
    return f"{amount} euros are paid back"
