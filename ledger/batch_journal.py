"""Writing what happened to items that somebody holds, and only as long as it holds them."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select

from ledger import batch_ending
from ledger.batch_claiming import is_current
from ledger.batch_contents import BatchContents, in_pieces
from ledger.batch_item import ItemOutcome, ItemState
from ledger.batch_writes import Changes, Settle, Write
from ledger.tables import batch_items

_LOOKED_AT = (*batch_ending.OUTCOME, "epoch", "attempt", "intended_at")


def write(
    connection: Connection,
    contents: BatchContents,
    batch_id: str,
    epoch: int,
    writes: Sequence[Write],
) -> list[bool]:
    """Write as `BatchItems.write` does, in a transaction that has the batch's turn."""
    if not is_current(connection, batch_id, epoch):
        return [False] * len(writes)
    before = _rows(connection, batch_id, list({each.index for each in writes}))
    now = {index: dict(row) for index, row in before.items()}
    changes: dict[int, Changes] = {}
    ends: dict[int, ItemOutcome] = {}
    counts = []
    for each in writes:
        row = now.get(each.index)
        changed = each.changes(row) if row is not None and row["epoch"] == epoch else None
        counts.append(changed is not None)
        if row is None or not changed:
            continue
        if isinstance(each, Settle):
            ends[each.index] = each.outcome
        row.update(changed)
        changes.setdefault(each.index, {}).update(changed)
    batch_ending.write(connection, contents, batch_id, changes=changes, rows=before, ends=ends)
    return counts


def settle_run(
    connection: Connection,
    contents: BatchContents,
    batch_id: str,
    index: int,
    *,
    run_id: str,
    outcome: ItemOutcome,
) -> bool:
    """End the item that a `Run` drove, as `BatchItems.settle` does without an epoch."""
    rows = _rows(connection, batch_id, [index])
    row = rows.get(index)
    if row is None or row["run_id"] != run_id:
        return False
    if not ItemState(row["state"]).is_end:
        batch_ending.end(connection, contents, batch_id, {index: outcome}, rows)
    return True


def _rows(
    connection: Connection, batch_id: str, indexes: Sequence[int]
) -> dict[int, dict[str, Any]]:
    its = batch_items.c
    found: dict[int, dict[str, Any]] = {}
    for some in in_pieces(indexes):
        query = select(its.item_index, *(its[name] for name in _LOOKED_AT)).where(
            its.batch_id == batch_id, its.item_index.in_(some)
        )
        found.update((row.item_index, dict(row._mapping)) for row in connection.execute(query))
    return found
