"""Watching a batch: a bar with its figures on a terminal, and elsewhere a line now and then."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ledger.batch_item import ItemState
from ledger.batch_record import BatchCounts, BatchRecord, BatchStatus
from ledger.errors import LedgerUnavailable
from runlane.batches import presenting
from runlane.cli import STARTED, batch_pauses, output, session
from runlane.errors import ExitCode

if TYPE_CHECKING:
    from ledger import Ledger
    from runlane.batches.results import Results

PACE = 1.0
"""Seconds between two looks."""
_SHARE = 4
"""How many times longer it waits than it looked."""
_RATE_OVER = 30.0
_FIRST_WORD_SECONDS = 1.5
_WORDS_EVERY = 10.0
_PEOPLE_ONLY_FOR = 5.0
"""Seconds after which what is left counts as people's: Visibility may be late, and they quick."""
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
        parts = []
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


async def follow(
    ledger: "Ledger",
    batch: BatchRecord,
    results: "Results | None",
    *,
    wait_for_people: bool,
    with_people: Callable[[BatchCounts], Awaitable[int | None]],
    missing_worker: Callable[[], Any],
) -> Standing:
    """Watch a batch and bring its results, until it has ended or only people's items are left.

    Args:
        ledger: where it stands.
        batch: as it was found.
        results: its files, where there are any.
        wait_for_people: go on until theirs have ended too.
        with_people: counts them.
        missing_worker: awaited while nothing moves; says so where nobody is there to move it.
    """
    speed, alone_since = Speed(), float("inf")
    with _Shown(batch) as shown:
        while True:
            now = time.monotonic()
            try:
                # The record first: what has ended by then is among the results.
                record = await ledger.batches.find(batch.id) or batch
                counts = await (
                    ledger.batches.counts(batch.id) if results is None else results.follow()
                )
                people = await with_people(counts)
            except LedgerUnavailable as error:
                shown.say_once(f"The ledger doesn't answer; trying again. {error}")
                await asyncio.sleep(PACE)
                continue
            shown.say_once(None)
            standing = Standing(record, counts, speed.rate(now, presenting.ended(counts)), people)
            shown.show(standing)
            if record.status.is_end:
                return standing
            alone_since = min(alone_since, now) if standing.only_people_left else float("inf")
            if not wait_for_people and now - alone_since >= _PEOPLE_ONLY_FOR:
                return standing
            if not counts.in_flight and counts.by_state[ItemState.WAITING]:
                await missing_worker()
            # Of a million items a look takes a while, and is not all that the ledger is for.
            await asyncio.sleep(max(PACE, _SHARE * (time.monotonic() - now)))


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


class _Shown:
    """The bar at the foot of a terminal; or lines, the later the rarer looked at."""

    def __init__(self, batch: BatchRecord) -> None:
        self._name = output.shortened(batch.name, 24)
        self._total = max(batch.total, 1)
        self._open = ExitStack()
        self._live: Any = None
        self._said: str | None = None
        self._pause: str | None = None
        self._next_word = STARTED + _FIRST_WORD_SECONDS

    def show(self, standing: Standing) -> None:
        pause = standing.paused()
        if pause != self._pause:
            self._pause = pause
            text = "Going on." if pause is None else f"{pause[0].upper()}{pause[1:]}"
            output.note(text)
            for line in batch_pauses.ways_on(standing.batch):
                output.note(line)
        if self._live is not None:
            self._live.update(self._picture(standing), refresh=True)
        elif time.monotonic() >= self._next_word:
            self._next_word = time.monotonic() + _WORDS_EVERY
            share = f"{standing.ended:,}/{standing.batch.total:,}"
            parts = [share, standing.figures(), standing.spent()]
            failures = standing.failures()
            output.note(" · ".join([*parts, *([] if failures is None else [failures])]))

    def say_once(self, text: str | None) -> None:
        """Say something that lasts when it begins."""
        if text is not None and self._said is None:
            output.note(text)
        self._said = text

    def _picture(self, standing: Standing) -> Any:
        from rich.console import Group  # noqa: PLC0415
        from rich.progress_bar import ProgressBar  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        share = f"{standing.ended:,}/{standing.batch.total:,}"
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(no_wrap=True)
        line.add_column(ratio=1)
        line.add_column(no_wrap=True, justify="right")
        bar = ProgressBar(total=self._total, completed=standing.ended)
        line.add_row(Text(self._name, style="bold"), bar, Text(share))
        told = [
            (standing.figures(), ""),
            (standing.spent(), ""),
            (standing.failures(), "red"),
            (standing.paused(), "yellow"),
        ]
        rows = [
            Text(text, style=style, overflow="ellipsis", no_wrap=True)
            for text, style in told
            if text is not None
        ]
        return Group(line, *rows)

    def __enter__(self) -> "_Shown":
        console = output.stderr() if session.wants_json() else output.stdout()
        console = console if console.is_terminal else output.stderr()
        if console.is_terminal:
            from rich.live import Live  # noqa: PLC0415
            from rich.text import Text  # noqa: PLC0415

            self._live = self._open.enter_context(
                Live(Text("looking"), console=console, auto_refresh=False, transient=True)
            )
            self._open.enter_context(output.above(console))
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)
