"""The figures: rows of tables, each with what was to be reached."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from rich import box
from rich.table import Table

WIDTH = 110
"""Columns that a table takes at most; what is longer is folded."""


@dataclass(frozen=True)
class Target:
    """What a figure was to reach, in words, and whether it did."""

    text: str
    reached: bool


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure, for each way of doing the same that it was measured for.

    A kind of rows says by `WAYS` what its ways are called; those of one kind share a table.
    """

    WAYS: ClassVar[Mapping[str, str]] = {}
    """Field → heading, in the order of the columns."""

    subject: str
    what: str
    unit: str = ""
    target: Target | None = None

    def values(self) -> list[float | None]:
        """Return what stands in the columns."""
        return [getattr(self, field) for field in self.WAYS]


@dataclass(frozen=True, kw_only=True)
class Row(Figure):
    """What a run costs."""

    WAYS: ClassVar = {
        "runlane": "Runlane",
        "workflow": "plain\nworkflow",
        "loop_1s": "loop\nof 1 s",
        "loop_5s": "loop\nof 5 s",
        "upstream": "up-\nstream",
    }

    runlane: float
    workflow: float | None = None
    """The plain workflow: a timer and an activity for each poll, once a second."""
    loop_1s: float | None = None
    """`create_and_poll` in the caller's process, looking once a second."""
    loop_5s: float | None = None
    """The same, every five seconds: what the SDKs do unless told otherwise."""
    upstream: float | None = None
    """The same request, sent to the upstream itself."""


@dataclass(frozen=True, kw_only=True)
class BatchRow(Figure):
    """What an item of many costs, one that needs nobody."""

    WAYS: ClassVar = {
        "runlane": "batch,\nSQLite",
        "postgres": "batch,\nPostgres",
        "run_each": "a Run\neach",
        "script": "plain\nscript",
        "dbos": "DBOS,\nSQLite",
        "dbos_postgres": "DBOS,\nPostgres",
    }

    runlane: float
    """A batch, by a ledger in SQLite."""
    postgres: float | None = None
    """The same, by a ledger in PostgreSQL."""
    run_each: float | None = None
    """A `Run` for each item, created by a client that keeps as many under way."""
    script: float | None = None
    """An asyncio script with the official SDK, which keeps nothing."""
    dbos: float | None = None
    """A durable workflow of DBOS for each item, by its SQLite."""
    dbos_postgres: float | None = None
    """The same, by a PostgreSQL."""


def all_reached(rows: Iterable[Figure]) -> bool:
    """Tell whether no target was missed."""
    return all(row.target is None or row.target.reached for row in rows)


def as_json(rows: Iterable[Figure], facts: dict[str, Any]) -> dict[str, Any]:
    """Return the figures as `--json` writes them: `facts` of the machine, and a list of rows."""
    return {**facts, "rows": [asdict(row) for row in rows]}


def tables(rows: Iterable[Figure], title: str) -> list[Table]:
    """Return the tables as they are printed, one for each kind of rows."""
    kinds: dict[type[Figure], list[Figure]] = {}
    for row in rows:
        kinds.setdefault(type(row), []).append(row)
    return [
        _table(kind, alike, None if number else title)
        for number, (kind, alike) in enumerate(kinds.items())
    ]


def _table(kind: type[Figure], rows: Sequence[Figure], title: str | None) -> Table:
    shown = Table(title=title, title_justify="left", box=box.SIMPLE)
    shown.add_column("figure")
    for heading in kind.WAYS.values():
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("to reach", max_width=15)
    shown.add_column("reached", no_wrap=True)
    before = None
    for row in rows:
        if before is not None and row.subject != before:
            shown.add_section()
        before = row.subject
        shown.add_row(
            f"{row.what}, {row.unit}" if row.unit else row.what,
            *(_number(value) for value in row.values()),
            row.target.text if row.target else "",
            "" if row.target is None else "yes" if row.target.reached else "[bold red]NO",
        )
    return shown


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value == int(value):
        return f"{int(value):,}"
    if abs(value) < 0.1:
        return f"{value:.3f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:,.1f}"
