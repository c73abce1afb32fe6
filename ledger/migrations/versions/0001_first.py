"""The first schema: contents, intents, the audit trail, runs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _name(column: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(column, sa.String(255), nullable=nullable)


def _digest(column: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(column, sa.String(80), nullable=nullable)


def _instant(column: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(column, sa.BigInteger, nullable=nullable)


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "contents",
        _name("run_id"),
        _digest("digest"),
        sa.Column("body", sa.LargeBinary, nullable=False),
        _instant("stored_at"),
        sa.PrimaryKeyConstraint("run_id", "digest"),
    )
    op.create_index("contents_by_age", "contents", ["stored_at"])
    op.create_table(
        "erasures", _name("run_id"), _instant("erased_at"), sa.PrimaryKeyConstraint("run_id")
    )
    op.create_table(
        "intents",
        _name("run_id"),
        _name("tool"),
        _digest("arguments_digest"),
        sa.Column("ordinal", sa.Integer, nullable=False),
        _name("call_id"),
        _name("execution"),
        sa.Column("attempt", sa.Integer, nullable=False),
        _name("nonce"),
        _name("latest_nonce"),
        sa.Column("state", sa.String(16), nullable=False),
        _name("outcome", nullable=True),
        _digest("result_digest", nullable=True),
        _name("reason", nullable=True),
        _name("settled_by", nullable=True),
        _instant("begun_at"),
        _instant("ended_at", nullable=True),
        sa.PrimaryKeyConstraint("run_id", "tool", "arguments_digest", "ordinal"),
    )
    op.create_index("intents_by_age", "intents", ["ended_at"])
    op.create_table(
        "audit_rows",
        _name("run_id"),
        sa.Column("seq", sa.Integer, nullable=False),
        _name("event_key"),
        sa.Column("kind", sa.String(32), nullable=False),
        _instant("at"),
        sa.Column("body", sa.Text, nullable=False),
        _digest("digest"),
        sa.PrimaryKeyConstraint("run_id", "seq"),
        sa.UniqueConstraint("run_id", "event_key", name="audit_rows_once"),
    )
    op.create_index("audit_rows_by_age", "audit_rows", ["at"])
    op.create_table(
        "audit_heads",
        _name("run_id"),
        sa.Column("seq", sa.Integer, nullable=False),
        _digest("digest"),
        _instant("at"),
        sa.Column("checkpoint", sa.BigInteger),
        _instant("pruned_at", nullable=True),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_index("audit_heads_by_age", "audit_heads", ["at"])
    op.create_index("audit_heads_by_checkpoint", "audit_heads", ["checkpoint"])
    op.create_table(
        "checkpoints",
        sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
        _instant("at"),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_table(
        "runs",
        _name("run_id"),
        _name("owner"),
        _name("idempotency_key", nullable=True),
        _digest("request_digest", nullable=True),
        _name("thread_id", nullable=True),
        _name("assistant_id", nullable=True),
        sa.Column("status", sa.String(32), nullable=False),
        _instant("created_at"),
        _instant("ended_at", nullable=True),
        _instant("updated_at"),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("completion_tokens", sa.BigInteger),
        sa.Column("total_tokens", sa.BigInteger),
        _digest("contents_digest", nullable=True),
        sa.PrimaryKeyConstraint("run_id"),
        sa.UniqueConstraint("owner", "idempotency_key", name="runs_by_key"),
    )
    op.create_index("runs_by_age", "runs", ["created_at", "run_id"])
    op.create_index("runs_by_thread", "runs", ["thread_id", "created_at", "run_id"])
    op.create_index("runs_by_owner", "runs", ["owner", "created_at", "run_id"])
    op.create_index("runs_by_end", "runs", ["ended_at"])
