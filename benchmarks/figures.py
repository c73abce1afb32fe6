"""The figures: rows of one table, each with what was to be reached."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table

WIDTH = 110
"""Columns that the table takes at most; what is longer is folded."""


@dataclass(frozen=True)
class Target:
    """What a figure was to reach, in words, and whether it did."""

    text: str
    reached: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure, for each way of driving a run that it was measured for."""

    subject: str
    what: str
    unit: str = ""
    runlane: float
    workflow: float | None = None
    """The plain workflow: a timer and an activity for each poll, once a second."""
    loop_1s: float | None = None
    """`create_and_poll` in the caller's process, looking once a second."""
    loop_5s: float | None = None
    """The same, every five seconds: what the SDKs do unless told otherwise."""
    upstream: float | None = None
    """The same request, sent to the upstream itself."""
    target: Target | None = None


def all_reached(rows: Iterable[Row]) -> bool:
    """Tell whether no target was missed."""
    return all(row.target is None or row.target.reached for row in rows)


def as_json(rows: Iterable[Row], facts: dict[str, Any]) -> dict[str, Any]:
    """Return the figures as `--json` writes them: `facts` of the machine, and a list of rows."""
    return {**facts, "rows": [asdict(row) for row in rows]}


def table(rows: Iterable[Row], title: str) -> Table:
    """Return the table as it is printed."""
    shown = Table(title=title, title_justify="left", box=box.SIMPLE)
    shown.add_column("figure")
    for name in ("Runlane", "plain\nworkflow", "loop\nof 1 s", "loop\nof 5 s", "up-\nstream"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("to reach", max_width=15)
    shown.add_column("reached", no_wrap=True)
    before = None
    for row in rows:
        if before is not None and row.subject != before:
            shown.add_section()
        before = row.subject
        values = (row.runlane, row.workflow, row.loop_1s, row.loop_5s, row.upstream)
        shown.add_row(
            f"{row.what}, {row.unit}" if row.unit else row.what,
            *(_number(value) for value in values),
            row.target.text if row.target else "",
            "" if row.target is None else "yes" if row.target.reached else "[bold red]NO",
        )
    return shown


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:,.1f}"
