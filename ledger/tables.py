"""The ledger's tables. What is changed here is changed by a migration too.

Contents stand in `contents`, by run and digest, and those of batches in `batch_contents`, by item,
which is written and read by the thousand; uploaded files in `file_chunks`, and what a batch over
HTTP was given beside its input in `batch_notes`. Every other table holds digests alone. So
contents can be erased, and what remains still proves what was there.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

from ledger.limits import MAX_NAME

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Instant(TypeDecorator[datetime]):
    """An instant, as microseconds since 1970: SQLite has no time with a zone."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Return what is stored; the instant must have a zone."""
        return None if value is None else (value - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Return the instant, in UTC."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class Amount(TypeDecorator[Decimal]):
    """An exact decimal number, as it is written: SQLite would keep it as a binary fraction."""

    impl = String(64)
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:
        """Return what is stored."""
        return None if value is None else f"{value:f}"

    def process_result_value(self, value: str | None, dialect: Dialect) -> Decimal | None:
        """Return the number."""
        return None if value is None else Decimal(value)


def _name() -> String:
    return String(MAX_NAME)


def _digest() -> String:
    return String(80)


metadata = MetaData()

contents = Table(
    "contents",
    metadata,
    Column("run_id", _name(), primary_key=True),
    Column("digest", _digest(), primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("stored_at", Instant, nullable=False),
    Index("contents_by_age", "stored_at"),
)

erasures = Table(
    "erasures",
    metadata,
    Column("run_id", _name(), primary_key=True),
    Column("erased_at", Instant, nullable=False),
)

intents = Table(
    "intents",
    metadata,
    Column("run_id", _name(), primary_key=True),
    Column("tool", _name(), primary_key=True),
    Column("arguments_digest", _digest(), primary_key=True),
    Column("ordinal", Integer, primary_key=True, autoincrement=False),
    Column("call_id", _name(), nullable=False),
    Column("execution", _name(), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("nonce", _name(), nullable=False),
    Column("latest_nonce", _name(), nullable=False),
    Column("state", String(16), nullable=False),
    Column("outcome", _name()),
    Column("result_digest", _digest()),
    Column("reason", _name()),
    Column("settled_by", _name()),
    Column("begun_at", Instant, nullable=False),
    Column("ended_at", Instant),
    Index("intents_by_age", "ended_at"),
)

audit_rows = Table(
    "audit_rows",
    metadata,
    Column("run_id", _name(), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("event_key", _name(), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("at", Instant, nullable=False),
    Column("body", Text, nullable=False),
    Column("digest", _digest(), nullable=False),
    UniqueConstraint("run_id", "event_key", name="audit_rows_once"),
    Index("audit_rows_by_age", "at"),
)

audit_heads = Table(
    "audit_heads",
    metadata,
    Column("run_id", _name(), primary_key=True),
    Column("seq", Integer, nullable=False),
    Column("digest", _digest(), nullable=False),
    Column("at", Instant, nullable=False),
    Column("checkpoint", BigInteger),
    Column("pruned_at", Instant),
    Index("audit_heads_by_age", "at"),
    Index("audit_heads_by_checkpoint", "checkpoint"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
    Column("body", Text, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", _name(), primary_key=True),
    Column("owner", _name(), nullable=False),
    Column("idempotency_key", _name()),
    Column("request_digest", _digest()),
    Column("thread_id", _name()),
    Column("assistant_id", _name()),
    Column("status", String(32), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("ended_at", Instant),
    Column("updated_at", Instant, nullable=False),
    Column("prompt_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("total_tokens", BigInteger),
    Column("contents_digest", _digest()),
    UniqueConstraint("owner", "idempotency_key", name="runs_by_key"),
    Index("runs_by_age", "created_at", "run_id"),
    Index("runs_by_thread", "thread_id", "created_at", "run_id"),
    Index("runs_by_owner", "owner", "created_at", "run_id"),
    Index("runs_by_end", "ended_at"),
)

approvals = Table(
    "approvals",
    metadata,
    Column("run_id", _name(), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("call_id", _name(), primary_key=True),
    Column("owner", _name(), nullable=False),
    Column("tool", _name(), nullable=False),
    Column("tool_digest", _digest()),
    Column("arguments_digest", _digest(), nullable=False),
    Column("reason_digest", _digest()),
    Column("groups", Text, nullable=False),
    Column("approvers", Text, nullable=False),
    Column("need", Integer, nullable=False),
    Column("have", Integer, nullable=False),
    Column("since", Instant, nullable=False),
    Column("deadline", Instant),
    Column("state", String(16), nullable=False),
    Column("claimed_by", _name()),
    Column("decided_by", _name()),
    Column("outcome", _name()),
    Column("changed_at", Instant, nullable=False),
    Index("approvals_by_state", "state", "since", "run_id", "call_id", "attempt", "round"),
    Index("approvals_by_age", "changed_at"),
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", _name(), primary_key=True),
    Column("run_id", _name(), nullable=False),
    Column("call_id", _name(), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("by", _name(), nullable=False),
    Column("at", Instant, nullable=False),
    Column("face", _name(), nullable=False),
    Column("token", _name()),
    Column("token_made_by", _name()),
    Column("tool_digest", _digest()),
    Column("arguments_digest", _digest()),
    Column("note_digest", _digest()),
    Column("edited_digest", _digest()),
    Column("output_digest", _digest()),
    Column("shown", _digest()),
    Column("for_rest_of_run", Boolean, nullable=False),
    Column("groups", Text, nullable=False),
    Column("key_id", _name(), nullable=False),
    Column("signature", Text, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    Index("decisions_by_run", "run_id", "at", "id"),
    Index("decisions_by_age", "recorded_at"),
)

recorded = Table(
    "recorded",
    metadata,
    Column("source", _name(), primary_key=True),
    Column("until", Instant, nullable=False),
)

stops = Table(
    "stops",
    metadata,
    Column("scope", String(16), primary_key=True),
    Column("target", _name(), primary_key=True),
    Column("by", _name(), nullable=False),
    Column("reason", _name(), nullable=False),
    Column("since", Instant, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("digest", _digest(), primary_key=True),
    Column("name", _name(), nullable=False),
    Column("person", _name(), nullable=False),
    Column("role", String(16), nullable=False),
    Column("groups", Text, nullable=False),
    Column("made_by", _name(), nullable=False),
    Column("made_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("is_for_proxy", Boolean, nullable=False),
    Column("is_ups", Boolean, nullable=False),
    Column("revoked_at", Instant),
    Column("revoked_by", _name()),
    Index("tokens_by_name", "name"),
)

batches = Table(
    "batches",
    metadata,
    Column("batch_id", _name(), primary_key=True),
    Column("owner", _name(), nullable=False),
    Column("name", _name(), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("input_digest", _digest(), nullable=False),
    Column("status", String(32), nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("options", Text, nullable=False),
    Column("deadline", Instant),
    Column("token_limit", BigInteger),
    Column("cost_limit", Amount),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("total_tokens", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    Column("paused_reason", _name()),
    Column("paused_by", _name()),
    Column("paused_at", Instant),
    Column("held_until", Instant),
    UniqueConstraint("owner", "name", "generation", name="batches_by_name"),
    Index("batches_by_age", "created_at", "batch_id"),
    Index("batches_by_owner", "owner", "created_at", "batch_id"),
    Index("batches_by_end", "ended_at"),
)

batch_lanes = Table(
    "batch_lanes",
    metadata,
    Column("batch_id", _name(), primary_key=True),
    Column("lane", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("holder", _name(), nullable=False),
)

batch_paces = Table(
    "batch_paces",
    metadata,
    Column("batch_id", _name(), primary_key=True),
    Column("next_at", BigInteger, nullable=False),
)

batch_items = Table(
    "batch_items",
    metadata,
    Column("batch_id", _name(), primary_key=True),
    Column("item_index", BigInteger, primary_key=True, autoincrement=False),
    Column("custom_id", _name(), nullable=False),
    Column("thread_id", _name()),
    Column("digest", _digest(), nullable=False),
    Column("state", String(16), nullable=False),
    Column("is_behind", Boolean, nullable=False),
    Column("lane", Integer),
    Column("epoch", BigInteger),
    Column("not_before", Instant),
    Column("tries", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("run_id", _name()),
    Column("intended_at", Instant),
    Column("made_thread", _name()),
    Column("upstream_run_id", _name()),
    Column("seq", BigInteger),
    Column("status_code", Integer),
    Column("error_kind", _name()),
    Column("response_digest", _digest()),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("total_tokens", BigInteger, nullable=False),
    Column("ended_at", Instant),
    UniqueConstraint("batch_id", "custom_id", name="batch_items_once"),
    Index("batch_items_by_state", "batch_id", "state", "is_behind", "item_index"),
    Index("batch_items_by_seq", "batch_id", "seq"),
    Index("batch_items_by_run", "run_id"),
    Index(
        "batch_items_by_thread",
        "batch_id",
        "thread_id",
        "state",
        "is_behind",
        "item_index",
        sqlite_where=text("thread_id IS NOT NULL"),
        postgresql_where=text("thread_id IS NOT NULL"),
    ),
)

batch_contents = Table(
    "batch_contents",
    metadata,
    Column("batch_id", _name(), primary_key=True),
    Column("item_index", BigInteger, primary_key=True, autoincrement=False),
    Column("part", String(16), primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("stored_at", Instant, nullable=False),
    Index("batch_contents_by_age", "stored_at"),
)

files = Table(
    "files",
    metadata,
    Column("file_id", _name(), primary_key=True),
    Column("owner", _name(), nullable=False),
    Column("filename", _name(), nullable=False),
    Column("purpose", _name(), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("digest", _digest()),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Index("files_by_age", "created_at", "file_id"),
    Index("files_by_owner", "owner", "created_at", "file_id"),
    Index("files_by_expiry", "expires_at"),
)

file_chunks = Table(
    "file_chunks",
    metadata,
    Column("file_id", _name(), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
)

batch_notes = Table(
    "batch_notes",
    metadata,
    Column("batch_id", _name(), primary_key=True),
    Column("part", String(16), primary_key=True),
    Column("body", LargeBinary, nullable=False),
)
