"""Whoever listens to a stream: which text of a message they were told while it was written."""

from collections.abc import Sequence

from runlane.api import event_data
from runlane.api.readers import Reader, Told, framed

_BEGUN = "thread.message.in_progress"
_MORE = "thread.message.delta"


class Listener:
    """One stream's part of what a reader tells."""

    def __init__(self, reader: Reader) -> None:
        """Tell nothing yet."""
        self._reader = reader
        self._told: dict[str, int] = {}
        """Characters of text told by message."""

    def frames(self, events: Sequence[Told]) -> bytes:
        """Return the frames of events; of a text only what wasn't told before."""
        return b"".join(map(self._frame, events))

    def hears_text(self, place: int) -> bool:
        """Tell whether whoever was told so many events stands where a message is written."""
        told = self._reader.told
        return place == len(told) and place > 0 and told[-1].name == _BEGUN

    def text(self, place: int) -> bytes:
        """Return the frame of text that came meanwhile; empty: none.

        Args:
            place: how many events this listener was told.
        """
        if not self.hears_text(place):
            return b""
        message_id = self._reader.told[-1].message_id
        text, before = self._reader.texts.of(message_id), self._told.get(message_id, 0)
        if len(text) <= before:
            return b""
        self._told[message_id] = len(text)
        return framed(_MORE, event_data.text_delta(message_id, text[before:]))

    def _frame(self, event: Told) -> bytes:
        count = self._told.get(event.message_id, 0)
        if not count or event.make is None:
            return event.frame
        rest = event_data.message_rest(
            event.make(), self._reader.texts.of(event.message_id)[:count]
        )
        return b"" if rest is None else framed(_MORE, rest, event_id=event.id)
