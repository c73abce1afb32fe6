"""Whose turn it is to send: all requests of one connection, held to its limits and the upstream's.

No library does this: those that limit rates know neither who may go first nor that one 429 is news
for everybody. Nothing that waits here has been sent.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from runsapi.errors import APIStatusError, HeldBackError, InvalidParameter, is_quota, retry_after

LONGEST_WAIT = 240.0
"""Seconds that a request waits for its turn; then whoever wants it asks again."""

LONGEST_PAUSE = 3_600.0
"""Seconds that an upstream's ``retry-after`` is obeyed at most."""

_FIRST_PAUSE = 1.0
_LONGEST_OWN_PAUSE = 60.0
"""Without a ``retry-after`` each 429 doubles the pause up to this, and each answer halves it."""

_RAMP_FROM = 10.0
_RAMP_SECONDS = 7.0
"""After a pause requests go at ten a second, twice as many each second, until nothing holds them:
all that waited, at once, would bring the next 429."""

_SLACK = 0.05
"""Seconds of unused turns that may be caught up, or a timer's coarseness would lower the rate."""

_EVERY = 8
"""One turn in so many is the background's while others wait, too: it must not stand still."""

_logger = logging.getLogger(__name__)


class Turns:
    """The limits of one connection.

    Args:
        max_concurrency: Requests under way at a time. A quarter of them (one at least, if there
            are two) is kept from the background.
        rps: Requests begun a second; below 1 too.
        longest_wait: Seconds after which a request that still waits is refused.

    Raises:
        InvalidParameter: A limit can't be used.
    """

    def __init__(
        self,
        *,
        max_concurrency: int | None = None,
        rps: float | None = None,
        longest_wait: float = LONGEST_WAIT,
    ) -> None:
        if max_concurrency is not None and max_concurrency < 1:
            raise InvalidParameter(
                param="max_concurrency", message="max_concurrency must be at least 1, or None"
            )
        if rps is not None and not 0 < rps < math.inf:
            raise InvalidParameter(param="rps", message="rps must be above 0, or None")
        self._most = math.inf if max_concurrency is None else max_concurrency
        self._most_in_background = self._most
        if max_concurrency is not None and max_concurrency > 1:
            self._most_in_background = max_concurrency - max(1, max_concurrency // 4)
        self._interval = 0.0 if rps is None else 1 / rps
        self._longest_wait = longest_wait
        self._first: deque[asyncio.Future[None]] = deque()
        self._background: deque[asyncio.Future[None]] = deque()
        self._in_front = 0
        self._in_background = 0
        self._passed = 0
        self._next_at = -math.inf
        self._resume_at = -math.inf
        self._own_pause = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._first) + len(self._background)

    @property
    def under_way(self) -> int:
        """Requests that have been sent and not yet answered."""
        return self._in_front + self._in_background

    @asynccontextmanager
    async def turn(self, *, background: bool, url: str = "") -> AsyncIterator["Turn"]:
        """Wait until a request may go, and hold its place until the body ends.

        Args:
            background: Others go first, whenever they came.
            url: What an error names.

        Raises:
            HeldBackError: It didn't get its turn in time, or can't. Nothing was sent.
        """
        await self._admit(background, url)
        try:
            yield Turn(self, _now())
        finally:
            self._leave(background)

    def limited(self, sent_at: float, seconds: float | None) -> None:
        """Let all wait because the upstream said 429 to a request that was sent at that time."""
        now = _now()
        if seconds is not None:
            pause = min(seconds, LONGEST_PAUSE)
        elif sent_at < self._resume_at:
            # Sent before the pause that others have brought about: no news.
            return
        else:
            self._own_pause = min(max(2 * self._own_pause, _FIRST_PAUSE), _LONGEST_OWN_PAUSE)
            pause = self._own_pause
        if now + pause <= self._resume_at:
            return
        if now >= self._resume_at:
            _logger.warning(
                "The upstream says 429; all requests wait for %.1f s",
                pause,
                extra={"action": "pause", "seconds": round(pause, 3)},
            )
        self._resume_at = now + pause
        self._go_on()

    def answered(self, sent_at: float) -> None:
        """Take it that the upstream answers again."""
        if sent_at >= self._resume_at:
            self._own_pause = self._own_pause / 2 if self._own_pause > _FIRST_PAUSE else 0.0

    @property
    def held(self) -> float:
        """Seconds for which nothing is sent, because the upstream wants to be left alone."""
        return max(self._resume_at - _now(), 0.0)

    def hold(self, seconds: float) -> None:
        """Let all wait because the upstream said 429 to somebody else who shares its limits."""
        seconds = min(seconds, LONGEST_PAUSE)
        if seconds > self.held:
            self._resume_at = _now() + seconds
            self._go_on()

    async def _admit(self, background: bool, url: str) -> None:  # noqa: FBT001 - private
        left = self._resume_at - _now()
        if left > self._longest_wait:
            raise _held_back(url, left)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._background if background else self._first
        queue.append(place)
        self._go_on()
        limit = asyncio.timeout(self._longest_wait)
        try:
            async with limit:
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                # The turn had come; whoever waits next has it.
                self._leave(background)
            else:
                with suppress(ValueError):
                    queue.remove(place)
            if isinstance(error, TimeoutError) and limit.expired():
                raise _held_back(url, self._resume_at - _now()) from None
            raise

    def _leave(self, background: bool) -> None:  # noqa: FBT001 - private
        if background:
            self._in_background -= 1
        else:
            self._in_front -= 1
        self._go_on()

    def _go_on(self) -> None:
        """Give turns to those who wait, as far as the limits allow now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while (queue := self._next_queue()) is not None:
            now, due = _now(), max(self._next_at, self._resume_at)
            if due > now:
                self._timer = asyncio.get_running_loop().call_at(due, self._go_on)
                return
            place = queue.popleft()
            if place.done():
                # Given up in this very moment.
                continue
            self._next_at = max(self._next_at, now - _SLACK) + self._gap(now)
            if queue is self._background:
                self._in_background += 1
                self._passed = 0
            else:
                self._in_front += 1
                self._passed += 1
            place.set_result(None)

    def _next_queue(self) -> "deque[asyncio.Future[None]] | None":
        if self.under_way >= self._most:
            return None
        may_go = bool(self._background) and self._in_background < self._most_in_background
        if self._first and not (may_go and self._passed >= _EVERY):
            return self._first
        return self._background if may_go else None

    def _gap(self, now: float) -> float:
        since = now - self._resume_at
        if since >= _RAMP_SECONDS:
            return self._interval
        return max(self._interval, 1 / (_RAMP_FROM * 2**since))


class Turn:
    """A request that may go now."""

    def __init__(self, turns: Turns, sent_at: float) -> None:
        self._turns = turns
        self._sent_at = sent_at

    def answered(self) -> None:
        """Tell of an answer that was no 429."""
        self._turns.answered(self._sent_at)

    def refused(self, error: APIStatusError) -> None:
        """Tell of an answer that says no. A used-up quota is no rate limit: waiting helps not."""
        if error.status_code == 429 and not is_quota(error):
            self._turns.limited(self._sent_at, retry_after(error.headers))
        else:
            self.answered()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _held_back(url: str, seconds: float) -> HeldBackError:
    if seconds > 0:
        return HeldBackError(
            f"Not sent to {url}: the upstream wants to be left alone for {seconds:.0f} s more",
            url=url,
            retry_after=seconds,
        )
    return HeldBackError(f"Not sent to {url}: too many requests before it", url=url)
