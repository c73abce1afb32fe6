"""What the items of batches were asked and have answered, sealed as all contents are."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, delete, select

from ledger.bulk import insert_rows
from ledger.contents import Sealing
from ledger.tables import batch_contents, batch_items, erasures

IN_ONE_STATEMENT = 500
"""Values that one statement names; SQLite before 3.32 took at most 999."""


class Part(StrEnum):
    """Which content of an item it is."""

    BODY = "body"
    RESPONSE = "response"
    ERROR = "error"
    MESSAGES = "messages"


ANSWERS = (Part.RESPONSE, Part.ERROR, Part.MESSAGES)
"""The parts that come with an item's end."""


class BatchContents:
    """The contents of all items, within transactions that have their batch's turn."""

    def __init__(self, sealing: Sealing) -> None:
        """Encrypt by this."""
        self._sealing = sealing

    def keep(
        self,
        connection: Connection,
        batch_id: str,
        texts: Iterable[tuple[int, Part, str]],
        at: datetime,
    ) -> None:
        """Store contents by item and part; none of them may stand there already."""
        rows = [
            {
                "batch_id": batch_id, "item_index": index, "part": part.value,
                "body": self._sealing.seal(text.encode(errors="surrogatepass")), "stored_at": at,
            }
            for index, part, text in texts
        ]  # fmt: skip
        insert_rows(connection, batch_contents, rows)

    def find(
        self, connection: Connection, batch_id: str, indexes: Sequence[int], parts: Sequence[Part]
    ) -> Mapping[tuple[int, Part], str]:
        """Return such contents as there are."""
        its = batch_contents.c
        found: dict[tuple[int, Part], str] = {}
        for some in in_pieces(indexes):
            query = select(its.item_index, its.part, its.body).where(
                its.batch_id == batch_id, its.item_index.in_(some), its.part.in_(parts)
            )
            for index, part, body in connection.execute(query):
                text = self._sealing.unseal(body).decode(errors="surrogatepass")
                found[index, Part(part)] = text
        return found


def remove(
    connection: Connection, batch_id: str, indexes: Sequence[int], parts: Sequence[Part]
) -> int:
    """Remove contents of items; count them."""
    its = batch_contents.c
    return sum(
        connection.execute(
            delete(batch_contents).where(
                its.batch_id == batch_id, its.item_index.in_(some), its.part.in_(parts)
            )
        ).rowcount
        for some in in_pieces(indexes)
    )


def having(connection: Connection, batch_id: str, indexes: Sequence[int], part: Part) -> set[int]:
    """Return those of the items that have this content."""
    its = batch_contents.c
    found = set[int]()
    for some in in_pieces(indexes):
        query = select(its.item_index).where(
            its.batch_id == batch_id, its.item_index.in_(some), its.part == part
        )
        found.update(connection.execute(query).scalars())
    return found


def erased(connection: Connection, run_ids: Sequence[str]) -> set[str]:
    """Return those of the runs of which nothing may be stored any more."""
    found = set[str]()
    for some in in_pieces(run_ids):
        query = select(erasures.c.run_id).where(erasures.c.run_id.in_(some))
        found.update(connection.execute(query).scalars())
    return found


def items_of_run(connection: Connection, run_id: str) -> list[tuple[str, int]]:
    """Return the items whose run it is, by batch and index: one at most, but for chance."""
    its = batch_items.c
    query = select(its.batch_id, its.item_index).where(its.run_id == run_id)
    return [(row.batch_id, row.item_index) for row in connection.execute(query)]


def in_pieces(values: Sequence[Any]) -> Iterable[Sequence[Any]]:
    """Yield values by so many as one statement takes."""
    for start in range(0, len(values), IN_ONE_STATEMENT):
        yield values[start : start + IN_ONE_STATEMENT]
