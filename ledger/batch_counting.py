"""Counting the items of a batch, all at one moment and without reading them."""

from sqlalchemy import Connection, func, select

from ledger.batch_item import UNFINISHED, ItemState
from ledger.batch_record import BatchCounts
from ledger.batch_writes import TOKENS
from ledger.run_record import Usage
from ledger.tables import batch_items, batches

_WITH_ERROR = [
    state for state in ItemState if state not in (*UNFINISHED, ItemState.COMPLETED)
]  # fmt: skip


def count(connection: Connection, batch_id: str) -> BatchCounts:
    """Count as `Batches.counts` does, in a transaction that sees one state of the ledger."""
    its = batch_items.c
    # By an index alone; the tokens of all items are added up with each of their ends.
    states = select(its.state, func.count()).where(its.batch_id == batch_id).group_by(its.state)
    by_state = dict.fromkeys(ItemState, 0)
    for state, items in connection.execute(states):
        by_state[ItemState(state)] = items
    errors = (
        select(its.error_kind, func.count())
        .where(its.batch_id == batch_id, its.state.in_(_WITH_ERROR), its.error_kind.is_not(None))
        .group_by(its.error_kind)
    )
    used = select(*(batches.c[name] for name in TOKENS)).where(batches.c.batch_id == batch_id)
    tokens = connection.execute(used).first()
    return BatchCounts(
        by_state=by_state,
        by_error_kind={row[0]: row[1] for row in connection.execute(errors)},
        usage=Usage(**dict.fromkeys(TOKENS, 0) if tokens is None else tokens._mapping),
    )
