"""The shop of the demonstration: a tool that pays money back, and the shop's own record of it."""

import os
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

import runlane
from runlane import ToolContext

RECORD = "DEMO_SHOP_RECORD"
"""The variable that names the shop's file."""
LIMIT = 100
"""Euros; above it, a person approves."""
DECIDE_WITHIN = 60
"""Seconds."""

_BANK_TAKES = 40.0
"""Seconds: longer than the worker that waits for it lives, on the slowest machine."""
_TABLE = (
    "CREATE TABLE IF NOT EXISTS refunds ("
    "key TEXT PRIMARY KEY, run_id TEXT, order_id TEXT, amount INTEGER, asked INTEGER)"
)


class Refund(NamedTuple):
    """One in the shop's record."""

    order_id: str
    amount: int
    asked: int
    """How often the shop was asked for it; it paid once."""


def over_the_limit(arguments: Mapping[str, Any]) -> tuple[str, str] | str:
    """Let a person decide about much money."""
    if arguments["amount"] > LIMIT:
        return "approve", f"over {LIMIT} euros"
    return "auto"


@runlane.tool(policy=over_the_limit, deadline=DECIDE_WITHIN)
def refund(order_id: str, amount: Annotated[int, Field(gt=0)], context: ToolContext) -> str:
    """Pay an order's money back.

    Args:
        order_id: The number on the invoice.
        amount: In euros.
    """
    with closing(_opened(Path(os.environ[RECORD]))) as shop, shop:
        # The key is the same however often a call is run: what it names is paid once.
        (asked,) = shop.execute(
            "INSERT INTO refunds VALUES (?, ?, ?, ?, 1) "
            "ON CONFLICT (key) DO UPDATE SET asked = asked + 1 RETURNING asked",
            (context.idempotency_key, context.run_id, order_id, amount),
        ).fetchone()
    if asked == 1:
        time.sleep(_BANK_TAKES)
    return f"{amount} euros are paid back"


def refunds(record: Path, run_id: str) -> list[Refund]:
    """Return what the shop has paid back for a run."""
    with closing(_opened(record)) as shop:
        rows = shop.execute(
            "SELECT order_id, amount, asked FROM refunds WHERE run_id = ?", (run_id,)
        )
        return [Refund(*row) for row in rows]


def _opened(record: Path) -> sqlite3.Connection:
    shop = sqlite3.connect(record, timeout=30)
    shop.execute(_TABLE)
    return shop
