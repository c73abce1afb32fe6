"""What an input file asks for, checked line by line before anything is sent."""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field

from runlane.batches.checked_line import Added, CheckedLine, Problem, check
from runlane.batches.lines import InputFile
from runlane.errors import RunlaneError

PAGE_LINES = 500
PAGE_BYTES = 4_000_000
"""A page of lines ends with the one by which it has so many of either; the ledger gets pages."""

_CACHE_KILOBYTES = 8_000


@dataclass
class Totals:
    """What was found in a file."""

    usable: int = 0
    unusable: int = 0
    digest: str = ""
    """Of all the file's bytes, unpacked."""
    marks: list[str] = field(default_factory=list)
    """The digest as it was after each page of lines."""


class Checking:
    """The check of a whole file, in the same memory however long it is.

    Every line is read once. Which `custom_id` was where lies in a temporary file.
    """

    def __init__(self, source: InputFile, added: Added | None = None) -> None:
        """Check this file's lines, with what is added to each."""
        self._source = source
        self._added = added
        self.totals = Totals()
        self.at_page_end = False
        """Whether the line that was yielded last is the last one of its page."""

    def lines(self) -> Iterator[CheckedLine | Problem]:
        """Yield every line that holds something, as a request or as a problem.

        At the end `totals` are those of the file.

        Raises:
            RunlaneError: no temporary file can be written.
            OSError: the file can't be read.
        """
        self.totals = Totals()
        lines = size = 0
        with _Seen() as seen:
            for line in self._source.lines():
                found = check(line, self._added)
                if isinstance(found, CheckedLine):
                    first = seen.first(found.custom_id, found.number)
                    if first != found.number:
                        text = f"custom_id stands in line {first:,} already."
                        found = Problem(found.number, text, "duplicate_custom_id")
                if isinstance(found, CheckedLine):
                    self.totals.usable += 1
                else:
                    self.totals.unusable += 1
                lines, size = lines + 1, size + len(line.raw or b"")
                self.at_page_end = lines >= PAGE_LINES or size >= PAGE_BYTES
                if self.at_page_end:
                    self.totals.marks.append(self._source.digest())
                    lines = size = 0
                yield found
        self.totals.digest = self._source.digest()


class _Seen:
    """Each `custom_id` and the line it came in first."""

    def __init__(self) -> None:
        # Without a name: a file that SQLite deletes, and writes only when its cache is full.
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.execute(f"PRAGMA cache_size = -{_CACHE_KILOBYTES}")
        self._file.execute("CREATE TABLE seen (custom_id TEXT PRIMARY KEY, line INT) WITHOUT ROWID")
        self._file.execute("BEGIN")

    def first(self, custom_id: str, line: int) -> int:
        try:
            added = self._file.execute(
                "INSERT OR IGNORE INTO seen VALUES (?, ?)", (custom_id, line)
            )
            if added.rowcount:
                return line
            found = self._file.execute("SELECT line FROM seen WHERE custom_id = ?", (custom_id,))
            return int(found.fetchone()[0])
        except sqlite3.Error as error:
            text = f"The check needs room for a temporary file (see TMPDIR): {error}."
            raise RunlaneError(text, code="no_room") from None

    def __enter__(self) -> "_Seen":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._file.close()
