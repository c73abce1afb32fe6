"""Whether what people have approved still lets a call run, as the ledger knows it.

A workflow's state may be anybody's; what the ledger has is not.
"""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from ledger.chain import Kind
from ledger.intent import IntentKey
from ledger.tables import audit_rows, decisions

_REVOKED = "The approval for the rest of the run was revoked."
_USED = "The approval has let another call run before."


def refusal(connection: Connection, key: IntentKey, decision_ids: Sequence[str]) -> str | None:
    """Say why decisions let a call run no more; None where they do.

    One for the rest of the run does until it is revoked; any other lets one call run.
    """
    for each in decision_ids:
        given = _for_rest_of_run(connection, each)
        if given is not None:
            if _is_revoked(connection, given):
                return _REVOKED
        elif _is_used(connection, key, each):
            return _USED
    return None


def revocation(connection: Connection, decision_ids: Sequence[str]) -> str | None:
    """Say that one of the decisions was revoked; None where none was."""
    for each in decision_ids:
        given = _for_rest_of_run(connection, each)
        if given is not None and _is_revoked(connection, given):
            return _REVOKED
    return None


def _for_rest_of_run(connection: Connection, decision_id: str) -> Row[Any] | None:
    its = decisions.c.id == decision_id, decisions.c.for_rest_of_run.is_(True)
    return connection.execute(select(decisions).where(*its)).first()


def _is_revoked(connection: Connection, given: Row[Any]) -> bool:
    # By the trail's order, which is one for all workers; their clocks are not.
    query = (
        select(audit_rows.c.body)
        .where(audit_rows.c.run_id == given.run_id, audit_rows.c.kind == Kind.DECISION.value)
        .order_by(audit_rows.c.seq)
    )
    call: str | None = None
    for body in connection.execute(query).scalars():
        facts = json.loads(body).get("facts", {})
        if facts.get("refused") is not None:
            continue
        if facts.get("decision") == given.id:
            call = facts.get("call")
        elif call is not None and (facts.get("kind"), facts.get("call")) == ("revoke", call):
            return True
    return False


def _is_used(connection: Connection, key: IntentKey, decision_id: str) -> bool:
    query = select(audit_rows.c.body).where(
        audit_rows.c.run_id == key.run_id,
        audit_rows.c.kind == Kind.EXECUTION.value,
        audit_rows.c.body.contains(decision_id, autoescape=True),
    )
    for body in connection.execute(query).scalars():
        facts = json.loads(body).get("facts", {})
        here = (facts.get("tool"), facts.get("ordinal")) == (key.tool, key.ordinal)
        if decision_id in facts.get("decisions", ()) and not here:
            return True
    return False
