"""What a person who waits for the figures sees meanwhile: lines, never long without one."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SILENCE_SECONDS = 4.0


class Progress:
    """Lines on standard error, each with the seconds since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line."""
        sys.stderr.write(f"[{time.monotonic() - self._began:4.0f} s] {text}\n")
        sys.stderr.flush()

    @contextmanager
    def watching(self, state: Callable[[], str]) -> Iterator[None]:
        """Say every few seconds how things stand."""

        async def tell() -> None:
            while True:
                await asyncio.sleep(_SILENCE_SECONDS)
                self.say(f"  {state()}")

        telling = asyncio.create_task(tell())
        try:
            yield
        finally:
            telling.cancel()
