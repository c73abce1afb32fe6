"""The threads in which tools, their policies and their checks run: anybody's code, which may hang.

Each piece of work has a thread of its own. In a pool, those that hang would take all places.
"""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

MAX_THREADS = 500
"""That one process has at a time, those included that hang: what comes then is refused."""

_T = TypeVar("_T")
_running = threading.BoundedSemaphore(MAX_THREADS)


class NoThread(Exception):
    """So much hangs in this process that it takes no more: another one must do it."""

    def __init__(self) -> None:
        """Say what to do."""
        text = f"{MAX_THREADS} calls of tools hang in this worker; restart it"
        super().__init__(text)


async def in_thread(work: Callable[[], _T]) -> _T:
    """Do work in a thread of its own, and return or raise what it does.

    Where the wait is cancelled the thread goes on to its end, and what it comes to is dropped.

    Raises:
        NoThread: too many threads hang.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[_T | None, BaseException | None]] = loop.create_future()
    if not _running.acquire(blocking=False):
        raise NoThread
    context = contextvars.copy_context()

    def settle(value: _T | None, error: BaseException | None) -> None:
        if not done.done():
            done.set_result((value, error))

    def run() -> None:
        value, error = None, None
        try:
            value = context.run(work)
        except BaseException as caught:
            error = caught
        finally:
            _running.release()
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, value, error)

    # A daemon: what hangs must not keep the process from its end.
    threading.Thread(target=run, name="tool", daemon=True).start()
    # Handed over as a value: a StopIteration would never arrive as a future's exception.
    value, error = await done
    if error is not None:
        raise error
    return value  # type: ignore[return-value] # there is one where there is no error
