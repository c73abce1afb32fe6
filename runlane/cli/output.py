"""How things look on a terminal and in a pipe. Nothing here decides anything.

Text that came from outside (arguments, names, messages) passes `safe`: a tool's arguments may
hold control characters that repaint the terminal or forge lines.
"""

import json
import re
import shlex
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from threading import Timer
from typing import TYPE_CHECKING, Any

from runlane.cli import STARTED
from runlane.moments import format_moment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.status import Status

    from workflows.contract import PendingCall, Receipt, RunView

ARGUMENTS_SHOWN = 72
"""Characters of a call's arguments in human output; `--json` has them all."""

_STYLES = {
    "completed": "green",
    "requires_action": "yellow",
    "failed": "red",
    "expired": "red",
    "incomplete": "red",
    "cancelled": "magenta",
    "cancelling": "magenta",
    "accepted": "green",
    "duplicate": "green",
    "early": "yellow",
    "conflict": "red",
    "late": "red",
    "unknown": "red",
    "too_large": "red",
    "held": "red",
}
_STANDING = {
    "waiting": "a person decides",
    "approved": "approved",
    "running": "approved, runs",
    "uncertain": "may have run: a person says",
}
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./:@%+=,-]+")
_NAME_WIDTH = 12
_SILENCE_SECONDS = 1.2
FOLDED_WIDTH = 100
"""Columns that a sentence below a table may take."""
_COMMAND = re.compile(r"\b(runlane|temporal)( [\w./:=-]+)+")
_NO_BREAK = "\N{NO-BREAK SPACE}"

_said_at = STARTED
"""When something was printed last, or the process began."""
_moving: "Console | None" = None
"""The console whose last line moves at present."""


@cache
def stdout() -> "Console":
    """Standard output: what was asked for."""
    from rich.console import Console  # noqa: PLC0415 - a tenth of a second

    return Console(highlight=False, markup=False, emoji=False)


@cache
def stderr() -> "Console":
    """Standard error: words about it."""
    from rich.console import Console  # noqa: PLC0415

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def say(text: str, *, style: str | None = None, to: "Console | None" = None) -> None:
    """Print a line as it is: neither wrapped, nor taken for markup."""
    global _said_at  # noqa: PLW0603  # a process has one reader
    _said_at = time.monotonic()
    (to or stdout()).print(text, style=style, soft_wrap=True)


def say_parts(*parts: tuple[str, str | None], to: "Console | None" = None) -> None:
    """Print a line made of pieces, each with its style."""
    from rich.text import Text  # noqa: PLC0415

    line = Text()
    for text, style in parts:
        line.append(text, style=style)
    (to or stdout()).print(line, soft_wrap=True)


def note(text: str) -> None:
    """Print a word to standard error, where it never mixes with what was asked for."""
    say(text, style="dim", to=_moving if _moving and stderr().is_terminal else stderr())


@contextmanager
def moving(console: "Console", text: str) -> "Iterator[Status | None]":
    """Keep a line at the foot of a terminal in motion; elsewhere, do nothing.

    Notes written meanwhile to the same terminal stand above it: two consoles that don't know of
    each other would write into one line.
    """
    if not console.is_terminal:
        yield None
        return
    with console.status(text, spinner="dots") as status, above(console):
        yield status


@contextmanager
def above(console: "Console") -> "Iterator[None]":
    """Let notes stand above what moves at the foot of this console."""
    global _moving  # noqa: PLW0603  # a terminal has one foot
    _moving = console
    try:
        yield
    finally:
        _moving = None


@contextmanager
def waiting(text: str) -> "Iterator[None]":
    """Say what is waited for: at once on a terminal, elsewhere if it takes longer than a moment."""
    with moving(stderr(), text) as status:
        if status is not None:
            yield
            return
        silent = time.monotonic() - _said_at
        timer = Timer(max(_SILENCE_SECONDS - silent, 0.1), note, (text,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def document(value: Mapping[str, Any]) -> None:
    """Print the one JSON document of `--json`."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def safe(text: str) -> str:
    """Return `text` on one line, with whatever a terminal might obey made visible."""
    return "".join(char if char.isprintable() else _visible(char) for char in text)


def shortened(text: str, limit: int = ARGUMENTS_SHOWN) -> str:
    """Return `text` for people: one line, safe, and not longer than `limit`."""
    text = safe(" ".join(text.split()))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def word(text: str) -> str:
    """Return `text` as one word of a shell's command line."""
    return text if _PLAIN_WORD.fullmatch(text) else safe(shlex.quote(text))


def style_of(status: str) -> str | None:
    """Return the colour of a status or a receipt."""
    return _STYLES.get(status)


def moment(seconds: float | None) -> str:
    """Return a time in the machine's own zone, with its offset."""
    return "-" if seconds is None else format_moment(seconds)


def counted(number: int, thing: str) -> str:
    """Return a number and what it counts, in the plural where it isn't one."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def size(count: int | None) -> str:
    """Return a number of bytes for people."""
    if count is None:
        return "-"
    return f"{count} B" if count < 1000 else f"{round(count / 1000):,} kB"


def pairs(metadata: Mapping[str, str] | None) -> str:
    """Return metadata as one would type it."""
    typed = (safe(shlex.quote(f"{key}={value}")) for key, value in (metadata or {}).items())
    return " ".join(typed) or "none"


def run_line(view: "RunView") -> None:
    """Print the one line that names a run and its status."""
    status = str(view.run.status)
    say_parts((safe(view.run.id), "bold"), ("  ", None), (safe(status), style_of(status)))


def call_text(call: "PendingCall") -> str:
    """Return a waiting call: its name, its arguments shortened, its id, and for whom it waits."""
    standing = f"  ({_STANDING[call.state]})" if call.handled_by == "people" else ""
    return f"{safe(call.name)} {shortened(call.arguments)}    {safe(call.tool_call_id)}{standing}"


def receipt_line(receipt: "Receipt", explanation: str) -> None:
    """Print what became of an answer."""
    tail = f"    {explanation}" if explanation else ""
    status = str(receipt.status)
    say_parts(
        (safe(receipt.tool_call_id), None), ("  ", None), (status, style_of(status)), (tail, "dim")
    )


def fields(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    for name, value in pairs:
        say_parts((f"  {name:<{_NAME_WIDTH}}", "dim"), (value, None))


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    styled: int | None = None,
    below: Sequence[str] = (),
) -> None:
    """Print aligned columns, never cut: a pipe is as wide as it likes.

    Args:
        head: the columns' names.
        rows: cells, safe already.
        styled: the column that holds a status.
        below: a sentence for each row, safe already, that stands under it; or an empty one.
    """
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    say("  ".join(f"{name:<{widths[i]}}" for i, name in enumerate(head)).rstrip(), style="dim")
    for number, row in enumerate(rows):
        last = max(i for i, cell in enumerate(row) if cell)
        parts: list[tuple[str, str | None]] = []
        for i, cell in enumerate(row[: last + 1]):
            padded = cell if i == last else f"{cell:<{widths[i]}}  "
            parts.append((padded, style_of(cell) if i == styled else None))
        say_parts(*parts)
        for line in folded(below[number], indent="  ") if below else ():
            say(line)


def folded(text: str, indent: str = "") -> list[str]:
    """Return a sentence as lines that fit any terminal; a command to copy stays in one piece."""
    whole = _COMMAND.sub(lambda found: found[0].replace(" ", _NO_BREAK), text)
    lines = textwrap.wrap(
        whole,
        FOLDED_WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_NO_BREAK, " ") for line in lines]


def _visible(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
