"""The thread that a line makes for its run, under the protocol's own rules."""

import json
from collections.abc import Mapping
from typing import Any

from runlane.errors import InvalidRequest
from runsapi import AdditionalMessage, InvalidParameter

MAX_BYTES = 2_000_000
"""Bytes of a new thread as JSON: what a line has room for. It goes upstream and to the ledger."""

_FIELDS = ("messages", "metadata", "tool_resources")
_SHOWN = 60


def check(parts: Mapping[str, Any]) -> None:
    """Check a line's `thread` and `tool_resources`.

    Raises:
        InvalidRequest: they can't be used; its text names the field and the limit.
    """
    for name, value in parts.items():
        if value is not None and not isinstance(value, dict):
            raise InvalidRequest(f"{name} must be an object.", param=name)
    thread = parts.get("thread") or {}
    for name in thread:
        if name not in _FIELDS:
            text = f"thread.{quoted(name)} is not a parameter of a thread."
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
    if size > MAX_BYTES:
        text = f"thread has {size:,} bytes as JSON and may have {MAX_BYTES:,}."
        raise InvalidRequest(text, param="thread")


def quoted(text: str) -> str:
    """Return a name from a line as a message shows it: cut short, in ASCII."""
    shown = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return ascii(shown)
