"""What `up` tells in its terminal of the ledger: calls that people must decide, and stops."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from ledger import Ledger, LedgerError
from ledger.approval import Approval, ApprovalKey, ApprovalQuery
from ledger.stops import Stop
from runlane.cli.output import safe, word
from runlane.moments import format_moment

PACE = 1.0
"""Seconds between two looks."""
_LOOKED_AT = 100
"""Of the calls that wait, the latest."""
_LATE = timedelta(minutes=5)
"""A call is asked for by its run's clock, and listed when a worker has classified it."""
_REMEMBERED = 10_000
_NAMED = 3
"""New ones of one look that have a line each; of more, a line says how many."""


class News:
    """Looks at a ledger, and says what is new in it."""

    def __init__(self, ledger: Ledger, say: Callable[[str], None]) -> None:
        """Look at nothing yet.

        Args:
            ledger: the workers'.
            say: is told, a line each.
        """
        self._ledger = ledger
        self._say = say
        self._began = datetime.now(UTC) - _LATE
        self._known: dict[ApprovalKey, None] = {}
        self._stops: dict[str, Stop] = {}

    async def tell(self) -> None:
        """Look again and again, for ever."""
        with suppress(LedgerError):
            await self.begin()
        while True:
            # While it doesn't answer, the worker says so.
            with suppress(LedgerError):
                await self.look()
            await asyncio.sleep(PACE)

    async def look(self) -> None:
        """Say what is new.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        self._tell_stops(await self._ledger.stops.standing())
        waiting = await self._waiting()
        # An older one has only moved up, because others were decided.
        new = [
            each for each in waiting if each.key not in self._known and each.since >= self._began
        ]
        self._remember(waiting)
        if len(new) > _NAMED:
            self._say(f"{len(new)} more calls wait for people:  runlane approval list")
            return
        for each in reversed(new):
            call_id = word(each.key.call_id)
            self._say(f"{safe(each.tool)} waits for a decision:  runlane approval show {call_id}")

    async def begin(self) -> None:
        """Say how many wait already.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        waiting = await self._waiting()
        self._remember(waiting)
        if waiting:
            count = f"{_LOOKED_AT} calls and more" if len(waiting) == _LOOKED_AT else len(waiting)
            noun = "" if len(waiting) == _LOOKED_AT else " call" + "s" * (len(waiting) > 1)
            verb = "waits" if len(waiting) == 1 else "wait"
            self._say(f"{count}{noun} {verb} for people:  runlane approval list")

    async def _waiting(self) -> list[Approval]:
        query = ApprovalQuery(limit=_LOOKED_AT, order="desc")
        return (await self._ledger.approvals.list(query)).data

    def _remember(self, waiting: Sequence[Approval]) -> None:
        self._known |= dict.fromkeys(each.key for each in reversed(waiting))
        for key in list(self._known)[:-_REMEMBERED]:
            del self._known[key]

    def _tell_stops(self, standing: Sequence[Stop]) -> None:
        now = {str(stop): stop for stop in standing}
        for name, stop in now.items():
            if self._stops.get(name) != stop:
                since = format_moment(stop.since.timestamp())
                self._say(safe(f"Stopped: {name}, by {stop.by} since {since}: {stop.reason}"))
        for name in self._stops.keys() - now.keys():
            self._say(safe(f"Resumed: {name}"))
        self._stops = now
