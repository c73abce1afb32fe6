"""What of a child's log reaches the terminal of `runlane up`."""

import json
from collections.abc import Callable

import pytest

from runlane.attention import Attention


async def told(*lines: str) -> list[str]:
    """Return what was passed on of the lines."""
    said: list[str] = []
    attention = Attention(said.append, "worker")
    for line in lines:
        attention(line)
    return said


def as_text(level: str, message: str, about: str = "") -> str:
    """Return a line as the text format writes it."""
    return f"2026-01-01 12:00:00,000 {level} {message}{about}"


def as_json(level: str, message: str, about: str = "") -> str:
    """Return a line as the JSON format writes it."""
    fields = {"run_id": about} if about else {}
    return json.dumps({"time": "2026-01-01T12:00:00", "level": level, "message": message, **fields})


@pytest.mark.parametrize("line", [as_text, as_json])
async def test_warnings_and_errors_are_passed_on_and_nothing_else(line: Callable[..., str]) -> None:
    """Without time and level, and without the run that it is about."""
    assert ["worker: low on slots", "worker: broken"] == await told(
        line("INFO", "fine"),
        line("WARNING", "low on slots", " [run_A attempt 1 create try 2]"),
        line("ERROR", "broken"),
        "a line of somebody else's",
        "Traceback (most recent call last):",
        '  File "a.py", line 1, in a',
    )


@pytest.mark.parametrize("line", [as_text, as_json])
async def test_who_reads_of_a_blocked_run_is_told_how_to_find_it(line: Callable[..., str]) -> None:
    """The run itself isn't named, for there may be hundreds."""
    (said,) = await told(line("WARNING", "Blocked: No quota.", " [run_A attempt 1 poll]"))

    assert said == "worker: Blocked: No quota. Which runs:  runlane list --blocked"


@pytest.mark.parametrize("line", [as_text, as_json])
async def test_the_same_is_told_once(line: Callable[..., str]) -> None:
    """Activities that are tried again fail the same way each second, for hundreds of runs."""
    lines = [line("WARNING", "no answer", f" [run_{n} attempt 1 poll try {n}]") for n in range(3)]

    assert ["worker: no answer"] == await told(*lines)


async def test_json_that_is_cut_off_is_nobodys_line() -> None:
    """A child's line is read up to a length."""
    assert [] == await told(as_json("ERROR", "x" * 100)[:80])


async def test_what_a_terminal_would_obey_is_made_visible() -> None:
    """A log may hold what an upstream said."""
    assert ["worker: red \\x1b[31m"] == await told(as_text("ERROR", "red \x1b[31m"))
