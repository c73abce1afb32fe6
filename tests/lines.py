"""A batch in the ledger, with items as a file of lines would give them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ledger import Ledger
from ledger.batch_item import ItemOutcome, ItemState, NewItem
from ledger.batch_record import BatchRecord, BatchStatus, batch_id
from ledger.contents import digest_of
from ledger.run_record import Usage

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
BATCH = batch_id("", "tickets")


def record(**fields: Any) -> BatchRecord:
    """Return a batch that is about to be created."""
    given = {"name": "tickets", "input_digest": digest_of("input"), "total": 3, **fields}
    its = batch_id(given.get("owner", ""), given["name"], given.get("generation", 1))
    return BatchRecord(id=its, created_at=given.pop("created_at", NOON), **given)


def item(index: int, **fields: Any) -> NewItem:
    """Return one line of an input."""
    body = f'{{"line": {index}}}'
    given = {"custom_id": f"ticket-{index}", "digest": digest_of(body), "body": body, **fields}
    return NewItem(index=index, **given)


async def begun(ledger: Ledger, items: int | Sequence[NewItem] = 3, **fields: Any) -> BatchRecord:
    """Create a batch with these items, or with so many, and let it be in progress."""
    lines = [item(index) for index in range(items)] if isinstance(items, int) else items
    await ledger.batches.create(record(total=len(lines), **fields))
    await ledger.batch_items.add(BATCH, lines)
    return await ledger.batches.set_status(BATCH, BatchStatus.IN_PROGRESS, NOON)


def usage(total: int) -> Usage:
    """Return so many tokens, one of them of the prompt."""
    return Usage(prompt_tokens=1, completion_tokens=total - 1, total_tokens=total)


def outcome(state: ItemState = ItemState.COMPLETED, **fields: Any) -> ItemOutcome:
    """Return an end."""
    return ItemOutcome(state=state, at=fields.pop("at", NOON), **fields)
