"""How fast one lane may ask: its share of the requests and tokens a minute of its batch."""

import asyncio
from collections import deque

_MINUTE = 60.0


class Pace:
    """Requests begun and tokens used within the last minute, held below a share of the limits.

    Args:
        rpm: requests a minute of the batch; none: as many as there are.
        tpm: tokens a minute of the batch. They are known only when a run has ended, so the share
            may be overrun by what is under way, and is made up for by waiting.
        lanes: that share them.
    """

    def __init__(self, *, rpm: float | None, tpm: float | None, lanes: int) -> None:
        self._interval = 0.0 if rpm is None else _MINUTE * lanes / rpm
        self._tokens = None if tpm is None else tpm / lanes
        self._next_at = 0.0
        self._used: deque[tuple[float, int]] = deque()
        self._sum = 0

    async def turn(self) -> None:
        """Wait until one more request may be made."""
        now = _now()
        at = max(self._next_at, now)
        self._next_at = at + self._interval
        if at > now:
            await asyncio.sleep(at - now)

    @property
    def spent(self) -> bool:
        """Whether the tokens of this minute are used up, so that nothing new may begin."""
        if self._tokens is None:
            return False
        now = _now()
        while self._used and self._used[0][0] <= now - _MINUTE:
            self._sum -= self._used.popleft()[1]
        return self._sum >= self._tokens

    def use(self, tokens: int) -> None:
        """Take it that a run has used so many tokens."""
        if self._tokens is not None and tokens:
            self._used.append((_now(), tokens))
            self._sum += tokens


def _now() -> float:
    return asyncio.get_running_loop().time()
