"""Checks of request bodies and queries, refused in the API's own words."""

from __future__ import annotations

import re
from typing import Any

from runsapi.simulator.engine import OUTPUTS_LIMIT
from runsapi.simulator.errors import JSON, ApiError, outputs_too_large

MAX_PAIRS = 16
MAX_KEY = 64
MAX_VALUE = 512
MAX_TEXT = 256_000
"""Characters of a message or of instructions."""
MAX_RUN_TOOLS = 20
MAX_ASSISTANT_TOOLS = 128

_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "string": (str, "a string"),
    "object": (dict, "an object"),
    "array": (list, "an array"),
    "boolean": (bool, "a boolean"),
    "number": ((int, float), "a number"),
    "integer": (int, "an integer"),
    "text": ((str, list), "a string or an array"),
    "choice": ((str, dict), "a string or an object"),
}
_RUN = {
    "assistant_id": "string",
    "additional_instructions": "string",
    "additional_messages": "array",
    "instructions": "string",
    "max_completion_tokens": "integer",
    "max_prompt_tokens": "integer",
    "metadata": "object",
    "model": "string",
    "parallel_tool_calls": "boolean",
    "reasoning_effort": "string",
    "response_format": "choice",
    "stream": "boolean",
    "temperature": "number",
    "tool_choice": "choice",
    "tools": "array",
    "top_p": "number",
    "truncation_strategy": "object",
}
_THREAD = {"messages": "array", "metadata": "object", "tool_resources": "object"}
_ASSISTANT = {
    "model": "string",
    "name": "string",
    "description": "string",
    "instructions": "string",
    "tools": "array",
    "tool_resources": "object",
    "metadata": "object",
    "temperature": "number",
    "top_p": "number",
    "response_format": "choice",
    "reasoning_effort": "string",
}
_FIELDS = {
    "assistants.create": _ASSISTANT,
    "assistants.update": _ASSISTANT,
    "threads.create": _THREAD,
    "threads.update": {"metadata": "object", "tool_resources": "object"},
    "threads.create_and_run": {
        **{k: v for k, v in _RUN.items() if not k.startswith("additional_")},
        "thread": "object",
        "tool_resources": "object",
    },
    "messages.create": {
        "role": "string",
        "content": "text",
        "attachments": "array",
        "metadata": "object",
    },
    "messages.update": {"metadata": "object"},
    "runs.create": _RUN,
    "runs.update": {"metadata": "object"},
    "runs.cancel": {},
    "runs.submit_tool_outputs": {
        "tool_outputs": "array",
        "tool_approvals": "array",
        "stream": "boolean",
    },
}
_REQUIRED = {
    "assistants.create": ("model",),
    "messages.create": ("role", "content"),
    "runs.create": ("assistant_id",),
    "threads.create_and_run": ("assistant_id",),
}


def check_body(operation: str, body: JSON) -> None:
    """Refuse unknown, missing or ill-typed fields, and what is over a limit."""
    _check(body, _FIELDS[operation], _REQUIRED.get(operation, ()))
    if operation == "runs.submit_tool_outputs":
        _outputs(body)
    if isinstance(body.get("thread"), dict):
        _check(body["thread"], _THREAD, (), "thread.")
    thread = body.get("thread") or body
    for name, parts in (
        ("messages", thread.get("messages")),
        ("additional_messages", body.get("additional_messages")),
    ):
        for n, part in enumerate(parts or []):
            where = f"{name}[{n}]"
            _typed(where, part, "object")
            _check(part, _FIELDS["messages.create"], _REQUIRED["messages.create"], f"{where}.")
    _limits(operation, body)


def _check(body: JSON, fields: dict[str, str], required: tuple[str, ...], at: str = "") -> None:
    for name in body:
        if name not in fields:
            raise _bad(f"Unknown parameter: '{at}{name}'.", f"{at}{name}", "unknown_parameter")
    for name in required:
        if body.get(name) is None:
            raise _missing(f"{at}{name}")
    for name, kind in fields.items():
        if body.get(name) is not None:
            _typed(f"{at}{name}", body[name], kind)
    if body.get("metadata") is not None:
        _metadata(body["metadata"], f"{at}metadata")
    if "role" in fields and body["role"] not in ("user", "assistant"):
        raise _bad(
            f"Invalid value: '{body['role']}'. Supported values are: 'user' and 'assistant'.",
            f"{at}role",
            "invalid_value",
        )
    for name in ("content", "instructions"):
        if isinstance(body.get(name), str):
            _short(f"{at}{name}", body[name], MAX_TEXT)
    for name in ("content", "tools", "attachments"):
        for n, part in enumerate(body[name] if isinstance(body.get(name), list) else ()):
            _typed(f"{at}{name}[{n}]", part, "object")


