"""Signed checkpoints: what the end of every chain was at a time, in a chain of their own.

Whoever can write the database can write a whole chain anew, but not what was signed before. A
checkpoint holds the heads that have moved since the one before it; kept in a second place, they
show a database that was set back or written anew as a whole.
"""

import json
from typing import Any

from sqlalchemy import Connection, insert, select, update

from ledger import chain, limits
from ledger.database import Database
from ledger.signing import Signer
from ledger.tables import audit_heads, checkpoints

MAX_HEADS = 2_000
"""In one checkpoint, which is one line of text."""
KIND = "checkpoint"

_TURN = "checkpoint"


class Checkpoints:
    """The checkpoints of a ledger."""

    def __init__(self, database: Database) -> None:
        """Read and write through this database."""
        self._database = database

    async def make(self, signer: Signer) -> list[str]:
        """Sign all heads that have moved; return the new checkpoints, each a line of JSON.

        None where nothing has moved. Several processes may ask at once. What is returned stands in
        the ledger already: `since` gives it again to whoever lost it on its way elsewhere.

        Raises:
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        made: list[str] = []
        while True:
            line = await self._database.write(_TURN, lambda connection: _make(connection, signer))
            if line is None:
                return made
            made.append(line)

    async def latest(self) -> str | None:
        """Return the latest checkpoint; None where there is none.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        query = select(checkpoints.c.body).order_by(checkpoints.c.number.desc()).limit(1)
        return await self._database.read(lambda connection: connection.execute(query).scalar())

    async def since(self, number: int) -> list[str]:
        """Return the checkpoints after this number, oldest first; they are numbered from 1.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        query = (
            select(checkpoints.c.body)
            .where(checkpoints.c.number > number)
            .order_by(checkpoints.c.number)
        )
        return await self._database.read(
            lambda connection: list(connection.execute(query).scalars())
        )


def _make(connection: Connection, signer: Signer) -> str | None:
    moved = connection.execute(
        select(audit_heads.c.run_id, audit_heads.c.seq, audit_heads.c.digest)
        .where(audit_heads.c.checkpoint.is_(None))
        .order_by(audit_heads.c.run_id)
        .limit(MAX_HEADS)
    ).all()
    if not moved:
        return None
    newest = select(checkpoints.c.number, checkpoints.c.body).order_by(checkpoints.c.number.desc())
    last = connection.execute(newest.limit(1)).first()
    number = 1 if last is None else last.number + 1
    at = limits.now()
    body: dict[str, Any] = {
        "v": 1,
        "number": number,
        "at": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "previous": None if last is None else digest(last.body),
        "heads": {head.run_id: [head.seq, head.digest] for head in moved},
    }
    line = signer.sign(KIND, body)
    connection.execute(insert(checkpoints).values(number=number, at=at, body=line))
    for head in moved:
        # Whoever appended meanwhile has moved it on: it stays for the next one.
        connection.execute(
            update(audit_heads)
            .where(audit_heads.c.run_id == head.run_id, audit_heads.c.seq == head.seq)
            .values(checkpoint=number)
        )
    return line


def digest(line: str) -> str:
    """Return what the next checkpoint calls this one."""
    return chain.body_digest(chain.canonical(json.loads(line)["body"]))
