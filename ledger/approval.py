"""A call that waits for people, and how a list of them is asked for."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from ledger import limits
from ledger.errors import LedgerRefused

MAX_LIMIT = 5_000
"""Approvals on one page."""


class Standing(StrEnum):
    """How far an approval has come."""

    WAITING = "waiting"
    DECIDED = "decided"
    CLOSED = "closed"
    """Nobody has to decide it any more: its run has ended, or its round is answered."""


@dataclass(frozen=True, kw_only=True)
class ApprovalKey:
    """Which call it is. An upstream may give an id a second time, in another round."""

    run_id: str
    attempt: int
    """Of our run, from 1: which upstream run asks."""
    round: int
    call_id: str
    """The upstream's; one that can't be stored stands here by its digest."""

    def __post_init__(self) -> None:
        """Make the id one that can be stored."""
        object.__setattr__(self, "call_id", limits.short(self.call_id))


@dataclass(frozen=True, kw_only=True)
class Approval:
    """What stands in the ledger about it."""

    key: ApprovalKey
    owner: str = ""
    """The run's; empty until there are tokens."""
    tool: str
    tool_digest: str | None = None
    """Of the tool's schema."""
    arguments_digest: str
    arguments: str | None = field(default=None, repr=False)
    """As canonical JSON, of which the digest is. None: not asked for, or erased."""
    reason: str | None = field(default=None, repr=False)
    """The policy's words."""
    groups: tuple[str, ...] = ()
    """Those whose turn it is."""
    approvers: tuple[str, ...] = ()
    need: int = 1
    """How many approvals let it run."""
    have: int = 0
    since: datetime
    deadline: datetime | None = None
    state: Standing = Standing.WAITING
    claimed_by: str | None = None
    decided_by: str | None = None
    """The person whose word was the last one needed; None where it was the deadline."""
    outcome: str | None = None
    """A word of the caller's: what was decided, or why it was closed."""
    changed_at: datetime | None = None
    """Set by the ledger."""

    def check(self) -> None:
        """Refuse what can't be stored.

        Raises:
            LedgerRefused: it names the field and its limit.
        """
        limits.name("run_id", self.key.run_id)
        limits.text("owner", self.owner)
        limits.name("tool", self.tool)
        limits.digest("arguments_digest", self.arguments_digest)
        if self.tool_digest is not None:
            limits.digest("tool_digest", self.tool_digest)
        for name in ("groups", "approvers"):
            for each in getattr(self, name):
                limits.name(name, each)
        for name in ("claimed_by", "decided_by", "outcome"):
            limits.optional(name, getattr(self, name))
        limits.instant("since", self.since)
        if self.deadline is not None:
            limits.instant("deadline", self.deadline)


@dataclass(frozen=True, kw_only=True)
class ApprovalQuery:
    """What a list is asked for."""

    owner: str | None = None
    """None: everybody's."""
    run_id: str | None = None
    call_id: str | None = None
    tool: str | None = None
    group: str | None = None
    """Only those whose turn it is this group's."""
    approver: str | None = None
    """Only those that name this person."""
    state: Standing | None = Standing.WAITING
    """None: any."""
    since_from: datetime | None = None
    """Waiting since then or later."""
    since_until: datetime | None = None
    """Waiting since before then."""
    limit: int = 20
    order: Literal["asc", "desc"] = "asc"
    """By how long they have waited: the longest first."""
    after: ApprovalKey | None = None
    """The page that follows this one."""
    contents: bool = False
    """With arguments and reasons."""

    def check(self) -> None:
        """Refuse what can't be listed.

        Raises:
            LedgerRefused: a parameter is out of its range.
        """
        if not 1 <= self.limit <= MAX_LIMIT:
            raise LedgerRefused(f"limit must be between 1 and {MAX_LIMIT:,}, got {self.limit}.")
        if self.order not in ("asc", "desc"):
            raise LedgerRefused(f"order must be asc or desc, got {self.order!r}.")
        for name in ("since_from", "since_until"):
            value = getattr(self, name)
            if value is not None:
                limits.instant(name, value)
        for name in ("owner", "run_id", "tool", "group", "approver"):
            limits.text(name, getattr(self, name) or "")


@dataclass(frozen=True)
class ApprovalPage:
    """A page of a list."""

    data: list[Approval]
    has_more: bool