def _limits(operation: str, body: JSON) -> None:
    most = MAX_ASSISTANT_TOOLS if operation.startswith("assistants.") else MAX_RUN_TOOLS
    if (count := len(body.get("tools") or [])) > most:
        raise _bad(
            f"Invalid 'tools': array too long. Expected an array with maximum length {most}, "
            f"but got an array with length {count} instead.",
            "tools",
            "array_above_max_length",
        )
    for n, tool in enumerate(body.get("tools") or []):
        _tool(f"tools[{n}]", tool)
    for name, low, high in (
        ("temperature", 0, 2),
        ("top_p", 0, 1),
        ("max_prompt_tokens", 256, None),
        ("max_completion_tokens", 256, None),
    ):
        if body.get(name) is not None:
            _between(name, body[name], low, high)


def _tool(at: str, tool: JSON) -> None:
    if tool.get("type") is None:
        raise _missing(f"{at}.type")
    if tool["type"] != "function":
        return
    if not isinstance(tool.get("function"), dict):
        raise _missing(f"{at}.function")
    name = tool["function"].get("name")
    if not isinstance(name, str):
        raise _missing(f"{at}.function.name")
    _short(f"{at}.function.name", name, MAX_KEY)
    if not _NAME.fullmatch(name):
        raise _bad(
            f"Invalid '{at}.function.name': string does not match pattern. "
            "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
            f"{at}.function.name",
            "invalid_value",
        )


def _outputs(body: JSON) -> None:
    if body.get("tool_outputs") is None and body.get("tool_approvals") is None:
        raise _missing("tool_outputs")
    size = 0
    for name in ("tool_outputs", "tool_approvals"):
        for n, part in enumerate(body.get(name) or []):
            where = f"{name}[{n}]"
            _typed(where, part, "object")
            for key in part:
                if key not in ("tool_call_id", "output", "approve", "headers"):
                    where = f"{where}.{key}"
                    raise _bad(f"Unknown parameter: '{where}'.", where, "unknown_parameter")
            for key in ("tool_call_id", "output"):
                if part.get(key) is not None:
                    _typed(f"{where}.{key}", part[key], "string")
            size += len((part.get("output") or "").encode())
    if size >= OUTPUTS_LIMIT:
        raise outputs_too_large()


def _metadata(pairs: JSON, at: str) -> None:
    if len(pairs) > MAX_PAIRS:
        raise _bad(
            f"Invalid '{at}': too many properties. Expected an object with at most {MAX_PAIRS} "
            f"properties, but got an object with {len(pairs)} properties instead.",
            at,
            "object_above_max_properties",
        )
    for key, value in pairs.items():
        _short(f"{at}.{key}", key, MAX_KEY)
        _typed(f"{at}.{key}", value, "string")
        _short(f"{at}.{key}", value, MAX_VALUE)


def limit_of(query: dict[str, str]) -> int:
    """Return the `limit` of a list, 20 without one."""
    text = query.get("limit", "20")
    if not text.lstrip("-").isdigit():
        raise _bad(
            "Invalid type for 'limit': expected an integer, but got a string instead.",
            "limit",
            "invalid_type",
        )
    _between("limit", int(text), 1, 100)
    return int(text)


def order_of(query: dict[str, str]) -> str:
    """Return `asc` or `desc`, the latter without one."""
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise _bad(
            f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'.",
            "order",
            "invalid_value",
        )
    return order


def _between(name: str, value: float, low: float, high: float | None) -> None:
    kind = "integer" if isinstance(value, int) else "decimal"
    if value < low:
        raise _bad(
            f"Invalid '{name}': {kind} below minimum value. Expected a value >= {low}, "
            f"but got {value} instead.",
            name,
            f"{kind}_below_min_value",
        )
    if high is not None and value > high:
        raise _bad(
            f"Invalid '{name}': {kind} above maximum value. Expected a value <= {high}, "
            f"but got {value} instead.",
            name,
            f"{kind}_above_max_value",
        )


def _short(name: str, text: str, most: int) -> None:
    if len(text) > most:
        raise _bad(
            f"Invalid '{name}': string too long. Expected a string with maximum length {most}, "
            f"but got a string with length {len(text)} instead.",
            name,
            "string_above_max_length",
        )


def _typed(name: str, value: Any, kind: str) -> None:
    expected, words = _TYPES[kind]
    # In Python a bool is an int; in JSON it isn't a number.
    if isinstance(value, expected) and not (isinstance(value, bool) and kind != "boolean"):
        return
    got = "null" if value is None else _word(value)
    raise _bad(
        f"Invalid type for '{name}': expected {words}, but got {got} instead.",
        name,
        "invalid_type",
    )


def _word(value: Any) -> str:
    for kind in ("boolean", "integer", "number", "string", "object", "array"):
        if isinstance(value, _TYPES[kind][0]):
            return _TYPES[kind][1]
    return "an unknown value"


def _missing(name: str) -> ApiError:
    return _bad(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")


def _bad(message: str, param: str, code: str) -> ApiError:
    return ApiError(message, param=param, code=code)
