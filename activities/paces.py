"""How fast a lane may ask: what all lanes of its batch, in any process, may ask together."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from activities.lane_journal import patiently
from ledger.batch_paces import BatchPaces

MINUTE = 60.0
SLACK = 1.0
"""Seconds by which a request may arrive later than its turn. Turns are farther apart by as much, so
that no minute, wherever it begins, has more requests than the limit."""

_STALE = 0.5
"""Seconds after which a turn isn't used any more; the rest of the slack is the way to the
upstream."""
_SHARE = 0.5
"""Seconds of the whole batch's turns that one lane takes at a time: what its death may lose."""
_GATHER = 0.05
"""Seconds in which requests gather that take their turns together."""
_LONGEST_LEAD = 5.0


class Pace:
    """Turns for a lane's requests, taken as they are needed from those of the whole batch.

    Args:
        paces: the ledger's.
        batch_id: of the batch.
        rpm: requests a minute of the batch; none: as many as there are, and nobody is asked.
        held: seconds for which the upstream wants to be left alone; turns in them aren't used.
    """

    def __init__(
        self, paces: BatchPaces, batch_id: str, *, rpm: float | None, held: Callable[[], float]
    ) -> None:
        self._paces = paces
        self._batch_id = batch_id
        self._interval = None if rpm is None else (MINUTE + SLACK) / rpm
        self._share = 1 if rpm is None else max(int(_SHARE * rpm / MINUTE), 1)
        self._held = held
        self._lead = 0.0
        self._waiting: deque[asyncio.Future[float]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def turn(self) -> float:
        """Wait until one more request may be made; return its turn."""
        if self._interval is None:
            return _now()
        place: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        if self._task is None:
            self._task = asyncio.create_task(self._give())
        return await place

    def is_fresh(self, turn: float) -> bool:
        """Tell whether a turn may still be used: a request may have been kept since."""
        return self._interval is None or _now() - turn <= _STALE

    def end(self, error: Exception) -> None:
        """Let all that wait go away with this error, and take no more turns."""
        for place in self._waiting:
            if not place.done():
                place.set_exception(error)
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    async def _give(self) -> None:
        try:
            while wanted := self._wanted():
                held = self._held()
                if held > 0 or wanted < self._share:
                    await asyncio.sleep(max(held, _GATHER))
                for turn in await self._take(min(self._wanted(), self._share)):
                    await asyncio.sleep(max(turn - _now(), 0.0))
                    # What came too late, by a slow ledger say, would come upon the next ones.
                    if self.is_fresh(turn) and self._held() <= 0 and self._wanted():
                        self._waiting.popleft().set_result(turn)
        except Exception as error:
            # It is raised where it was waited for.
            self.end(error)
        finally:
            self._task = None

    async def _take(self, turns: int) -> Sequence[float]:
        if not turns or self._interval is None:
            return []
        interval, began = self._interval, _now()
        taken = await patiently(
            lambda: self._paces.take(self._batch_id, turns, interval=interval, lead=self._lead)
        )
        self._lead = min(_now() - began, _LONGEST_LEAD)
        return taken

    def _wanted(self) -> int:
        """Return how many wait; those at the head that have gone away are forgotten."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        return len(self._waiting)


class Tokens:
    """How many tokens a batch may have used by now, if it is to keep to those a minute.

    Args:
        tpm: tokens a minute of the batch.
        used: by the whole batch so far.
        ended: when items ended within the last minute, and the tokens of each, in order.
    """

    def __init__(self, tpm: float, used: int, ended: Sequence[tuple[datetime, int]]) -> None:
        self._tpm = tpm
        here, now = _now(), datetime.now(UTC)
        so_far = used - sum(tokens for _, tokens in ended)
        self._seen: deque[tuple[float, int]] = deque([(here - MINUTE, so_far)])
        for at, tokens in ended:
            so_far += tokens
            self._seen.append((here - (now - at).total_seconds(), so_far))

    def look(self, used: int) -> None:
        """Take it that the whole batch has used so many by now."""
        if used != self._seen[-1][1]:
            self._seen.append((_now(), used))

    @property
    def up_to(self) -> float:
        """What it may have used by now: what it had a minute ago, and a minute's more."""
        since = _now() - MINUTE
        while len(self._seen) > 1 and self._seen[1][0] <= since:
            self._seen.popleft()
        return self._seen[0][1] + self._tpm


def a_minute_ago() -> datetime:
    """Return since when ends count."""
    return datetime.now(UTC) - timedelta(seconds=MINUTE)


def _now() -> float:
    # The clock of the event loop, and of the turns.
    return time.monotonic()
