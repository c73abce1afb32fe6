"""What an input file asks for, checked line by line before anything is sent."""

import contextlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from runlane import requests
from runlane.batches.lines import InputFile, Line
from runlane.errors import InvalidRequest, RunlaneError
from runsapi import AdditionalMessage, InvalidParameter
from workflows.contract import MAX_ID_LENGTH, MAX_MESSAGE_BYTES

NEW_THREAD_URL = "/v1/threads/runs"
THREAD_URL = "/v1/threads/ID/runs"

PAGE_LINES = 500
PAGE_BYTES = 4_000_000
"""A page of lines ends with the one by which it has so many of either; the ledger gets pages."""
MAX_THREAD_BYTES = 1_000_000
"""Bytes of a new thread as JSON."""

_FIELDS = ("custom_id", "method", "url", "body")
_THREAD_FIELDS = ("messages", "metadata", "tool_resources")
_THREAD_URL = re.compile(r"/v1/threads/([^/]+)/runs")
_ABSENT = "thread_of_nobody"
_WHERE = re.compile(r" at line \d+ column (\d+)")
_CACHE_KILOBYTES = 8_000
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that can't be used, and why: names, numbers and its url stand in it, no texts."""

    line: int
    reason: str
    code: str = InvalidRequest.code
    """For programs."""

    def __str__(self) -> str:
        """Return it as it is told."""
        return f"line {self.line:,}: {self.reason}"


@dataclass(frozen=True, slots=True)
class CheckedLine:
    """A request that can be sent."""

    number: int
    custom_id: str
    thread_id: str | None
    """None: it makes a thread of its own."""
    body: dict[str, Any]
    """As it will be sent; the thread to make, and its tools' resources, are in it."""
    digest: str
    """Of the line's bytes."""


@dataclass
class Totals:
    """What was found in a file."""

    usable: int = 0
    unusable: int = 0
    digest: str = ""
    """Of all the file's bytes, unpacked."""
    marks: list[str] = field(default_factory=list)
    """The digest as it was after each page of lines."""


Added = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Adds to a create body what every line is to have, such as `Registry.added_to`."""


def check(line: Line, added: Added | None = None) -> CheckedLine | Problem:
    """Check one line by itself; whatever its bytes are, nothing is raised."""
    try:
        return _checked(line, added)
    except InvalidRequest as error:
        return Problem(line.number, error.message, error.code)
    except RecursionError:
        return Problem(line.number, "It is nested too deeply.")


class Checking:
    """The check of a whole file, in the same memory however long it is.

    Every line is read once. Which `custom_id` was where lies in a temporary file.
    """

    def __init__(self, source: InputFile, added: Added | None = None) -> None:
        """Check this file's lines, with what is added to each."""
        self._source = source
        self._added = added
        self.totals = Totals()
        self.at_page_end = False
        """Whether the line that was yielded last is the last one of its page."""

    def lines(self) -> Iterator[CheckedLine | Problem]:
        """Yield every line that holds something, as a request or as a problem.

        At the end `totals` are those of the file.

        Raises:
            RunlaneError: no temporary file can be written.
            OSError: the file can't be read.
        """
        self.totals = Totals()
        lines = size = 0
        with _Seen() as seen:
            for line in self._source.lines():
                found = check(line, self._added)
                if isinstance(found, CheckedLine):
                    first = seen.first(found.custom_id, found.number)
                    if first != found.number:
                        text = f"custom_id stands in line {first:,} already."
                        found = Problem(found.number, text, "duplicate_custom_id")
                if isinstance(found, CheckedLine):
                    self.totals.usable += 1
                else:
                    self.totals.unusable += 1
                lines, size = lines + 1, size + len(line.raw or b"")
                self.at_page_end = lines >= PAGE_LINES or size >= PAGE_BYTES
                if self.at_page_end:
                    self.totals.marks.append(self._source.digest())
                    lines = size = 0
                yield found
        self.totals.digest = self._source.digest()


class _Seen:
    """Each `custom_id` and the line it came in first."""

    def __init__(self) -> None:
        # Without a name: a file that SQLite deletes, and writes only when its cache is full.
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.execute(f"PRAGMA cache_size = -{_CACHE_KILOBYTES}")
        self._file.execute("CREATE TABLE seen (custom_id TEXT PRIMARY KEY, line INT) WITHOUT ROWID")
        self._file.execute("BEGIN")

    def first(self, custom_id: str, line: int) -> int:
        try:
            added = self._file.execute(
                "INSERT OR IGNORE INTO seen VALUES (?, ?)", (custom_id, line)
            )
            if added.rowcount:
                return line
            found = self._file.execute("SELECT line FROM seen WHERE custom_id = ?", (custom_id,))
            return int(found.fetchone()[0])
        except sqlite3.Error as error:
            text = f"The check needs room for a temporary file (see TMPDIR): {error}."
            raise RunlaneError(text, code="no_room") from None

    def __enter__(self) -> "_Seen":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._file.close()


