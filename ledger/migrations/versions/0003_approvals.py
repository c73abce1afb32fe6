"""Calls that wait for people, and what people said."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def _name(column: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(column, sa.String(255), nullable=nullable)


def _digest(column: str, *, nullable: bool = True) -> sa.Column[str]:
    return sa.Column(column, sa.String(80), nullable=nullable)


def _number(column: str) -> sa.Column[int]:
    return sa.Column(column, sa.Integer, nullable=False)


def _instant(column: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(column, sa.BigInteger, nullable=nullable)


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "approvals",
        _name("run_id"),
        _number("attempt"),
        _number("round"),
        _name("call_id"),
        _name("owner"),
        _name("tool"),
        _digest("tool_digest"),
        _digest("arguments_digest", nullable=False),
        _digest("reason_digest"),
        sa.Column("groups", sa.Text, nullable=False),
        sa.Column("approvers", sa.Text, nullable=False),
        _number("need"),
        _number("have"),
        _instant("since"),
        _instant("deadline", nullable=True),
        sa.Column("state", sa.String(16), nullable=False),
        _name("claimed_by", nullable=True),
        _name("decided_by", nullable=True),
        _name("outcome", nullable=True),
        _instant("changed_at"),
        sa.PrimaryKeyConstraint("run_id", "attempt", "round", "call_id"),
    )
    op.create_index(
        "approvals_by_state",
        "approvals",
        ["state", "since", "run_id", "call_id", "attempt", "round"],
    )
    op.create_index("approvals_by_age", "approvals", ["changed_at"])
    op.create_table(
        "decisions",
        _name("id"),
        _name("run_id"),
        _name("call_id"),
        sa.Column("kind", sa.String(16), nullable=False),
        _name("by"),
        _instant("at"),
        _name("face"),
        _name("token", nullable=True),
        _digest("tool_digest"),
        _digest("arguments_digest"),
        _digest("note_digest"),
        _digest("edited_digest"),
        _digest("output_digest"),
        _digest("shown"),
        sa.Column("for_rest_of_run", sa.Boolean, nullable=False),
        sa.Column("groups", sa.Text, nullable=False),
        _name("key_id"),
        sa.Column("signature", sa.Text, nullable=False),
        _instant("recorded_at"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("decisions_by_run", "decisions", ["run_id", "at", "id"])
    op.create_index("decisions_by_age", "decisions", ["recorded_at"])
