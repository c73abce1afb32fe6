"""The kill switch, as activities obey it: asked right before they act, each time.

Nothing is kept from one question to the next. What has been begun is not interrupted, and what
only looks, cancels or waits goes on.
"""

from datetime import timedelta

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.trail import waiting_for_ledger
from ledger import Ledger

STOPPED = "Stopped"
"""The type of an activity's error while a stop stands; tried again until it is resumed."""
LOOK_AGAIN = timedelta(seconds=5)


async def check(ledger: Ledger, run_id: str, tool: str | None = None) -> None:
    """Let a run act now, or run a tool, unless somebody has stopped it.

    Args:
        ledger: where the stops stand.
        run_id: ours.
        tool: its name, where one is to run.

    Raises:
        ApplicationError: a stop stands, of type `STOPPED`, or the ledger doesn't answer; retryable.
    """
    with waiting_for_ledger():
        stop = await ledger.stops.against(run_id, tool)
    if stop is not None:
        raise ApplicationError(
            f"Stopped by {stop.by} since {stop.since:%Y-%m-%d %H:%M:%S} UTC ({stop}): "
            f"{stop.reason}",
            type=STOPPED,
            next_retry_delay=LOOK_AGAIN,
            # Somebody wants it so: no warning in the log every 5 s, of each run.
            category=ApplicationErrorCategory.BENIGN,
        )
