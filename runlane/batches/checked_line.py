"""One line of an input: the request that it asks for, or why it can't be used."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from runlane import requests
from runlane.batches import new_thread
from runlane.batches.lines import Line
from runlane.batches.new_thread import quoted
from runlane.errors import InvalidRequest
from workflows.contract import MAX_ID_LENGTH

NEW_THREAD_URL = "/v1/threads/runs"
THREAD_URL = "/v1/threads/ID/runs"
MAX_REQUEST_BYTES = 1_100_000
"""Bytes of a run's request as JSON: a megabyte of text and what stands around it. Temporal takes
2 MB of one message, in case the item becomes a run of its own without a store of big payloads."""

_FIELDS = ("custom_id", "method", "url", "body")
_THREAD_URL = re.compile(r"/v1/threads/([^/]+)/runs")
_ABSENT = "thread_of_nobody"
_WHERE = re.compile(r" at line \d+ column (\d+)")


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


def _checked(line: Line, added: Added | None) -> CheckedLine:
    if line.raw is None:
        raise InvalidRequest(line.problem or "")
    fields = _json_object(line.raw)
    for name in _FIELDS:
        if name not in fields:
            raise InvalidRequest(f"{name} is required.")
    for name in fields:
        if name not in _FIELDS:
            text = f"{quoted(name)} is not a field of a line; those are {', '.join(_FIELDS)}."
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
    # Readers of JSON differ in which of two values counts: one would be lost without a word.
    _UNAMBIGUOUS.decode(raw.decode())
    return fields


def _once_each(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        seen = set[str]()
        for name, _ in pairs:
            if name in seen:
                raise InvalidRequest(f"{quoted(name)} stands twice in one object.")
            seen.add(name)


_UNAMBIGUOUS = json.JSONDecoder(object_pairs_hook=_once_each, parse_int=str)
"""Its numbers are of no use, and may have any number of digits."""


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
        text = f"url must be {NEW_THREAD_URL} or {THREAD_URL}, not {quoted(url)}."
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
        new_thread.check(thread)
    if "assistant_id" not in params:
        raise InvalidRequest("assistant_id is required.", param="assistant_id")
    if added is not None:
        # What is no list can't be added to; that is said of it below.
        tools = params.get("tools")
        params = added(params) if tools is None or isinstance(tools, list) else params
    asked = requests.asked(thread_id or _ABSENT, params, max_bytes=MAX_REQUEST_BYTES)
    return {**asked.request.params, **thread}
