"""Heartbeats beside an activity's work, so that a dead worker is noticed within seconds."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import activity

from activities import failures

HEARTBEAT_TIMEOUT = timedelta(seconds=10)
POLL_BEAT = 4.0
"""Seconds between the heartbeats of a poll. Each is a write in Temporal, and hundreds poll."""
_BEAT = 2.0
_MARGIN = 5.0

_T = TypeVar("_T")
_began: ContextVar[float] = ContextVar("_began")


@asynccontextmanager
async def heartbeating(details: Any = None, *, every: float = _BEAT) -> AsyncIterator[None]:
    """Heartbeat while the body runs, so often that a death is noticed and a cancel heard.

    Temporal counts from the activity's start: none is needed at once, and what the body itself
    says first is then sent without delay.

    Args:
        details: May be mutated by the body.
        every: Seconds.
    """

    async def beat() -> None:
        while True:
            await asyncio.sleep(every)
            activity.heartbeat(*([details] if details is not None else []))

    _began.set(time.monotonic())
    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


def spent() -> float:
    """Return for how many seconds this attempt has been at work."""
    return time.monotonic() - _began.get()


async def see_through(
    request: Callable[[Callable[[], None]], Awaitable[_T]],
    *,
    on_send: Callable[[], None] = lambda: None,
) -> _T:
    """Await a request that changes something upstream, to its answer, although we are cancelled.

    The request may be accepted already, and only its answer tells what it did. Two exceptions: a
    worker that shuts down can't wait, and the next attempt looks for what happened; and what
    still waits for its turn is not sent any more.

    Args:
        request: Makes the request; it is handed what to call in the moment of sending.
        on_send: Called in that moment.

    Raises:
        ApplicationError: There was no answer in the activity's time. The request is given up
            before Temporal starts the next attempt, or two would run side by side. Or the run is
            being stopped, and nothing was sent.
    """
    has_left = False

    def leaving() -> None:
        nonlocal has_left
        has_left = True
        on_send()

    task = asyncio.ensure_future(_in_time(request(leaving)))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        details = activity.cancellation_details()
        stopped = details is not None and details.cancel_requested and not details.worker_shutdown
        if stopped and has_left:
            return await task
        task.cancel()
        if not stopped:
            raise
        await asyncio.gather(task, return_exceptions=True)
        raise failures.refusal("server_error", "Not sent: the run is being stopped") from None


async def _in_time(request: Awaitable[_T]) -> _T:
    limit = activity.info().start_to_close_timeout
    seconds = limit.total_seconds() if limit else None
    # Before a near deadline Temporal leaves a second or two: too little to keep a margin of five.
    # What was looked up before counts too.
    budget = None if seconds is None else max(seconds - _MARGIN, seconds * 0.8) - spent()
    try:
        async with asyncio.timeout(budget):
            return await request
    except TimeoutError:
        raise failures.unavailable("The upstream didn't answer in time") from None
