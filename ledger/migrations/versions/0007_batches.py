"""Batches: their items, who drives them, and what they were asked and have answered."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def _name(column: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(column, sa.String(255), nullable=nullable)


def _digest(column: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(column, sa.String(80), nullable=nullable)


def _number(column: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(column, sa.Integer, nullable=nullable)


def _long(column: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(column, sa.BigInteger, nullable=nullable)


def upgrade() -> None:
    """Make the tables."""
    _batches()
    op.create_table(
        "batch_lanes",
        _name("batch_id"),
        _number("lane"),
        _long("epoch"),
        _name("holder"),
        sa.PrimaryKeyConstraint("batch_id", "lane"),
    )
    _items()
    op.create_table(
        "batch_contents",
        _name("batch_id"),
        _long("item_index"),
        sa.Column("part", sa.String(16), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        _long("stored_at"),
        sa.PrimaryKeyConstraint("batch_id", "item_index", "part"),
    )
    op.create_index("batch_contents_by_age", "batch_contents", ["stored_at"])


def _batches() -> None:
    op.create_table(
        "batches",
        _name("batch_id"),
        _name("owner"),
        _name("name"),
        _number("generation"),
        _digest("input_digest"),
        sa.Column("status", sa.String(32), nullable=False),
        _long("total"),
        sa.Column("options", sa.Text, nullable=False),
        _long("deadline", nullable=True),
        _long("token_limit", nullable=True),
        _long("prompt_tokens"),
        _long("completion_tokens"),
        _long("total_tokens"),
        _long("last_seq"),
        _long("created_at"),
        _long("started_at", nullable=True),
        _long("ended_at", nullable=True),
        _name("paused_reason", nullable=True),
        _name("paused_by", nullable=True),
        _long("paused_at", nullable=True),
        sa.PrimaryKeyConstraint("batch_id"),
        sa.UniqueConstraint("owner", "name", "generation", name="batches_by_name"),
    )
    op.create_index("batches_by_age", "batches", ["created_at", "batch_id"])
    op.create_index("batches_by_owner", "batches", ["owner", "created_at", "batch_id"])
    op.create_index("batches_by_end", "batches", ["ended_at"])


def _items() -> None:
    op.create_table(
        "batch_items",
        _name("batch_id"),
        _long("item_index"),
        _name("custom_id"),
        _name("thread_id", nullable=True),
        _digest("digest"),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("is_behind", sa.Boolean, nullable=False),
        _number("lane", nullable=True),
        _long("epoch", nullable=True),
        _long("not_before", nullable=True),
        _number("tries"),
        _number("generation"),
        _number("attempt"),
        _name("run_id", nullable=True),
        _long("intended_at", nullable=True),
        _name("made_thread", nullable=True),
        _name("upstream_run_id", nullable=True),
        _long("seq", nullable=True),
        _number("status_code", nullable=True),
        _name("error_kind", nullable=True),
        _digest("response_digest", nullable=True),
        _long("prompt_tokens"),
        _long("completion_tokens"),
        _long("total_tokens"),
        _long("ended_at", nullable=True),
        sa.PrimaryKeyConstraint("batch_id", "item_index"),
        sa.UniqueConstraint("batch_id", "custom_id", name="batch_items_once"),
    )
    op.create_index(
        "batch_items_by_state", "batch_items", ["batch_id", "state", "is_behind", "item_index"]
    )
    op.create_index("batch_items_by_seq", "batch_items", ["batch_id", "seq"])
    op.create_index("batch_items_by_run", "batch_items", ["run_id"])
    on_a_thread = sa.text("thread_id IS NOT NULL")
    op.create_index(
        "batch_items_by_thread",
        "batch_items",
        ["batch_id", "thread_id", "state", "is_behind", "item_index"],
        sqlite_where=on_a_thread,
        postgresql_where=on_a_thread,
    )
