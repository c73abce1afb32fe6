"""What a lane writes of an item that it holds, and what each write changes. Needs no database.

Each may be written twice: the second time changes nothing, and counts as the first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from ledger import limits
from ledger.batch_item import ItemOutcome, ItemState
from ledger.contents import digest_of
from ledger.errors import LedgerRefused
from ledger.run_record import Usage

TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens")
"""What is counted, of an item and of its batch."""

Changes = dict[str, Any]
"""Columns of an item's row."""


class Write(Protocol):
    """One write to one item."""

    @property
    def index(self) -> int:
        """Of the item."""
        ...

    def check(self) -> None:
        """Refuse what can't be stored.

        Raises:
            LedgerRefused: it names the field and its limit.
        """
        ...

    def changes(self, row: Mapping[str, Any]) -> Changes | None:
        """Return what changes in a row whose epoch is the writer's; None: the item is gone on."""
        ...


@dataclass(frozen=True, kw_only=True)
class Intend:
    """A run is about to be created upstream; its POST may be sent once this is written."""

    index: int
    run_id: str
    """Ours."""
    at: datetime
    attempt: int
    """One more than the item's, for each upstream run anew; the item's own: the same again."""
    usage: Usage | None = None
    """Of the upstream run before, which will not be heard of any more."""

    def check(self) -> None:
        """Refuse what can't be stored."""
        limits.name("run_id", self.run_id)
        limits.instant("at", self.at)
        if self.attempt < 1:
            raise LedgerRefused(f"attempt must be at least 1, got {self.attempt}.")

    def changes(self, row: Mapping[str, Any]) -> Changes | None:
        """Note the intent; with a new attempt the upstream run of the old one is forgotten."""
        if row["state"] != ItemState.BEGUN or self.attempt < row["attempt"]:
            return None
        same = {"run_id": self.run_id, "attempt": self.attempt}
        if self.attempt == row["attempt"] and row["intended_at"] is not None:
            return {} if row["run_id"] == self.run_id else None
        return {**same, "intended_at": self.at, "upstream_run_id": None, **_more(row, self.usage)}


@dataclass(frozen=True, kw_only=True)
class MadeThread:
    """A thread was made for the item."""

    index: int
    thread_id: str

    def check(self) -> None:
        """Refuse what can't be stored."""
        limits.name("thread_id", self.thread_id)

    def changes(self, row: Mapping[str, Any]) -> Changes | None:
        """Note the thread."""
        if row["state"] != ItemState.BEGUN:
            return None
        return {"made_thread": self.thread_id}


@dataclass(frozen=True, kw_only=True)
class MadeRun:
    """The run was created upstream, or found by its stamp."""

    index: int
    upstream_run_id: str

    def check(self) -> None:
        """Refuse what can't be stored."""
        limits.name("upstream_run_id", self.upstream_run_id)

    def changes(self, row: Mapping[str, Any]) -> Changes | None:
        """Note the upstream run of this attempt."""
        if row["state"] != ItemState.BEGUN:
            return None
        return {"upstream_run_id": self.upstream_run_id}


@dataclass(frozen=True, kw_only=True)
class Promote:
    """A `Run` of its own drives the item from now on; its workflow was started before."""

    index: int

    def check(self) -> None:
        """There is nothing to refuse."""

    def changes(self, row: Mapping[str, Any]) -> Changes | None:
        """Give the item away."""
        if row["state"] == ItemState.PROMOTED:
            return {}
        return {"state": ItemState.PROMOTED} if row["state"] == ItemState.BEGUN else None


@dataclass(frozen=True, kw_only=True)
class PutBack:
    """The item is to be tried again later, by any lane."""

    index: int
    not_before: datetime | None
    """None: at once."""
    error_kind: str | None
    tries: int
    """That went wrong so far."""
    is_void: bool = False
    """The POST that was intended surely made nothing: its intent is taken back."""
    usage: Usage | None = None
    """Of this try, where `settle` or `intend` will not tell it."""

    def check(self) -> None:
        """Refuse what can't be stored."""
        if self.not_before is not None:
            limits.instant("not_before", self.not_before)
        limits.optional("error_kind", self.error_kind)
        if self.tries < 0:
            raise LedgerRefused(f"tries must be at least 0, got {self.tries}.")

    def changes(self, row: Mapping[str, Any]) -> Changes | None:
        """Let it wait."""
        if row["state"] == ItemState.WAITING:
            return {}
        if row["state"] != ItemState.BEGUN:
            return None
        changes = {
            "state": ItemState.WAITING, "not_before": self.not_before,
            "error_kind": self.error_kind, "tries": self.tries, **_more(row, self.usage),
        }  # fmt: skip
        return {**changes, "intended_at": None} if self.is_void else changes


@dataclass(frozen=True, kw_only=True)
class Settle:
    """The item has ended."""

    index: int
    outcome: ItemOutcome

    def check(self) -> None:
        """Refuse what can't be stored."""
        self.outcome.check()

    def changes(self, row: Mapping[str, Any]) -> Changes | None:
        """End it; an end that stands stays."""
        if ItemState(row["state"]).is_end:
            return {}
        return None if row["state"] != ItemState.BEGUN else ended(row, self.outcome)


def ended(row: Mapping[str, Any], outcome: ItemOutcome) -> Changes:
    """Return what changes in the row of an item that ends now."""
    response = outcome.response
    return {
        "state": outcome.state,
        "status_code": outcome.status_code,
        "error_kind": outcome.error_kind,
        "response_digest": None if response is None else digest_of(response),
        "ended_at": outcome.at,
        **_more(row, outcome.usage),
    }


def _more(row: Mapping[str, Any], usage: Usage | None) -> Changes:
    if usage is None:
        return {}
    return {name: row[name] + getattr(usage, name) for name in TOKENS}
