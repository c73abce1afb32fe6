"""What a child's log says that a person at the terminal should hear of."""

import asyncio
import json
import re
from collections.abc import Callable

from runlane.cli.output import safe

_REPEAT_SECONDS = 60.0
# Which run a line is about is for the log: of five hundred that fail alike, one is told.
_TEXT_ENTRY = re.compile(r"\d{4}-\S+ \S+ (?P<level>[A-Z]+) (?P<text>.*?)( \[run_[^\]]*\])?")
_WHICH = " Which runs:  runlane list --blocked"
_LOUD = {"WARNING", "ERROR", "CRITICAL"}


class Attention:
    """Passes on the warnings and errors of a child's log, text or JSON, the same once a minute."""

    def __init__(self, say: Callable[[str], None], name: str) -> None:
        """Tell `say` about the child called `name`."""
        self._say = say
        self._name = name
        self._said: dict[str, float] = {}

    def __call__(self, line: str) -> None:
        """Look at one line of the log."""
        level, text = _json_entry(line) or _text_entry(line)
        if level in _LOUD and text:
            self._tell(text)

    def _tell(self, text: str) -> None:
        now = asyncio.get_running_loop().time()
        self._said = {k: at for k, at in self._said.items() if now - at < _REPEAT_SECONDS}
        if text not in self._said:
            self._said[text] = now
            self._say(f"{self._name}: {safe(text)}{_WHICH if text.startswith('Blocked: ') else ''}")


def _json_entry(line: str) -> tuple[str, str] | None:
    if not line.startswith("{"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        # The end of an endless line is cut off.
        return None
    return str(entry.get("level", "")), str(entry.get("message", ""))


def _text_entry(line: str) -> tuple[str, str]:
    entry = _TEXT_ENTRY.fullmatch(line)
    return (entry["level"], entry["text"]) if entry else ("", "")
