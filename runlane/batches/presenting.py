"""How a batch is shown: as OpenAI's Batch object, and what Runlane knows beside it."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from ledger.batch_item import ItemState
from ledger.batch_money import Prices, shown
from ledger.batch_record import PRICES, BatchCounts, BatchRecord, BatchStatus

_ENDED_KEYS = {
    "completed_at": BatchStatus.COMPLETED,
    "failed_at": BatchStatus.FAILED,
    "expired_at": BatchStatus.EXPIRED,
    "cancelled_at": BatchStatus.CANCELLED,
}


def document(batch: BatchRecord, counts: BatchCounts) -> dict[str, Any]:
    """Return a batch as JSON: OpenAI's keys, and one more, `runlane`. Times are Unix seconds."""
    completed = counts.by_state[ItemState.COMPLETED]
    return {
        "id": batch.id,
        "object": "batch",
        "status": batch.status.value,
        "created_at": _seconds(batch.created_at),
        "in_progress_at": _seconds(batch.started_at),
        "expires_at": _seconds(batch.deadline),
        **{
            key: _seconds(batch.ended_at) if batch.status is status else None
            for key, status in _ENDED_KEYS.items()
        },
        "request_counts": {
            "total": batch.total,
            "completed": completed,
            "failed": ended(counts) - completed,
        },
        "runlane": {
            "name": batch.name,
            "owner": batch.owner,
            "generation": batch.generation,
            "input_digest": batch.input_digest,
            "items": {state.value: count for state, count in counts.by_state.items()},
            "error_kinds": dict(counts.by_error_kind),
            "usage": {
                "prompt_tokens": counts.usage.prompt_tokens,
                "completion_tokens": counts.usage.completion_tokens,
                "total_tokens": counts.usage.total_tokens,
            },
            "money": None if (spent := money(batch, counts)) is None else float(spent),
            "token_limit": batch.token_limit,
            "cost_limit": None if batch.cost_limit is None else shown(batch.cost_limit),
            "held_until": _seconds(batch.held_until),
            "paused": None
            if batch.paused_at is None
            else {
                "reason": batch.paused_reason,
                "by": batch.paused_by,
                "since": _seconds(batch.paused_at),
            },
            "options": dict(batch.options),
        },
    }


def ended(counts: BatchCounts) -> int:
    """Return how many items have ended, however they did."""
    return sum(count for state, count in counts.by_state.items() if state.is_end)


def failed(counts: BatchCounts) -> int:
    """Return how many items have ended otherwise than completed."""
    return ended(counts) - counts.by_state[ItemState.COMPLETED]


def money(batch: BatchRecord, counts: BatchCounts) -> Decimal | None:
    """Return what the tokens cost by the prices that the batch was begun with; None: by none."""
    prices = batch.options.get(PRICES)
    if prices is None:
        return None
    return Prices.parse(prices).of(counts.usage.prompt_tokens, counts.usage.completion_tokens)


def cost(batch: BatchRecord, counts: BatchCounts) -> str | None:
    """Return what the tokens cost, and the budget if there is one, in words; None: no prices."""
    spent, limit = money(batch, counts), batch.cost_limit
    if spent is None or limit is None:
        return None if spent is None else f"{spent:,.2f}"
    # As exact as the limit: by rounding, none would seem to be reached that isn't.
    told = shown(limit)
    places = len(told.partition(".")[2])
    return f"{spent:,.{places}f} of {told}"


def _seconds(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())
