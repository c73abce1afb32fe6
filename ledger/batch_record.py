"""What the ledger knows of a batch as a whole."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from ledger import limits
from ledger.batch_item import ItemState
from ledger.batch_money import LARGEST_AMOUNT, Prices
from ledger.errors import LedgerRefused
from ledger.run_record import Usage

_ID_CHARACTERS = 24
PRICES = "prices"
"""The option that holds what a million tokens cost, as `Prices` writes it."""


class BatchStatus(StrEnum):
    """How far a batch has come, in the words of OpenAI's Batch; a pause is no status."""

    VALIDATING = "validating"
    """Its items are still being added."""
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_end(self) -> bool:
        """Whether nothing follows it, but for a retry of what has failed."""
        return self in ENDS


ENDS = frozenset(
    {BatchStatus.FAILED, BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED}
)


def batch_id(owner: str, name: str, generation: int = 1) -> str:
    """Return the id of an owner's batch of this name; the same for ever."""
    told = f"{owner}\0{name}\0{generation}".encode(errors="surrogatepass")
    digest = base64.b32encode(hashlib.sha256(told).digest()).decode().lower()
    return f"batch_{digest[:_ID_CHARACTERS]}"


@dataclass(frozen=True, kw_only=True)
class BatchRecord:
    """A batch, running or ended."""

    id: str
    """`batch_id(owner, name, generation)`."""
    owner: str = ""
    name: str
    generation: int = 1
    """From 1; one more for each time that the whole of it is done again."""
    input_digest: str
    """Of the whole input."""
    status: BatchStatus = BatchStatus.VALIDATING
    total: int
    """How many items it has."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """As JSON."""
    deadline: datetime | None = None
    """With a zone. Nothing is begun from then on."""
    token_limit: int | None = None
    """Nothing is begun once so many tokens are used; those in flight still use theirs."""
    cost_limit: Decimal | None = None
    """Likewise once they have cost so much, by the prices among the options."""
    tokens_used: int = 0
    """By what has ended or was tried; set by the ledger."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Parts of the same."""
    created_at: datetime
    started_at: datetime | None = None
    """Set by the ledger, when it is first in progress."""
    ended_at: datetime | None = None
    """Set by the ledger."""
    paused_reason: str | None = None
    paused_by: str | None = None
    """The person, or the part of Runlane."""
    paused_at: datetime | None = None
    """None: it isn't paused."""
    held_until: datetime | None = None
    """When the upstream, which has said 429, may be asked again; set by the ledger."""

    @property
    def cost(self) -> Decimal | None:
        """What the tokens that were used cost; None: it has no prices."""
        prices = self.options.get(PRICES)
        if prices is None:
            return None
        return Prices.parse(prices).of(self.prompt_tokens, self.completion_tokens)

    @property
    def is_spent(self) -> bool:
        """Whether a budget is used up, so that nothing more is begun."""
        if self.token_limit is not None and self.token_limit <= self.tokens_used:
            return True
        return self.cost_limit is not None and self.cost_limit <= (self.cost or 0)

    def check(self) -> None:
        """Refuse what can't be stored.

        Raises:
            LedgerRefused: it names the field and its limit.
        """
        limits.text("owner", self.owner)
        limits.name("name", self.name)
        if self.generation < 1:
            raise LedgerRefused(f"generation must be at least 1, got {self.generation}.")
        if self.id != batch_id(self.owner, self.name, self.generation):
            raise LedgerRefused("id must be the one that owner, name and generation give.")
        limits.digest("input_digest", self.input_digest)
        if self.total < 0:
            raise LedgerRefused(f"total must be at least 0, got {self.total}.")
        if self.token_limit is not None and self.token_limit < 1:
            raise LedgerRefused(f"token_limit must be at least 1, got {self.token_limit}.")
        self._check_money()
        limits.body("options", json.dumps(self.options).encode())
        limits.instant("created_at", self.created_at)
        if self.deadline is not None:
            limits.instant("deadline", self.deadline)

    def _check_money(self) -> None:
        try:
            cost = self.cost
        except ValueError:
            raise LedgerRefused(f"{PRICES} must be two numbers, as in 2.50,10.") from None
        if self.cost_limit is None:
            return
        if cost is None:
            raise LedgerRefused("cost_limit needs prices.")
        if not 0 < self.cost_limit <= LARGEST_AMOUNT:
            raise LedgerRefused(f"cost_limit must be above 0, got {self.cost_limit:f}.")


def from_columns(columns: Mapping[str, Any]) -> BatchRecord:
    """Return a batch by the columns of its row."""
    found = {name: value for name, value in columns.items() if name != "last_seq"}
    found["options"] = json.loads(found["options"])
    return BatchRecord(
        id=found.pop("batch_id"),
        tokens_used=found.pop("total_tokens"),
        status=BatchStatus(found.pop("status")),
        **found,
    )


@dataclass(frozen=True, kw_only=True)
class BatchCounts:
    """How many items of a batch stand where, all at one moment."""

    by_state: Mapping[ItemState, int]
    """Every state, those with none too."""
    by_error_kind: Mapping[str, int]
    """Of items that have ended otherwise than completed."""
    usage: Usage
    """Of all items, those tries included that led nowhere."""

    @property
    def total(self) -> int:
        """All items that are in the ledger."""
        return sum(self.by_state.values())

    @property
    def in_flight(self) -> int:
        """Items that a lane holds."""
        return self.by_state[ItemState.BEGUN]

    @property
    def promoted(self) -> int:
        """Items that are runs of their own and have not ended: whoever's answers they wait for."""
        return self.by_state[ItemState.PROMOTED]

    @property
    def unfinished(self) -> int:
        """Items that have not ended."""
        return sum(count for state, count in self.by_state.items() if not state.is_end)
