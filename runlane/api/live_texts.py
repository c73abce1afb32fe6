"""The text of a run's messages while they are written, put together from what a worker tells."""

from activities.texts import Written


class LiveTexts:
    """Texts by message, as far as they could be heard without a gap.

    Attributes:
        grown: how often a text has grown.
    """

    def __init__(self) -> None:
        """Know of none."""
        self.grown = 0
        self._texts: dict[str, str] = {}
        self._lost: set[str] = set()

    def of(self, message_id: str) -> str:
        """Return what is known of a message's text."""
        return self._texts.get(message_id, "")

    def take(self, written: Written | None) -> bool:
        """Hear of a text; tell whether it has grown."""
        if written is None or written.message_id in self._lost:
            return False
        known = self.of(written.message_id)
        end = written.offset + len(written.text)
        if end <= len(known):
            # An older word, or the same again.
            return False
        if written.offset > len(known) or not written.text.startswith(known[written.offset :]):
            # What was told stands; the rest comes with the whole.
            self._lost.add(written.message_id)
            return False
        self._texts[written.message_id] = known[: written.offset] + written.text
        self.grown += 1
        return True
