"""What an attached poll needs to stay, to go, and to be taken over by another worker."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities import failures
from activities.contract import LONGEST_LAG, RetrieveInput, answerable, asked_of
from activities.texts import Texts
from runsapi import INTERMEDIATE, TERMINAL, Run, RunStatus

WRITTEN = "written"
"""The key of a heartbeat's details under which the text so far stands."""

_T = TypeVar("_T")


def goes_on(run: Run, input: RetrieveInput, age: float) -> bool:
    """Tell whether to keep polling: an unknown status is no end, only somebody's new word."""
    if run.status == RunStatus.REQUIRES_ACTION:
        if not answerable(run):
            return input.beyond_action
        asked = asked_of(run)
        if not asked.keys() <= set(input.answered):
            return False
        return not input.asked or (age < LONGEST_LAG and asked.items() <= input.asked.items())
    return run.status in INTERMEDIATE or run.status not in TERMINAL


def earlier_progress() -> Mapping[str, Any]:
    """Return what the poll's earlier attempt said in its last heartbeat."""
    details = activity.info().heartbeat_details
    return details[0] if details and isinstance(details[0], dict) else {}


@asynccontextmanager
async def telling(texts: Texts, run_id: str, progress: dict[str, Any]) -> AsyncIterator[None]:
    """Tell the text of the run's message in heartbeats while it grows, where it is read here."""

    async def tell() -> None:
        async for written in texts.watch(run_id):
            progress[WRITTEN] = written.as_json()
            activity.heartbeat(progress)

    task = asyncio.create_task(tell())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def or_hand_over(part: Awaitable[_T], progress: Mapping[str, Any]) -> _T:
    """Await a part of a poll; when the worker shuts down, hand the poll over at once.

    A request is given up too: it only reads, and an upstream may be long in answering.
    """
    task = asyncio.ensure_future(part)
    shutdown = asyncio.ensure_future(activity.wait_for_worker_shutdown())
    try:
        await asyncio.wait({task, shutdown}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            # The last word reaches the next worker, or what was polled since the last is lost.
            activity.heartbeat(progress)
            hand_over()
        return await task
    finally:
        task.cancel()
        shutdown.cancel()
        await asyncio.gather(task, shutdown, return_exceptions=True)


def hand_over() -> NoReturn:
    """Raise the error that costs no event and is retried after a millisecond (0 is ignored).

    It is benign: neither logs nor metrics take it for a failure.
    """
    raise ApplicationError(
        "The worker is shutting down",
        type=failures.HANDOVER,
        category=ApplicationErrorCategory.BENIGN,
        next_retry_delay=timedelta(milliseconds=1),
    )
