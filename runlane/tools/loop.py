"""The event loop of async tools, in a thread of its own: one that blocks it holds up no worker."""

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

from runlane.tools.threads import NoThread

SLACK = 5.0
"""Seconds that a loop which nothing blocks is far from needing."""
MAX_BLOCKED = 20
"""Loops that one process leaves to the tools that block them."""

_T = TypeVar("_T")


class LoopBlocked(Exception):
    """Something blocks the loop: nobody knows what became of what ran in it."""


class ToolLoop:
    """One loop for all async tools of a process, as their clients and locks expect."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._blocked = 0

    async def run(self, work: Callable[[], Awaitable[_T]], within: float) -> _T:
        """Do async work in the loop, and return or raise what it does.

        Where the wait is cancelled the work is, too.

        Args:
            work: makes what is awaited; it must end by itself.
            within: seconds that it takes at most.

        Raises:
            LoopBlocked: it took longer, for something blocks the loop. Others get a new one; what
                else runs in this one goes on once it is free.
            NoThread: too many loops are blocked.
        """
        if self._loop is None:
            if self._blocked >= MAX_BLOCKED:
                raise NoThread
            self._loop = self._start()
        loop = self._loop
        future = asyncio.run_coroutine_threadsafe(_caught(work), loop)
        limit = asyncio.timeout(within + SLACK)
        try:
            async with limit:
                value, error = await asyncio.wrap_future(future)
        except TimeoutError:
            if self._loop is loop:
                self._loop = None
                self._blocked += 1
            raise LoopBlocked from None
        if error is not None:
            raise error
        return value  # type: ignore[return-value] # there is one where there is no error

    def _start(self) -> asyncio.AbstractEventLoop:
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        # A daemon: a tool that blocks it must not keep the process from its end.
        threading.Thread(target=_serve, args=(started,), name="async tools", daemon=True).start()
        loop, ended = started.result()
        weakref.finalize(self, _end, loop, ended).atexit = False
        return loop


async def _caught(work: Callable[[], Awaitable[_T]]) -> tuple[_T | None, BaseException | None]:
    # A KeyboardInterrupt that reaches the loop ends it.
    try:
        return await work(), None
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return None, error


def _end(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # it has ended
        loop.call_soon_threadsafe(ended.set)


def _serve(started: "Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]") -> None:
    async def serve() -> None:
        ended = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), ended))
        await ended.wait()

    asyncio.run(serve())
