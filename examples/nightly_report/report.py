"""What a report needs: figures that anybody may read, and one place where it is put."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

import runlane
from runlane import ToolContext


@runlane.tool(policy="auto", read_only=True, retries=3)
def sales_of_day(day: Annotated[str, Field(examples=["2026-11-22"])]) -> dict:
    """Add up a day's sales.

    Args:
        day: YYYY-MM-DD.
    """
    return {"day": day, "orders": 312, "euros": 48_210}


@runlane.tool(policy="auto")
def publish(
    title: Annotated[str, Field(examples=["Sales"])],
    text: Annotated[str, Field(examples=["312 orders, 48,210 euros."])],
    context: ToolContext,
) -> str:
    """Put a report where the department reads it.

    Args:
        title: One line.
        text: The report.
    """
    reports = Path("reports")
    reports.mkdir(exist_ok=True)
    # The key is the same however often the call is run, and so is the file.
    (reports / f"{context.idempotency_key[:12]}.txt").write_text(f"{title}\n\n{text}\n")
    return "published"
