"""Heartbeats beside an activity's work, so that a dead worker is noticed within seconds."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import activity

from activities import failures

HEARTBEAT_TIMEOUT = timedelta(seconds=10)
_BEAT = 2.0
_MARGIN = 5.0

_T = TypeVar("_T")


@asynccontextmanager
async def heartbeating(details: Any = None) -> AsyncIterator[None]:
    """Heartbeat every two seconds while the body runs; `details` may be mutated by the body."""

    async def beat() -> None:
        while True:
            activity.heartbeat(*([details] if details is not None else []))
            await asyncio.sleep(_BEAT)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def see_through(request: Awaitable[_T]) -> _T:
    """Await a request that changes something upstream, to its answer, although we are cancelled.

    The request may be accepted already, and only its answer tells what it did. A worker that
    shuts down is the exception: it can't wait, and the next attempt looks for what happened.

    Raises:
        ApplicationError: There was no answer in the activity's time. The request is given up
            before Temporal starts the next attempt, or two would run side by side.
    """
    task = asyncio.ensure_future(_in_time(request))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        details = activity.cancellation_details()
        if details is not None and details.cancel_requested and not details.worker_shutdown:
            return await task
        task.cancel()
        raise


async def _in_time(request: Awaitable[_T]) -> _T:
    limit = activity.info().start_to_close_timeout
    seconds = limit.total_seconds() if limit else None
    # Before a near deadline Temporal leaves a second or two: too little to keep a margin of five.
    budget = None if seconds is None else max(seconds - _MARGIN, seconds * 0.8)
    try:
        async with asyncio.timeout(budget):
            return await request
    except TimeoutError:
        raise failures.unavailable("The upstream didn't answer in time") from None
