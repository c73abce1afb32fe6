"""The audit trail: one hash chain a run, of everything that was asked, decided and done in it."""

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select, update

from ledger import chain, limits
from ledger.chain import Event, Row
from ledger.contents import Contents
from ledger.database import Database
from ledger.errors import EventChanged
from ledger.tables import audit_heads, audit_rows


class Audit:
    """The trails of all runs."""

    def __init__(self, database: Database, contents: Contents) -> None:
        """Read and write through this database."""
        self._database = database
        self._contents = contents

    async def append(self, run_id: str, events: Sequence[Event]) -> list[Row]:
        """Add events at the end of a run's trail, all or none; return the rows that stand.

        An event whose key stands there already is not added again.

        Raises:
            EventChanged: it stands there and says something else. Nothing is added.
            LedgerRefused: an event can't be stored. Nothing is added.
            LedgerUnavailable: the ledger doesn't answer; try again.
        """
        checked = Appending(run_id, events)
        return await self._database.write(
            run_id, lambda connection: checked.write(connection, self._contents)
        )

    async def read(self, run_id: str) -> list[Row]:
        """Return a run's trail, from its first row on.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        query = select(audit_rows).where(audit_rows.c.run_id == run_id).order_by(audit_rows.c.seq)

        def work(connection: Connection) -> list[Row]:
            return [
                Row(found.run_id, found.seq, found.digest, found.body)
                for found in connection.execute(query)
            ]

        return await self._database.read(work)


class Appending:
    """Events on their way into one run's trail; checked here, before a transaction is begun."""

    def __init__(self, run_id: str, events: Sequence[Event]) -> None:
        """Check them.

        Raises:
            LedgerRefused: one can't be stored.
        """
        self._run_id = limits.name("run_id", run_id)
        self._events = [
            (event, limits.instant("event.at", event.at), chain.said(event)) for event in events
        ]
        for _, at, told in self._events:
            chain.place(told, run_id, at, None)

    def write(self, connection: Connection, contents: Contents) -> list[Row]:
        """Write them within a transaction that has the run's turn.

        Raises:
            EventChanged: one stands there and says something else.
        """
        if not self._events:
            return []
        head = _head(connection, self._run_id)
        last, rows = head, []
        for event, at, told in self._events:
            there = _standing(connection, self._run_id, event.key)
            if there is not None:
                if not chain.says_the_same(there.body, told):
                    raise EventChanged(self._run_id, event.key, there.seq)
                rows.append(there)
                continue
            last = chain.place(told, self._run_id, at, last)
            for text in event.contents.values():
                contents.keep(connection, self._run_id, text, limits.now())
            values = {
                "run_id": self._run_id, "seq": last.seq, "event_key": event.key,
                "kind": event.kind.value, "at": at, "body": last.body, "digest": last.digest,
            }  # fmt: skip
            connection.execute(insert(audit_rows).values(values))
            rows.append(last)
        if last is not None and last is not head:
            _move(connection, last, is_first=head is None)
        return rows


def _head(connection: Connection, run_id: str) -> Row | None:
    query = select(audit_heads.c.seq, audit_heads.c.digest).where(audit_heads.c.run_id == run_id)
    found = connection.execute(query).first()
    return None if found is None else Row(run_id, found.seq, found.digest, "")


def _standing(connection: Connection, run_id: str, key: str) -> Row | None:
    query = select(audit_rows.c.seq, audit_rows.c.digest, audit_rows.c.body).where(
        audit_rows.c.run_id == run_id, audit_rows.c.event_key == key
    )
    found = connection.execute(query).first()
    return None if found is None else Row(run_id, found.seq, found.digest, found.body)


def _move(connection: Connection, last: Row, *, is_first: bool) -> None:
    # Without a checkpoint: the next one is to hold this head.
    values = {"seq": last.seq, "digest": last.digest, "at": limits.now(), "checkpoint": None}
    if is_first:
        connection.execute(insert(audit_heads).values(run_id=last.run_id, **values))
    else:
        connection.execute(
            update(audit_heads).where(audit_heads.c.run_id == last.run_id).values(values)
        )
