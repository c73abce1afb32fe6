"""Exports of audit trails: JSON lines that anybody with the public key can verify.

| `type` | what it says | how often |
|---|---|---|
| `checkpoint` | the ends of chains as they were signed at a time; first in the file | each |
| `row` | one event: its `body` and the digest that stands in the ledger | each run's, in order |
| `run` | the digests of the run's rows, and where the ledger says that the chain ends; signed | after its rows |
| `end` | how many runs and rows there are, and a digest of all `run` lines; signed | once, last |

Contents are in none of them.
"""  # noqa: E501 # a table's row is one line

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from ledger import chain, limits
from ledger.chain import Row
from ledger.database import Database
from ledger.signing import Signer
from ledger.tables import audit_heads, audit_rows, checkpoints

ROW = "row"
RUN = "run"
END = "end"


@dataclass(frozen=True)
class Exported:
    """What an export holds."""

    runs: int
    rows: int


async def export(
    database: Database,
    write: Callable[[str], object],
    signer: Signer,
    *,
    run_id: str | None = None,
    since: datetime | None = None,
) -> Exported:
    """Write trails as lines of JSON, as they are at one moment.

    Args:
        database: the ledger's.
        write: takes one line with its end; called in a thread.
        signer: signs what the export holds.
        run_id: only this run.
        since: only runs of which something was written from then on; their trails are whole.

    Raises:
        LedgerUnavailable: the ledger doesn't answer; what was written is of no use.
        LedgerRefused: `since` has no time zone.
    """
    if since is not None:
        since = limits.instant("since", since)
    whole = run_id is None and since is None

    def work(connection: Connection) -> Exported:
        signed = 0
        for line in _checkpoints(connection):
            signed += 1
            write(line + "\n")
        heads = connection.execute(_heads(run_id, since)).all()
        rows, summary = 0, chain.body_digest(b"")
        for number, head in enumerate(heads, start=1):
            digests: list[str] = []
            for row in _rows(connection, head.run_id):
                digests.append(row.digest)
                write(row.line + "\n")
            rows += len(digests)
            body: dict[str, Any] = {
                "run": head.run_id,
                "number": number,
                "head": [head.seq, head.digest],
                "digests": digests,
                "pruned": head.pruned_at is not None,
            }
            line = signer.sign(RUN, body)
            summary = chain.body_digest((summary + line).encode())
            write(line + "\n")
        end = {
            "checkpoints": signed, "runs": len(heads), "rows": rows, "summary": summary,
            "whole": whole,
        }  # fmt: skip
        at = limits.now().isoformat(timespec="microseconds").replace("+00:00", "Z")
        write(signer.sign(END, {**end, "at": at}) + "\n")
        return Exported(len(heads), rows)

    return await database.read(work)


def _checkpoints(connection: Connection) -> Iterator[str]:
    query = select(checkpoints.c.body).order_by(checkpoints.c.number)
    yield from connection.execute(query.execution_options(yield_per=100)).scalars()


def _heads(run_id: str | None, since: datetime | None) -> Select[Any]:
    query = select(audit_heads).order_by(audit_heads.c.run_id)
    if run_id is not None:
        query = query.where(audit_heads.c.run_id == run_id)
    if since is not None:
        query = query.where(audit_heads.c.at >= since)
    return query


def _rows(connection: Connection, run_id: str) -> Iterator[Row]:
    query = select(audit_rows).where(audit_rows.c.run_id == run_id).order_by(audit_rows.c.seq)
    for found in connection.execute(query.execution_options(yield_per=1_000)):
        yield Row(found.run_id, found.seq, found.digest, found.body)
