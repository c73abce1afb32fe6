"""Where a batch stands, in figures that are short enough for a line."""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ledger.batch_item import ItemState
from ledger.batch_record import BatchCounts, BatchRecord, BatchStatus
from runlane.batches import people, presenting
from runlane.cli import output
from runlane.errors import ExitCode

if TYPE_CHECKING:
    from ledger import Ledger
    from runlane.orchestrator import Runlane

PACE = 1.0
"""Seconds between two looks."""
_RATE_OVER = 30.0
_KINDS_SHOWN = 3
_THOUSAND, _MILLION, _BILLION = 1_000, 1_000_000, 1_000_000_000


@dataclass(frozen=True)
class Standing:
    """Where a batch stands, and how fast it moves."""

    batch: BatchRecord
    counts: BatchCounts
    rate: float | None
    """Items that end in a second; None: too early to say."""
    people: int | None
    """Items that wait for people or for their callers; None: nobody can tell now."""

    @property
    def ended(self) -> int:
        """Items that have ended."""
        return presenting.ended(self.counts)

    @property
    def only_people_left(self) -> bool:
        """Whether nothing is left but items that wait for people."""
        # They are counted after the others: some of those may have come to wait since.
        return self.people is not None and 0 < self.people >= self.counts.unfinished

    def figures(self) -> str:
        """Return what moves, short enough for a line of 80 columns."""
        parts = ["cancelling"] if self.batch.status is BatchStatus.CANCELLING else []
        people = self.people or 0
        left = self.counts.unfinished - people
        if self.rate and left > 0 and self.batch.paused_at is None:
            parts += [f"{self.rate:,.1f}/s", f"{clock(left / self.rate)} left"]
        at_work = self.counts.in_flight + max(self.counts.promoted - people, 0)
        parts.append(f"{at_work:,} in flight")
        if people:
            parts.append(f"{people:,} with people")
        held = self._held()
        if held > 0:
            parts.append(f"upstream says 429, {clock(held)}")
        return " · ".join(parts)

    def _held(self) -> float:
        until = self.batch.held_until
        if until is None or self.batch.status.is_end:
            return 0.0
        return (until - datetime.now(UTC)).total_seconds()

    def spent(self) -> str:
        """Return the tokens that were used, and what they cost where that is known."""
        tokens = f"{short(self.counts.usage.total_tokens)} tokens"
        cost = presenting.cost(self.batch, self.counts)
        return tokens if cost is None else f"{tokens} · cost {cost}"

    def failures(self) -> str | None:
        """Return how many ended otherwise than completed, and by what; None where none did."""
        failed = presenting.failed(self.counts)
        if not failed:
            return None
        all_failed = failed == self.counts.by_state[ItemState.FAILED]
        told = f"{failed:,} {'failed' if all_failed else 'not completed'}"
        kinds = sorted(self.counts.by_error_kind.items(), key=lambda kind: (-kind[1], kind[0]))
        shown = [f"{output.shortened(name, 24)} {count:,}" for name, count in kinds[:_KINDS_SHOWN]]
        if len(kinds) > _KINDS_SHOWN:
            shown.append("…")
        return f"{told}: {', '.join(shown)}" if shown else told

    @property
    def can_be_retried(self) -> bool:
        """Whether something has failed or expired in a batch that nobody has cancelled."""
        states = self.counts.by_state
        some = states[ItemState.FAILED] + states[ItemState.EXPIRED] > 0
        cancelled = (BatchStatus.CANCELLING, BatchStatus.CANCELLED)
        return some and self.batch.status not in cancelled

    def paused(self) -> str | None:
        """Return who has paused it, and why; None where nobody has."""
        batch = self.batch
        if batch.paused_at is None:
            return None
        by, reason = output.safe(batch.paused_by or ""), output.safe(batch.paused_reason or "")
        return f"paused by {by}: {reason}"


_BEGIN_NOTHING = (BatchStatus.CANCELLING, BatchStatus.CANCELLED, BatchStatus.EXPIRED)


def goes_on(before: Standing, now: Standing) -> bool:
    """Say whether a pause is over because somebody resumed the batch, and not because it ended."""
    return (
        before.batch.paused_at is not None
        and now.batch.paused_at is None
        and before.counts.by_state[ItemState.WAITING] > 0
        and now.batch.status not in _BEGIN_NOTHING
    )


class Speed:
    """How many items have ended in a second, over the last half minute."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._seen: deque[tuple[float, int]] = deque()

    def rate(self, now: float, ended: int) -> float | None:
        """Note how many have ended by now; return the rate."""
        if self._seen and ended < self._seen[-1][1]:
            # Some are tried anew.
            self._seen.clear()
        if len(self._seen) == 1 and ended == self._seen[0][1]:
            # The time until the first one ends says little of those that follow.
            self._seen.clear()
        self._seen.append((now, ended))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _RATE_OVER:
            self._seen.popleft()
        since, before = self._seen[0]
        return (ended - before) / (now - since) if now - since >= PACE else None


async def look(client: "Runlane", ledger: "Ledger", batch: BatchRecord) -> Standing:
    """Look at a batch now."""
    counts = await ledger.batches.counts(batch.id)
    waiting = await people.waiting(client.temporal, ledger, batch.id, counts)
    return Standing(batch, counts, None, waiting)


def exit_code(standing: Standing) -> ExitCode:
    """Return what a command's exit code says of a batch."""
    if not standing.batch.status.is_end:
        return ExitCode.WAITING
    is_whole = standing.ended == standing.counts.by_state[ItemState.COMPLETED]
    done = is_whole and standing.batch.status is BatchStatus.COMPLETED
    return ExitCode.DONE if done else ExitCode.NOT_COMPLETED


def clock(seconds: float) -> str:
    """Return a time that is left: `0:41`, `12:03`, `3:20:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short(number: int) -> str:
    """Return a number in at most five characters: `999`, `12.3k`, `4.5M`."""
    if number < _THOUSAND:
        return str(number)
    if number < _MILLION:
        return f"{number / _THOUSAND:.1f}k" if number < 100_000 else f"{number // _THOUSAND}k"
    if number < _BILLION:
        return f"{number / _MILLION:.1f}M"
    return f"{number / _BILLION:.1f}B"
