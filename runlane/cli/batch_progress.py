"""Watching a batch: a bar with its figures on a terminal, and elsewhere a line now and then."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ledger.batch_item import ItemState
from ledger.batch_record import BatchCounts, BatchRecord
from ledger.errors import LedgerUnavailable
from runlane.batches import presenting
from runlane.cli import STARTED, batch_pauses, output, session
from runlane.cli.batch_standing import PACE, Speed, Standing, goes_on

if TYPE_CHECKING:
    from ledger import Ledger
    from runlane.batches.results import Results

_SHARE = 4
"""How many times longer it waits than it looked."""
_FIRST_WORD_SECONDS = 1.5
_WORDS_EVERY = 10.0
_PEOPLE_ONLY_FOR = 5.0
"""Seconds after which what is left counts as people's: Visibility may be late, and they quick."""


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


class _Shown:
    """The bar at the foot of a terminal; or lines, the later the rarer looked at."""

    def __init__(self, batch: BatchRecord) -> None:
        self._name = output.shortened(batch.name, 24)
        self._total = max(batch.total, 1)
        self._open = ExitStack()
        self._live: Any = None
        self._said: str | None = None
        self._pause: str | None = None
        self._before: Standing | None = None
        self._next_word = STARTED + _FIRST_WORD_SECONDS

    def show(self, standing: Standing) -> None:
        pause = standing.paused()
        if self._before is not None and goes_on(self._before, standing):
            output.note("Going on.")
        self._before = standing
        if pause != self._pause:
            self._pause = pause
            if pause is not None:
                output.note(f"{pause[0].upper()}{pause[1:]}")
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
