"""One item of a batch, as it stands in the ledger and as it is added, claimed and ended."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ledger import limits
from ledger.contents import checked
from ledger.errors import LedgerRefused
from ledger.run_record import Usage


class ItemState(StrEnum):
    """How far an item has come."""

    WAITING = "waiting"
    """It was not begun, or is to be tried again."""
    BEGUN = "begun"
    """A lane holds it."""
    PROMOTED = "promoted"
    """It is a `Run` of its own."""
    COMPLETED = "completed"
    FAILED = "failed"
    """Its run ended otherwise than completed, or it was given up."""
    UNCERTAIN = "uncertain"
    """Nobody knows whether it ran."""
    EXPIRED = "expired"
    """The batch's deadline passed before it began."""
    CANCELLED = "cancelled"

    @property
    def is_end(self) -> bool:
        """Whether its result stands."""
        return self not in UNFINISHED


UNFINISHED = (ItemState.WAITING, ItemState.BEGUN, ItemState.PROMOTED)

EXPIRED = "batch_expired"
CANCELLED = "batch_cancelled"
ERASED = "erased"
CREATE_UNCERTAIN = "create_uncertain"
"""Error kinds that the ledger itself gives."""


@dataclass(frozen=True, kw_only=True)
class NewItem:
    """One line of a batch's input."""

    index: int
    """From 0, in the order of the input; gaps are allowed."""
    custom_id: str
    """Unique in its batch."""
    thread_id: str | None = None
    """Where the line names one."""
    digest: str
    """Of the line."""
    body: str
    """As JSON."""

    def check(self) -> None:
        """Refuse what can't be stored.

        Raises:
            LedgerRefused: it names the field and its limit.
        """
        if self.index < 0:
            raise LedgerRefused(f"index must be at least 0, got {self.index}.")
        limits.name("custom_id", self.custom_id)
        limits.optional("thread_id", self.thread_id)
        limits.digest("digest", self.digest)
        checked("body", self.body)


@dataclass(frozen=True, kw_only=True)
class Item:
    """An item as it stands."""

    batch_id: str
    index: int
    custom_id: str
    thread_id: str | None
    """Of the input."""
    digest: str
    state: ItemState
    lane: int | None
    """That began it last."""
    epoch: int | None
    """Of that lane, then."""
    not_before: datetime | None
    """When it may be tried again."""
    tries: int
    """That went wrong, as who put it back has counted."""
    generation: int
    """From 1; one more for each retry of a failed batch. Its runs have ids of their own."""
    attempt: int
    """Of the upstream run that was intended last in this generation; 0: none was."""
    run_id: str | None
    """Ours, from the intent on."""
    intended_at: datetime | None
    """When the POST was about to be sent; None: it was not, or surely did nothing."""
    made_thread: str | None
    """The thread that was made for it."""
    upstream_run_id: str | None
    """Of this attempt."""
    seq: int | None
    """Its number in the order of ends; None: it has not ended."""
    status_code: int | None
    error_kind: str | None
    """Why it has not completed, or was put back."""
    response_digest: str | None
    usage: Usage
    """Of all tries."""
    ended_at: datetime | None
    body: str | None = None
    """With `claim` alone."""
    response: str | None = None
    """As JSON; with results alone, and None once it is erased."""
    error: str | None = None
    """As JSON; with results alone, and None once it is erased."""
    messages: str | None = None
    """As `ItemOutcome` has them; with results alone, and None once they are erased."""


class Withheld(StrEnum):
    """Why nothing new is given out."""

    PAUSED = "paused"
    STATUS = "status"
    """The batch isn't in progress."""
    DEADLINE = "deadline"
    BUDGET = "budget"
    """What it may use, or cost, is used up."""
    PACE = "pace"
    """The tokens of this minute are: there is more a little later."""
    EPOCH = "epoch"
    """Another attempt has taken the lane: stop."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a lane was given."""

    items: list[Item]
    """Those to take over first, then new ones in the order of the input."""
    withheld: Withheld | None = None
    """Why nothing new is among them; None: what there was is among them."""
    next_at: datetime | None = None
    """When the next item may be tried again, where some were too early; else None."""


@dataclass(frozen=True, kw_only=True)
class ItemOutcome:
    """How an item ended."""

    state: ItemState
    """One of the ends."""
    status_code: int | None = None
    """As it stands in the result's line."""
    response: str | None = None
    """The response's body as JSON."""
    error: str | None = None
    """The error as JSON."""
    messages: str | None = None
    """What was said in its run, where that was asked for, as JSON: the list of messages, or an
    object whose `error` says why they can't be had."""
    error_kind: str | None = None
    """A fixed word, no content; it is counted by."""
    usage: Usage | None = None
    """Of what hasn't been told with `put_back` or `intend`."""
    at: datetime

    def check(self) -> None:
        """Refuse what can't be stored.

        Raises:
            LedgerRefused: it names the field and its limit.
        """
        if not self.state.is_end:
            raise LedgerRefused(f"state must be an end, got {self.state}.")
        limits.optional("error_kind", self.error_kind)
        checked("response", self.response)
        checked("error", self.error)
        checked("messages", self.messages)
        limits.instant("at", self.at)
