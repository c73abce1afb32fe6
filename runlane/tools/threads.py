"""The threads in which sync tools run."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

MAX_THREADS = 64
"""Sync tools that one process runs at a time; a further one waits, within its timeout."""


@cache
def executor() -> ThreadPoolExecutor:
    """Return the process's threads for tools.

    They are not asyncio's own, of which two cores have six: slow tools would take them all, and
    every look-up of a host's name waits for one.
    """
    return ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="tool")
