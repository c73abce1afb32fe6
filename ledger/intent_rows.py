"""Intents as rows of their table, within a transaction that has the run's turn."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Row, and_, insert, select, update

from ledger.contents import Contents
from ledger.intent import Execution, Intent, IntentKey, State
from ledger.tables import contents, intents

_arguments = contents.alias()
_result = contents.alias()


def _body(of: FromClause, digest: ColumnElement[str]) -> ColumnElement[bool]:
    return and_(of.c.run_id == intents.c.run_id, of.c.digest == digest)


SELECT = (
    select(intents, _arguments.c.body.label("arguments_body"), _result.c.body.label("result_body"))
    .outerjoin(_arguments, _body(_arguments, intents.c.arguments_digest))
    .outerjoin(_result, _body(_result, intents.c.result_digest))
)
"""Intents with such contents as there are."""


class IntentRows:
    """Rows and the contents that they name."""

    def __init__(self, contents: Contents) -> None:
        """Find contents here."""
        self._contents = contents

    def find(self, connection: Connection, key: IntentKey) -> Intent | None:
        """Return what stands about a call; None where nothing does."""
        row = connection.execute(SELECT.where(_is(key))).first()
        return None if row is None else self.read(row)

    def standing(self, connection: Connection, key: IntentKey) -> Intent:
        """Return what stands about a call about which something does."""
        found = self.find(connection, key)
        assert found is not None
        return found

    def read(self, row: Row[Any]) -> Intent:
        """Return a row of `SELECT` as an intent."""
        return Intent(
            key=IntentKey(
                run_id=row.run_id,
                tool=row.tool,
                arguments_digest=row.arguments_digest,
                ordinal=row.ordinal,
            ),
            call_id=row.call_id,
            execution=Execution(id=row.execution, attempt=row.attempt, nonce=row.nonce),
            state=State(row.state),
            outcome=row.outcome,
            result_digest=row.result_digest,
            reason=row.reason,
            settled_by=row.settled_by,
            begun_at=row.begun_at,
            ended_at=row.ended_at,
            latest_nonce=row.latest_nonce,
            arguments=self._contents.opened(row.arguments_body),
            result=self._contents.opened(row.result_body),
        )

    def end(
        self,
        connection: Connection,
        key: IntentKey,
        outcome: str,
        result: str | None,
        now: datetime,
    ) -> None:
        """Write that a call is finished."""
        digest = None
        if result is not None:
            digest = self._contents.keep(connection, key.run_id, result, now)
        ended = {"state": State.FINISHED.value, "outcome": outcome, "result_digest": digest}
        put(connection, key, {**ended, "ended_at": now})


NOTHING_KNOWN = {
    "outcome": None, "result_digest": None, "reason": None, "settled_by": None, "ended_at": None
}  # fmt: skip


def begun(call_id: str, execution: Execution, now: datetime) -> dict[str, Any]:
    """Return the columns of a beginning."""
    return {
        "call_id": call_id, "execution": execution.id, "attempt": execution.attempt,
        "nonce": execution.nonce, "latest_nonce": execution.nonce, "state": State.BEGUN.value,
        "begun_at": now,
    }  # fmt: skip


def _columns(key: IntentKey) -> dict[str, Any]:
    return {
        "run_id": key.run_id, "tool": key.tool, "arguments_digest": key.arguments_digest,
        "ordinal": key.ordinal,
    }  # fmt: skip


def _is(key: IntentKey) -> ColumnElement[bool]:
    return and_(*(intents.c[name] == value for name, value in _columns(key).items()))


def add(connection: Connection, key: IntentKey, values: Mapping[str, Any]) -> None:
    """Insert an intent's row."""
    connection.execute(insert(intents).values(**_columns(key), **values))


def put(connection: Connection, key: IntentKey, values: Mapping[str, Any]) -> None:
    """Set columns of an intent's row."""
    connection.execute(update(intents).where(_is(key)).values(values))
