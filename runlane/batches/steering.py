"""What people tell a batch that was begun: to pause, to go on, to end."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from activities import trail
from ledger.batch_money import shown
from ledger.batch_record import BatchRecord, BatchStatus
from ledger.errors import LedgerRefused
from runlane.batches.deadlines import WINDOWS
from runlane.batches.running import Batches, scope_of
from runlane.batches.wanted import MAX_NAME
from runlane.errors import InvalidRequest, Refused
from workflows.batch_contract import CANCEL_SIGNAL, LOOK_SIGNAL, RESUME_SIGNAL, CancelOrder


async def pause(batches: Batches, batch: BatchRecord, reason: str, by: str) -> BatchRecord:
    """Let nothing of a batch begin any more; return it as it stands.

    Raises:
        InvalidRequest: the reason can't be shown.
        Refused: it has ended.
    """
    if not 1 <= len(reason.strip()) <= MAX_NAME or not reason.isprintable():
        text = f"reason must be a line of 1 to {MAX_NAME} characters."
        raise InvalidRequest(text, param="--reason")
    _refuse_ended(batch)
    reason, at = reason.strip(), datetime.now(UTC)
    event = trail.control(what="pause", scope=scope_of(batch), by=by, reason=reason, at=at)
    found = await batches.ledger.batches.pause(batch.id, reason, by, at, [event])
    await batches.tell(batch, LOOK_SIGNAL)
    return found


async def resume(
    batches: Batches,
    batch: BatchRecord,
    by: str,
    *,
    token_limit: int | None = None,
    cost_limit: Decimal | None = None,
) -> BatchRecord:
    """Let a batch go on; return it as it stands.

    Args:
        batches: where it is known.
        batch: which.
        by: the person.
        token_limit: from now on, with what is used already; None: as it was.
        cost_limit: likewise, of what all tokens cost.

    Raises:
        InvalidRequest: a limit lets nothing begin, or the batch has no prices.
        Refused: it has ended.
    """
    _refuse_ended(batch)
    _check_limits(batch, token_limit, cost_limit)
    facts: dict[str, Any] = {}
    if token_limit is not None:
        facts["token_limit"] = token_limit
    if cost_limit is not None:
        facts["cost_limit"] = f"{cost_limit:f}"
    if facts:
        await batches.ledger.batches.set_limits(batch.id, tokens=token_limit, cost=cost_limit)
    at, scope = datetime.now(UTC), scope_of(batch)
    event = trail.control(
        what="resume", scope=scope, by=by, reason=None, at=at, facts=facts or None
    )  # fmt: skip
    found = await batches.ledger.batches.resume(batch.id, [event])
    if not await batches.tell(batch, RESUME_SIGNAL):
        # Somebody has ended its workflow in Temporal: its items stand in the ledger all the same.
        await batches.start(found)
    return found


async def cancel(batches: Batches, batch: BatchRecord, by: str) -> BatchRecord:
    """Begin nothing more of a batch, and cancel what has begun; return it as it stands.

    Raises:
        Refused: it has ended.
    """
    _refuse_ended(batch)
    at = datetime.now(UTC)
    event = trail.control(what="cancel", scope=scope_of(batch), by=by, reason=None, at=at)
    found = await batches.ledger.batches.set_status(batch.id, BatchStatus.CANCELLING, at, [event])
    if not await batches.tell(batch, CANCEL_SIGNAL, CancelOrder(by=by)):
        # Nobody runs it: its items are ended by a workflow, which looks and finds the word.
        await batches.start(found)
    return found


async def retry_failed(
    batches: Batches, batch: BatchRecord, by: str, *, deadline: datetime | None = None
) -> int:
    """Let what has failed or expired be tried again; return how many items it were.

    Args:
        batches: where it is known.
        batch: which.
        by: the person.
        deadline: of a batch that had ended, from now on. None: its window anew, where it has one;
            else the deadline that it has, unless that is past.

    Raises:
        Refused: it was cancelled, or never checked.
    """
    at = datetime.now(UTC)
    window = WINDOWS.get(str(batch.options.get("completion_window")))
    if deadline is None and window is not None:
        deadline = at + window
    elif deadline is None and batch.deadline is not None and batch.deadline > at:
        deadline = batch.deadline
    event = trail.control(what="retry-failed", scope=scope_of(batch), by=by, reason=None, at=at)
    items = batches.ledger.batch_items
    try:
        count = await items.retry_failed(batch.id, deadline=deadline, events=[event])
    except LedgerRefused as error:
        raise Refused(str(error), code="batch_not_retried") from None
    found = await batches.find(batch.id)
    if not found.status.is_end:
        # Also where nothing was failed: an earlier call may have died right before this.
        await batches.start(found)
    return count


def _check_limits(batch: BatchRecord, token_limit: int | None, cost_limit: Decimal | None) -> None:
    cost = batch.cost
    if cost_limit is not None and cost is None:
        text = (
            "--max-cost needs prices, and the batch was begun without --price-per-million-tokens."
        )
        raise InvalidRequest(text, param="--max-cost")
    tokens = batch.token_limit if token_limit is None else token_limit
    if tokens is not None and tokens <= batch.tokens_used:
        text = f"--max-tokens must be more than the {batch.tokens_used:,} that are used."
        raise InvalidRequest(text, param="--max-tokens")
    money = batch.cost_limit if cost_limit is None else cost_limit
    if money is not None and cost is not None and money <= cost:
        text = f"--max-cost must be more than the {shown(cost)} that is spent."
        raise InvalidRequest(text, param="--max-cost")


def _refuse_ended(batch: BatchRecord) -> None:
    if batch.status.is_end:
        text = f"{batch.name} has ended: {batch.status.value}."
        raise Refused(text, code="batch_ended")
