"""What to do about a batch that stands still: one command, or two."""

from typing import TYPE_CHECKING

from runlane.cli import output

if TYPE_CHECKING:
    from ledger.batch_record import BatchRecord

_STOPPED, _BUDGET = "stopped:", "budget:"
"""How the reasons begin of pauses for which mending something outside is not enough."""


def ways_on(batch: "BatchRecord") -> list[str]:
    """Return lines that say how a paused batch goes on; of one that isn't paused, none."""
    if batch.paused_at is None:
        return []
    resume = f"runlane batch resume {output.word(batch.name)}"
    reason = batch.paused_reason or ""
    if reason.startswith(_BUDGET):
        of_tokens = batch.token_limit is not None and batch.token_limit <= batch.tokens_used
        more = "--max-tokens N" if of_tokens else "--max-cost AMOUNT"
        return [f"Go on with more:  {resume} {more}"]
    if reason.startswith(_STOPPED):
        return ["Once the stop is over (runlane resume), go on with:", f"  {resume}"]
    return [f"Go on with:  {resume}"]
