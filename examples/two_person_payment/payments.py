"""A payment that two people of one department approve, in office hours."""

from typing import Annotated

from pydantic import Field

import runlane
from runlane import Calendar, ToolContext

OFFICE = Calendar(zone="Europe/Berlin", hours="09:00-17:00", holidays="DE-BY")


@runlane.tool(
    policy="approve",
    groups=["finance", "board"],
    approvals=2,
    deadline="8h",
    calendar=OFFICE,
    outcome="escalate",
    at_most_once=True,
)
def pay_invoice(
    invoice: Annotated[str, Field(examples=["2026-118"])],
    amount: Annotated[int, Field(gt=0, examples=[18_500])],
    context: ToolContext,
) -> str:
    """Pay an invoice.

    Args:
        invoice: Its number.
        amount: In euros.
    """
    return f"{invoice} is paid, reference {context.idempotency_key[:12]}"
