"""What became of each request to an upstream, for those who count them."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from runsapi.errors import RunsAPIError

_SEGMENT = "/[^/]+"
_RUNS = f"/threads{_SEGMENT}/runs"
_OPERATIONS = tuple(
    (method, re.compile(path), name)
    for method, path, name in (
        ("POST", _RUNS, "runs.create"),
        ("GET", _RUNS, "runs.list"),
        ("GET", _RUNS + _SEGMENT, "runs.retrieve"),
        ("POST", _RUNS + _SEGMENT, "runs.update"),
        ("POST", f"{_RUNS}{_SEGMENT}/cancel", "runs.cancel"),
        ("POST", f"{_RUNS}{_SEGMENT}/submit_tool_outputs", "runs.submit_tool_outputs"),
        ("GET", f"{_RUNS}{_SEGMENT}/steps", "steps.list"),
        ("GET", f"{_RUNS}{_SEGMENT}/steps{_SEGMENT}", "steps.retrieve"),
    )
)


@dataclass(frozen=True)
class Exchange:
    """One request, and how it ended.

    Attributes:
        operation: ``runs.create``, ``runs.retrieve``, …; ``other`` for what has no name here.
        seconds: From the request's first byte to the end of its answer; ``None`` where it failed.
        error: What went wrong, or ``None``.
    """

    operation: str
    seconds: float | None = None
    error: RunsAPIError | None = None


OnExchange = Callable[[Exchange], None]


def operation_of(method: str, path: str) -> str:
    """The name of what a request asks for, by its path below the base URL."""
    for known, pattern, name in _OPERATIONS:
        if method == known and pattern.fullmatch(path):
            return name
    return "other"
