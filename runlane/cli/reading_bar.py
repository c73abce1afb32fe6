"""How far a file is read, seen by a person."""

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from runlane.cli import output

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from runlane.batches.lines import InputFile

_FIRST_WORD_SECONDS = 1.5
_NEXT_WORD_SECONDS = 10.0
_REFRESH_SECONDS = 0.1


class ReadingBar:
    """How far a file is read: a bar on a terminal; elsewhere a line now and then."""

    def __init__(self, source: "InputFile", word: str) -> None:
        self._source = source
        self._word = word
        self._size = max(source.size, 1)
        self._next = time.monotonic() + _REFRESH_SECONDS
        self._next_word = time.monotonic() + _FIRST_WORD_SECONDS
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._notes: Any = nullcontext()

    def move(self, lines: int) -> None:
        """Say how many lines are done."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _REFRESH_SECONDS
        if self._progress is not None and self._task is not None:
            share = self._source.passed / self._size
            self._progress.update(
                self._task, completed=share, lines=output.counted(lines, "line"), refresh=True
            )
        elif now >= self._next_word:
            self._next_word = now + _NEXT_WORD_SECONDS
            share = round(100 * self._source.passed / self._size)
            output.note(f"{self._word}: {output.counted(lines, 'line')}, {share} %")

    def __enter__(self) -> "ReadingBar":
        console = output.stderr()
        if not console.is_terminal:
            return self
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn  # noqa: PLC0415

        self._progress = Progress(
            TextColumn(self._word),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[lines]}"),
            console=console,
            transient=True,
            auto_refresh=False,
            expand=True,
        )
        self._task = self._progress.add_task("", total=1.0, lines="0 lines")
        self._progress.start()
        self._notes = output.above(console)
        self._notes.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._notes.__exit__(*error)
        if self._progress is not None:
            self._progress.stop()
