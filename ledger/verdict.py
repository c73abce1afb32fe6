"""What verifying an export can find."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ledger import chain


class Wrong(StrEnum):
    """What is wrong."""

    CHANGED = "changed"
    REMOVED = "removed"
    PUT_IN = "put in"
    TAIL_MISSING = "tail missing"
    NOT_SIGNED = "not signed"
    """A statement isn't signed by this key."""
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Problem:
    """The first thing that is wrong."""

    wrong: Wrong
    line: int
    """From 1; where it was noticed."""
    text: str
    """A sentence for a person."""
    run_id: str | None = None
    seq: int | None = None
    """The row that is changed, put in, or the first of those that are missing."""


@dataclass
class Verdict:
    """What a file was found to be."""

    rows: int = 0
    runs: int = 0
    checkpoints: int = 0
    pruned: int = 0
    """Runs whose trail retention has removed; only its end is known."""
    exported_at: str | None = None
    """Of the whole file; None where it has no end."""
    problem: Problem | None = None


class Found(Exception):
    """Ends the reading."""

    def __init__(self, problem: Problem) -> None:
        """Carry what was found."""
        super().__init__(problem.text)
        self.problem = problem


@dataclass(frozen=True)
class Line:
    """A line of an export, parsed."""

    number: int
    type: str
    body: dict[str, Any]
    said: dict[str, Any]
    raw: str


def digest(line: Line) -> str:
    """Return the digest that a row's body has, whatever it says of itself."""
    return chain.body_digest(chain.canonical(line.body))


def at_row(what: Wrong, line: Line, run_id: str, seq: int) -> Found:
    """Return what is wrong with a run's row."""
    said = {
        Wrong.CHANGED: f"row {seq} is changed",
        Wrong.REMOVED: f"row {seq} is removed",
        Wrong.PUT_IN: f"a row is put in as row {seq}",
        Wrong.TAIL_MISSING: f"the tail from row {seq} on is missing",
    }
    return wrong(what, line.number, f"run {run_id}: {said[what]}", run_id, seq)


def wrong(
    what: Wrong, line: int, text: str, run_id: str | None = None, seq: int | None = None
) -> Found:
    """Return what is wrong with a line."""
    return Found(Problem(what, line, f"Line {line}: {text}.", run_id, seq))


def number_in(line: Line, name: str) -> int:
    """Return a whole number of a row's body; -1 where there is none."""
    value = line.body.get(name)
    return value if type(value) is int else -1
