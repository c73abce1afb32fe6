"""What a child's log says that a person at the terminal should hear of."""

import asyncio
import re
from collections.abc import Callable

from runlane.cli.output import safe

_REPEAT_SECONDS = 60.0
_TRACEBACK_SECONDS = 0.2
# What Temporal's SDK adds about where it happened, as a dict, is for the log and not for people.
_LOG_ENTRY = re.compile(r"\d{4}-\S+ \S+ (?P<level>[A-Z]+) (?P<text>.*?)( \(\{'.*)?")
_ACTIVITY_FAILED = "Completing activity as failed"
_ERROR = re.compile(r"(temporalio\.exceptions\.ApplicationError: )?(?P<text>[A-Za-z][\w.]*: .*)")


class Attention:
    """Passes on what somebody should see of a child's log, the same once a minute.

    Warnings and errors are passed on. Of an activity that failed it is the error at the end of the
    traceback: it says what is wrong and where, and the line before it only that something is.
    """

    def __init__(self, say: Callable[[str], None], name: str) -> None:
        """Tell `say` about the child called `name`."""
        self._say = say
        self._name = name
        self._said: dict[str, float] = {}
        self._in_failure = False
        self._error: str | None = None

    def __call__(self, line: str) -> None:
        """Look at one line of the log."""
        entry = _LOG_ENTRY.fullmatch(line)
        if entry is None:
            self._continue(line)
            return
        self._tell_error()
        self._in_failure = entry["text"] == _ACTIVITY_FAILED
        if entry["level"] in {"WARNING", "ERROR", "CRITICAL"} and not self._in_failure:
            self._tell(entry["text"])

    def _continue(self, line: str) -> None:
        error = _ERROR.fullmatch(line) if self._in_failure else None
        if error is None:
            return
        if self._error is None:
            # Another one may follow, of which this is the cause; the next entry may be far off.
            asyncio.get_running_loop().call_later(_TRACEBACK_SECONDS, self._tell_error)
        self._error = error["text"]

    def _tell_error(self) -> None:
        error, self._error = self._error, None
        # A worker that ends hands its polls over by an error that is none.
        if error is not None and not error.startswith("Handover"):
            self._tell(error)

    def _tell(self, text: str) -> None:
        now = asyncio.get_running_loop().time()
        self._said = {k: at for k, at in self._said.items() if now - at < _REPEAT_SECONDS}
        if text not in self._said:
            self._said[text] = now
            self._say(f"{self._name}: {safe(text)}")
