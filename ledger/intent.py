"""An intent: that a call which may not run twice was about to run, written before it does.

What a call finds here decides whether it runs:

| `Begin` | what is known | what to do |
|---|---|---|
| `NEW` | nobody has begun it | run it |
| `MINE` | an earlier attempt of this execution began it and didn't finish | may have run: again only where that does no harm |
| `OTHERS` | another execution began it and didn't finish | may have run: make it uncertain |
| `UNCERTAIN` | nobody knows whether it ran | a person says what happened |
| `FINISHED` | it ran | take its result |
"""  # noqa: E501 # a table's row is one line

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ledger import limits
from ledger.errors import LedgerRefused


@dataclass(frozen=True, kw_only=True)
class IntentKey:
    """Which call it is."""

    run_id: str
    tool: str
    arguments_digest: str
    """Of the arguments as canonical JSON, as `contents.digest_of` makes it."""
    ordinal: int
    """From 0: how many equal calls came before it in the run."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Who runs it. A restored Temporal gives old ids out again, hence the other two."""

    id: str
    """The same for all attempts of one activity, and no other's."""
    attempt: int
    """From 1."""
    nonce: str
    """New for each attempt, by chance: by it one whose answer was lost is known again."""


class State(StrEnum):
    """How far a call has come."""

    BEGUN = "begun"
    FINISHED = "finished"
    UNCERTAIN = "uncertain"
    VOID = "void"
    """It did not run, and who says so knows; it may be begun anew."""


class Begin(StrEnum):
    """What was found at the beginning; see the module's table."""

    NEW = "new"
    MINE = "mine"
    OTHERS = "others"
    UNCERTAIN = "uncertain"
    FINISHED = "finished"


_FOUND = {
    State.FINISHED: Begin.FINISHED,
    State.UNCERTAIN: Begin.UNCERTAIN,
    State.VOID: Begin.NEW,
}


@dataclass(frozen=True, kw_only=True)
class Intent:
    """What stands in the ledger about a call."""

    key: IntentKey
    call_id: str
    execution: Execution
    """Who began it: its latest attempt, with the nonce of the first."""
    state: State
    outcome: str | None
    """A word of the caller's; None until it is finished."""
    result_digest: str | None
    reason: str | None
    """Why it is uncertain, or what the person said who settled it; a fixed word, no content."""
    settled_by: str | None
    """The person who said what happened."""
    begun_at: datetime
    ended_at: datetime | None
    latest_nonce: str
    """Of the attempt that found the intent last, and its own execution's."""
    arguments: str | None
    """None where they were not given, or are erased."""
    result: str | None
    """None where there is none, or it is erased; `result_digest` tells which."""

    def found_by(self, execution: Execution) -> Begin:
        """Tell what it means for an execution that finds this."""
        if self.state is not State.BEGUN:
            return _FOUND[self.state]
        begun = self.execution
        if execution.id != begun.id:
            return Begin.OTHERS
        if execution.nonce == begun.nonce:
            # The answer to this very question was lost, so nothing has been run since.
            return Begin.NEW
        if execution.nonce == self.latest_nonce or execution.attempt > begun.attempt:
            return Begin.MINE
        # An attempt that comes twice: its history was restored from before the first time.
        return Begin.OTHERS


def check(key: IntentKey, execution: Execution) -> None:
    """Refuse what can't be stored.

    Raises:
        LedgerRefused: it names the field and its limit.
    """
    check_key(key)
    limits.name("execution.id", execution.id)
    limits.name("execution.nonce", execution.nonce)
    if execution.attempt < 1:
        raise LedgerRefused(f"execution.attempt must be at least 1, got {execution.attempt}.")


def check_key(key: IntentKey) -> None:
    """Refuse a key that can't be stored.

    Raises:
        LedgerRefused: it names the field and its limit.
    """
    limits.name("run_id", key.run_id)
    limits.name("tool", key.tool)
    limits.digest("arguments_digest", key.arguments_digest)
    if key.ordinal < 0:
        raise LedgerRefused(f"ordinal must be at least 0, got {key.ordinal}.")
