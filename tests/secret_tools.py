"""Tools that say what is searched for afterwards: `RUNLANE_TOOLS=tests.secret_tools`."""

import os
import time
from pathlib import Path

import runlane
from runlane import ToolContext

BIG = 60_000
"""Bytes: over what stays in the history."""


@runlane.tool(policy="auto")
def look_up(order: str, context: ToolContext) -> str:
    """Look an order up, once the gate is open."""
    context.report(_planted("progress"))
    while not Path(os.environ["GATE"]).exists():
        time.sleep(0.05)
    return _planted("result")


@runlane.tool(policy="auto", retries=1)
def count(order: str) -> str:
    """Fail, each time."""
    raise ValueError(_planted("exception"))


@runlane.tool(policy="approve")
def refund(order: str) -> str:
    """Pay an order back, and say much about it."""
    text = _planted("results")
    return text * (BIG // len(text))


def _planted(name: str) -> str:
    return f"{os.environ['PLANTED']}-{name}-"
