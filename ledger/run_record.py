"""What the ledger knows of a run, and how a list of runs is asked for."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ledger import limits
from ledger.errors import LedgerRefused

MAX_LIMIT = 100
"""Runs on one page, as in the protocol."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens, as the protocol counts them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run, running or ended."""

    run_id: str
    owner: str = ""
    """Empty until there are tokens."""
    idempotency_key: str | None = None
    """Unique for its owner."""
    request_digest: str | None = None
    """Of the request that the key stands for."""
    thread_id: str | None = None
    assistant_id: str | None = None
    status: str
    created_at: datetime
    updated_at: datetime
    """When this was true; of two that are not ended the later one stands."""
    ended_at: datetime | None = None
    """None: it has not ended. An end stands."""
    usage: Usage | None = None
    contents: str | None = None
    """The run as JSON; None where it wasn't given, or is erased."""
    contents_digest: str | None = None
    """Set by the ledger."""

    def check(self) -> None:
        """Refuse what can't be stored.

        Raises:
            LedgerRefused: it names the field and its limit.
        """
        limits.name("run_id", self.run_id)
        limits.text("owner", self.owner)
        for field in ("idempotency_key", "thread_id", "assistant_id"):
            limits.optional(field, getattr(self, field))
        if self.request_digest is not None:
            limits.digest("request_digest", self.request_digest)
        if len(limits.name("status", self.status)) > limits.MAX_STATUS:
            raise LedgerRefused(f"status must have at most {limits.MAX_STATUS} characters.")
        for field in ("created_at", "updated_at", "ended_at"):
            value = getattr(self, field)
            if value is not None:
                limits.instant(field, value)


@dataclass(frozen=True, kw_only=True)
class RunQuery:
    """What a list is asked for, in the protocol's words."""

    owner: str | None = None
    """None: everybody's."""
    thread_id: str | None = None
    assistant_id: str | None = None
    status: str | None = None
    created_from: datetime | None = None
    """Created then or later."""
    created_until: datetime | None = None
    """Created before then."""
    limit: int = 20
    order: Literal["asc", "desc"] = "desc"
    """By creation, then by id."""
    after: str | None = None
    """A run's id: the page that follows it."""
    before: str | None = None
    """A run's id: the page that ends before it; with `after`, what lies between."""

    def check(self) -> None:
        """Refuse what can't be listed.

        Raises:
            LedgerRefused: a parameter is out of its range.
        """
        if not 1 <= self.limit <= MAX_LIMIT:
            raise LedgerRefused(f"limit must be between 1 and {MAX_LIMIT}, got {self.limit}.")
        if self.order not in ("asc", "desc"):
            raise LedgerRefused(f"order must be asc or desc, got {self.order!r}.")
        for field in ("created_from", "created_until"):
            value = getattr(self, field)
            if value is not None:
                limits.instant(field, value)
        for field in ("owner", "thread_id", "assistant_id", "status", "after", "before"):
            limits.text(field, getattr(self, field) or "")


@dataclass(frozen=True)
class RecordPage:
    """A page of a list."""

    data: list[RunRecord]
    """Without their contents."""
    has_more: bool
