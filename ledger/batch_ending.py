"""Ending items: each gets its number in the order of ends, and its tokens are added up."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, select, update

from ledger import batch_rows, limits
from ledger.batch_contents import BatchContents, Part, erased
from ledger.batch_item import ItemOutcome
from ledger.batch_writes import TOKENS, Changes, ended
from ledger.tables import batches

OUTCOME = ("state", "thread_id", "run_id", *TOKENS)
"""The columns of a row that its end looks at."""


def end(
    connection: Connection,
    contents: BatchContents,
    batch_id: str,
    ends: Mapping[int, ItemOutcome],
    rows: Mapping[int, Mapping[str, Any]],
) -> None:
    """End items by somebody who holds no epoch; who does finds out that they are gone on."""
    changes = {index: {**ended(rows[index], ends[index]), "epoch": None} for index in ends}
    write(connection, contents, batch_id, changes=changes, rows=rows, ends=ends)


def write(
    connection: Connection,
    contents: BatchContents,
    batch_id: str,
    *,
    changes: dict[int, Changes],
    rows: Mapping[int, Mapping[str, Any]],
    ends: Mapping[int, ItemOutcome],
) -> None:
    """Write changes of rows, and what goes with those that end.

    Args:
        connection: of a transaction that has the batch's turn.
        contents: of all batches.
        batch_id: which.
        changes: by index, those of the ends included.
        rows: as they stood before, by index, with the columns of `OUTCOME`.
        ends: of the items that end now, by index, in their order.
    """
    used = [index for index, values in changes.items() if "total_tokens" in values]
    last = batches.c.last_seq
    if ends or used:
        its = batches.c.batch_id == batch_id
        seq = connection.execute(select(last).where(its)).scalar_one()
        for number, index in enumerate(ends, start=seq + 1):
            changes[index]["seq"] = number
        more = {
            name: batches.c[name] + sum(changes[index][name] - rows[index][name] for index in used)
            for name in TOKENS
        }
        connection.execute(update(batches).where(its).values(last_seq=seq + len(ends), **more))
    batch_rows.change(connection, batch_id, changes)
    if not ends:
        return
    run_of = {index: changes[index].get("run_id", rows[index]["run_id"]) for index in ends}
    gone = erased(connection, [run_id for run_id in run_of.values() if run_id is not None])
    kept = {index: outcome for index, outcome in ends.items() if run_of[index] not in gone}
    contents.keep(connection, batch_id, _texts(kept), limits.now())
    on_threads = [index for index in ends if rows[index]["thread_id"] is not None]
    batch_rows.let_on(connection, batch_id, on_threads)


def _texts(ends: Mapping[int, ItemOutcome]) -> Iterable[tuple[int, Part, str]]:
    for index, outcome in ends.items():
        if outcome.response is not None:
            yield index, Part.RESPONSE, outcome.response
        if outcome.error is not None:
            yield index, Part.ERROR, outcome.error
        if outcome.messages is not None:
            yield index, Part.MESSAGES, outcome.messages
