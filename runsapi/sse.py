"""Server-sent events: bytes into names and data.

The part of the HTML standard ("Server-sent events", "Interpreting an event stream") that the
protocol
needs: no reconnecting, because its streams have no cursor to go on from.
"""

import codecs
from collections.abc import Iterator

from runsapi.errors import APIResponseError

MAX_EVENT = 16 * 1024 * 1024
"""Characters of one event at most; what grows beyond is no event stream."""


class EventDecoder:
    """Feed it bytes as they come; it gives events as they end."""

    def __init__(self) -> None:
        self._text = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""
        self._name = ""
        self._data: list[str] = []
        self._size = 0
        self._begun = False

    def feed(self, chunk: bytes) -> Iterator[tuple[str, str]]:
        """The events that end within this chunk, as name and data.

        Raises:
            APIResponseError: An event is larger than 16 million characters.
        """
        text = self._text.decode(chunk)
        if text and not self._begun:
            self._begun = True
            text = text.removeprefix("\ufeff")
        self._rest += text
        # A carriage return at the very end may be half of a line's end: leave it for the next.
        held = "\r" if self._rest.endswith("\r") else ""
        lines = (self._rest[:-1] if held else self._rest).replace("\r\n", "\n").replace("\r", "\n")
        *whole, last = lines.split("\n")
        self._rest = last + held
        for line in whole:
            if event := self._line(line):
                yield event
        if self._size + len(self._rest) > MAX_EVENT:
            raise APIResponseError(f"An event of the stream is larger than {MAX_EVENT} characters")

    def end(self) -> Iterator[tuple[str, str]]:
        """What stands when the stream ends: an event is dropped unless a blank line ended it."""
        rest = self._rest
        self._rest = ""
        if rest.endswith("\r"):
            for line in (rest[:-1], ""):
                if event := self._line(line):
                    yield event

    def _line(self, line: str) -> tuple[str, str] | None:
        if not line:
            name, data = self._name, "\n".join(self._data)
            complete = bool(self._data)
            self._name, self._data, self._size = "", [], 0
            return (name or "message", data) if complete else None
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
            self._size += len(value)
        return None
