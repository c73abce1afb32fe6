"""What happens once a batch has used up what it may use, or cost: it pauses, and says so."""

from datetime import UTC, datetime

from activities import trail
from ledger import Ledger
from ledger.batch_money import shown
from ledger.batch_record import BatchRecord

BY = "runlane"
"""Who paused a batch that no person did."""


async def pause_if_spent(ledger: Ledger, batch: BatchRecord) -> None:
    """Pause a batch whose budget is used up; what is in flight goes on to its end.

    Args:
        ledger: where it stands.
        batch: as it was read last. Where its budget was raised since, it goes on.

    Raises:
        LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
    """
    if not batch.is_spent or batch.paused_at is not None:
        return
    reason, at = reason_of(batch), datetime.now(UTC)
    scope = f"batch {batch.id}"
    event = trail.control(what="pause", scope=scope, by=BY, reason=reason, at=at)
    await ledger.batches.pause_spent(batch.id, reason, BY, at, [event])


def reason_of(batch: BatchRecord) -> str:
    """Return which budget is used up, in figures."""
    used, limit, cost = batch.tokens_used, batch.token_limit, batch.cost
    if limit is not None and limit <= used:
        return f"budget: {used:,} tokens are used, of {limit:,}"
    assert batch.cost_limit is not None
    assert cost is not None
    return f"budget: {used:,} tokens have cost {shown(cost)}, of {shown(batch.cost_limit)}"
