"""The text of messages while an upstream writes them, as its streams tell it.

It is a hint for whoever watches, and no more: it is gone with the process, nothing waits for it,
and what a message is in the end is read from the upstream.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any, NamedTuple, Self

from runsapi import AssistantStreamEvent
from runsapi.events import ThreadMessageDelta, ThreadMessageEvent
from runsapi.messages import MessageDelta, TextDeltaBlock
from runsapi.streaming import EventStream

MAX_STREAMS = 200
"""Streams that one process reads at a time, each on a connection of its own."""
MAX_CHARACTERS = 256 * 1024
"""Of a message that are kept; what comes after them is told once the message is complete."""
WINDOW_BYTES = 24_000
"""Of a message's text as JSON that are told at a time: 32 kB would be stored as a file."""
EVERY = 1.0
"""Seconds between two tellings; Temporal's client sends heartbeats no oftener."""

_LONGEST = 3600.0
_KEPT_FOR = 30.0
"""Seconds for which a text is kept after its stream, for a poll that looks later."""

_logger = logging.getLogger("runlane.worker")


class Written(NamedTuple):
    """The end of what is written of a message so far."""

    message_id: str
    offset: int
    """Characters before `text`."""
    text: str

    def as_json(self) -> dict[str, Any]:
        """Return it as it stands in a heartbeat."""
        return _Unprinted(self._asdict())

    @classmethod
    def read(cls, value: object) -> Self | None:
        """Return what a heartbeat says; None where it says nothing that can be read."""
        if not isinstance(value, dict):
            return None
        match value:
            case {"message_id": str(message_id), "offset": int(offset), "text": str(text)}:
                return cls(message_id, offset, text) if offset >= 0 else None
        return None


class _Unprinted(dict[str, Any]):
    """Temporal's client puts heartbeats into its log, where that holds everything."""

    def __repr__(self) -> str:
        return "<text>"


class Texts:
    """The texts of the runs whose streams this process reads."""

    def __init__(self) -> None:
        """Read nothing yet."""
        self._texts: dict[str, _Text] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    @property
    def has_room(self) -> bool:
        """Whether one more stream can be read."""
        return not self._closed and len(self._tasks) < MAX_STREAMS

    def follow(self, run_id: str, stream: EventStream) -> None:
        """Read the rest of an upstream run's stream beside everything else."""
        earlier = self._tasks.pop(run_id, None)
        if earlier is not None:
            earlier.cancel()
        text = self._texts[run_id] = _Text()
        self._tasks[run_id] = asyncio.create_task(self._read(run_id, text, stream))

    async def watch(self, run_id: str) -> AsyncIterator[Written]:
        """Yield what is written of the run's latest message, as it grows, until its stream ends."""
        text = self._texts.get(run_id)
        seen: tuple[str, int] | None = None
        while text is not None:
            news = text.news
            if text.mark != seen and text.message_id:
                seen = text.mark
                yield text.written()
                await asyncio.sleep(EVERY)
            elif text.has_ended:
                return
            else:
                await news.wait()

    def close(self) -> None:
        """Read no more; nothing is waited for."""
        self._closed = True
        for task in self._tasks.values():
            task.cancel()

    async def _read(self, run_id: str, text: "_Text", stream: EventStream) -> None:
        try:
            async with asyncio.timeout(_LONGEST):
                async for event in stream:
                    text.take(event)
        except Exception as error:
            # What was in it must not stand in a log, and nobody waits for it.
            _logger.debug("A stream of %s broke off: %s", run_id, type(error).__name__)
        finally:
            text.end()
            if self._texts.get(run_id) is text:
                self._tasks.pop(run_id, None)
                asyncio.get_running_loop().call_later(_KEPT_FOR, self._drop, run_id, text)
            try:
                await stream.aclose()
            except Exception as error:
                _logger.debug("A stream of %s can't be closed: %s", run_id, type(error).__name__)

    def _drop(self, run_id: str, text: "_Text") -> None:
        if self._texts.get(run_id) is text:
            del self._texts[run_id]


class _Text:
    """What is written of a run's latest message."""

    def __init__(self) -> None:
        self.message_id = ""
        self.news = asyncio.Event()
        self.has_ended = False
        self._pieces: list[str] = []
        self._size = 0
        self._is_whole = True
        """Nothing is missing in it, so more may follow."""

    @property
    def mark(self) -> tuple[str, int]:
        """What differs when there is more."""
        return self.message_id, self._size

    def take(self, event: AssistantStreamEvent) -> None:
        match event:
            case ThreadMessageEvent(data=message):
                if message.id != self.message_id:
                    self._begin(message.id)
                    # Deltas go on from what it holds, which none of them has told.
                    self._is_whole = not message.content
            case ThreadMessageDelta(data=data):
                if data.id != self.message_id:
                    self._begin(data.id)
                self._add(data.delta)
            case _ if event.event == "thread.message.delta":
                self._is_whole = False

    def end(self) -> None:
        self.has_ended = True
        self._tell()

    def written(self) -> Written:
        text = "".join(self._pieces)
        self._pieces = [text]
        start = len(text)
        # A character is at most six bytes of JSON.
        for size in (WINDOW_BYTES, WINDOW_BYTES // 2, WINDOW_BYTES // 4, WINDOW_BYTES // 6):
            start = max(0, len(text) - size)
            told = json.dumps(text[start:], ensure_ascii=False)
            if len(told.encode()) <= WINDOW_BYTES:
                break
        return Written(self.message_id, start, text[start:])

    def _begin(self, message_id: str) -> None:
        self.message_id, self._pieces, self._size, self._is_whole = message_id, [], 0, True

    def _add(self, delta: MessageDelta) -> None:
        for part in delta.content or []:
            if part.index != 0 or not isinstance(part, TextDeltaBlock):
                # Only a first part that is text is told; the rest comes with the whole.
                self._is_whole = False
                continue
            value = part.text.value if part.text is not None else None
            if not value or not self._is_whole:
                continue
            if self._size + len(value) > MAX_CHARACTERS or not _is_sendable(value):
                self._is_whole = False
                continue
            self._pieces.append(value)
            self._size += len(value)
            self._tell()

    def _tell(self) -> None:
        news, self.news = self.news, asyncio.Event()
        news.set()


def _is_sendable(text: str) -> bool:
    """Tell whether a text can stand in UTF-8: a model's broken emoji can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