def _checked(line: Line, added: Added | None) -> CheckedLine:
    if line.raw is None:
        raise InvalidRequest(line.problem or "")
    fields = _json_object(line.raw)
    for name in _FIELDS:
        if name not in fields:
            raise InvalidRequest(f"{name} is required.")
    for name in fields:
        if name not in _FIELDS:
            text = f"{_quoted(name)} is not a field of a line; those are {', '.join(_FIELDS)}."
            raise InvalidRequest(text)
    custom_id = _custom_id(fields["custom_id"])
    if fields["method"] != "POST":
        raise InvalidRequest("method must be POST.")
    thread_id = _thread_id(fields["url"])
    body = fields["body"]
    if not isinstance(body, dict):
        raise InvalidRequest("body must be an object.")
    try:
        checked = _body(thread_id, body, added)
    except InvalidRequest as error:
        # The parameter's own name begins the sentence.
        text = error.message
        named = error.param is not None and text.startswith(error.param)
        raise InvalidRequest(f"body.{text}" if named else f"body: {text}") from None
    return CheckedLine(line.number, custom_id, thread_id, checked, line.digest())


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        fields = from_json(raw, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        where = _WHERE.sub(r" at byte \1", str(error))
        text = f"It is not JSON in UTF-8: {where}."
        raise InvalidRequest(text, code="invalid_json_line") from None
    if not isinstance(fields, dict):
        raise InvalidRequest("It must be a JSON object.")
    return fields


def _custom_id(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_ID_LENGTH:
        raise InvalidRequest(f"custom_id must be a string of 1 to {MAX_ID_LENGTH} characters.")
    if not value.isprintable():
        raise InvalidRequest("custom_id can't hold control characters.")
    return value


def _thread_id(url: object) -> str | None:
    if not isinstance(url, str):
        raise InvalidRequest("url must be a string.")
    if url == NEW_THREAD_URL:
        return None
    match = _THREAD_URL.fullmatch(url)
    if match is None:
        text = f"url must be {NEW_THREAD_URL} or {THREAD_URL}, not {_quoted(url)}."
        raise InvalidRequest(text)
    try:
        requests.check_thread_id(match[1])
    except InvalidRequest as error:
        raise InvalidRequest(f"url: {error.message}") from None
    return match[1]


def _body(thread_id: str | None, body: Mapping[str, Any], added: Added | None) -> dict[str, Any]:
    if body.get("stream"):
        text = "stream can't be true in a batch: there is nobody to follow it."
        raise InvalidRequest(text, param="stream")
    params = dict(body)
    thread: dict[str, Any] = {}
    if thread_id is None:
        thread = {name: params.pop(name) for name in ("thread", "tool_resources") if name in params}
        _check_thread(thread)
    if "assistant_id" not in params:
        raise InvalidRequest("assistant_id is required.", param="assistant_id")
    if added is not None:
        # What is no list can't be added to; that is said of it below.
        tools = params.get("tools")
        params = added(params) if tools is None or isinstance(tools, list) else params
    asked = requests.asked(thread_id or _ABSENT, params, max_bytes=MAX_MESSAGE_BYTES)
    return {**asked.request.params, **thread}


def _check_thread(parts: Mapping[str, Any]) -> None:
    for name, value in parts.items():
        if value is not None and not isinstance(value, dict):
            raise InvalidRequest(f"{name} must be an object.", param=name)
    thread = parts.get("thread") or {}
    for name in thread:
        if name not in _THREAD_FIELDS:
            text = f"thread.{_quoted(name)} is not a parameter of a thread."
            raise InvalidRequest(text, param="thread")
    resources = thread.get("tool_resources")
    if resources is not None and not isinstance(resources, dict):
        raise InvalidRequest("thread.tool_resources must be an object.", param="thread")
    _check_messages(thread.get("messages"))
    # A thread's metadata has the limits of a message's: none of it is ours.
    _check_part({"role": "user", "content": "", "metadata": thread.get("metadata")}, "thread")
    _check_size(parts)


def _check_messages(messages: object) -> None:
    if messages is None:
        return
    if not isinstance(messages, list):
        raise InvalidRequest("thread.messages must be a list.", param="thread")
    for number, message in enumerate(messages):
        where = f"thread.messages[{number}]"
        if not isinstance(message, dict):
            raise InvalidRequest(f"{where} must be an object.", param="thread")
        _check_part(message, where)


def _check_part(message: dict[str, Any], where: str) -> None:
    try:
        AdditionalMessage(**message)
    except InvalidParameter as error:
        text = str(error).replace(AdditionalMessage.__name__, "a message").rstrip(".")
        raise InvalidRequest(f"{where}.{text}.", param="thread") from None


def _check_size(parts: Mapping[str, Any]) -> None:
    try:
        size = len(json.dumps(parts, ensure_ascii=False, allow_nan=False).encode())
    except ValueError:
        # An integer of thousands of digits.
        raise InvalidRequest("thread can't be written as JSON in UTF-8.", param="thread") from None
    if size > MAX_THREAD_BYTES:
        text = f"thread has {size:,} bytes as JSON and may have {MAX_THREAD_BYTES:,}."
        raise InvalidRequest(text, param="thread")


def _quoted(text: str) -> str:
    shown = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return ascii(shown)
