"""Watching a run: looks at it on a curve, through outages, until it waits or has ended."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import NamedTuple

from runlane.errors import Unreachable, WaitTimeout
from runsapi import RunStatus
from workflows.contract import RunView

PATIENCE = timedelta(seconds=2)
"""How long a worker may take to answer one look."""

_LEAST_PATIENCE_SECONDS = 0.3
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
_SHARE_OF_AGE = 0.1
_SHORTEST_INTERVAL = 0.1
_LONGEST_INTERVAL = 3600.0
_OUTAGE_SECONDS = 60.0

ENDED = frozenset(
    {
        RunStatus.COMPLETED,
        RunStatus.FAILED,
        RunStatus.CANCELLED,
        RunStatus.EXPIRED,
        RunStatus.INCOMPLETE,
    }
)
SETTLED = ENDED | {RunStatus.REQUIRES_ACTION}
"""Where `poll` returns: the run has ended, or waits for answers."""


class Look(NamedTuple):
    """One look at a run."""

    view: RunView | None
    """None while Temporal can't be asked."""
    problem: Unreachable | None
    seconds: float
    """Since the watch began."""


async def watch(
    read: Callable[[timedelta], Awaitable[RunView]],
    *,
    poll_interval_ms: float | None = None,
    timeout: timedelta | float | None = None,
) -> AsyncIterator[Look]:
    """Yield looks at a run; the last one sees it settled.

    Temporal may be gone for a minute (a restart, say); looks then carry the problem.

    Args:
        read: reads the run; it is told how long a worker may take to answer.
        poll_interval_ms: between looks, kept within 100 ms and 1 h; else 0.1 s at first, growing
            to 1 s.
        timeout: for the whole watch; a number is in seconds.

    Raises:
        WaitTimeout: `timeout` passed; the run goes on.
        Unreachable: Temporal couldn't be asked for a minute.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    limit = _seconds(timeout)
    seen: RunView | None = None
    outage: float | None = None
    while True:
        problem: Unreachable | None = None
        view: RunView | None = None
        try:
            view = await read(_patience(limit, loop.time() - began))
        except Unreachable as error:
            problem = error
        now = loop.time()
        if problem is None:
            seen, outage = view, None
        else:
            outage = now if outage is None else outage
            # Who was never there won't be waited for.
            if seen is None or now - outage > _OUTAGE_SECONDS:
                raise problem
        yield Look(view, problem, now - began)
        if view is not None and view.run.status in SETTLED:
            return
        pause = _pause(now - began, poll_interval_ms)
        if limit is not None:
            left = began + limit - loop.time()
            if left <= 0 and seen is not None:
                text = f"{seen.run.id} is {seen.run.status} after {limit:g} s; it goes on."
                raise WaitTimeout(text, seen)
            pause = min(pause, max(left, 0.0))
        await asyncio.sleep(pause)


def _pause(age: float, poll_interval_ms: float | None) -> float:
    if poll_interval_ms is not None and poll_interval_ms > 0:
        return min(max(poll_interval_ms / 1000, _SHORTEST_INTERVAL), _LONGEST_INTERVAL)
    return min(max(age * _SHARE_OF_AGE, _FIRST_PAUSE), _LONGEST_PAUSE)


def _patience(limit: float | None, age: float) -> timedelta:
    # A worker that doesn't answer must not outlast the caller's own patience.
    if limit is None:
        return PATIENCE
    return min(PATIENCE, timedelta(seconds=max(limit - age, _LEAST_PATIENCE_SECONDS)))


def _seconds(timeout: timedelta | float | None) -> float | None:
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
