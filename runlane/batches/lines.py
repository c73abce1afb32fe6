"""The lines of an input file, one at a time, however long the file or a line of it is."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAX_LINE_BYTES = 2_000_000
"""Bytes of a line without its end. A request in it may have fewer: `checking` says how many."""

_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_PIECE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Line:
    """A line that holds something; blank ones are passed over, but counted."""

    number: int
    """From 1, as editors count."""
    raw: bytes | None
    """Without the line's end; None where `problem` says why it couldn't be read."""
    problem: str | None = None

    def digest(self) -> str:
        """Return the name of its bytes, without the line's end: `sha256:` and 64 digits."""
        return "sha256:" + hashlib.sha256(self.raw or b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Most:
    """How much a file may hold; gzip packs gigabytes into one of megabytes."""

    lines: int
    """Blank ones included."""
    bytes: int
    """Unpacked."""


class InputFile:
    """A `.jsonl` or `.jsonl.gz`, told apart by their first bytes.

    What is read more than once is read from the file that was opened first, though another one may
    have taken its name since.
    """

    def __init__(
        self, path: Path, file: BinaryIO | None = None, *, most: Most | None = None
    ) -> None:
        """Open it.

        Args:
            path: where it lies, or what it is called.
            file: its bytes, where they lie elsewhere.
            most: where it holds more, its last line is a problem that says so.

        Raises:
            OSError: it can't be opened.
        """
        self.path = path
        self._file = path.open("rb") if file is None else file
        self._digest = hashlib.sha256()
        self._passed = 0
        self._most = most
        self._unpacked = 0

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return os.fstat(self._file.fileno()).st_size

    @property
    def passed(self) -> int:
        """Bytes of these that were read by now."""
        return self._passed

    def digest(self) -> str:
        """Return the digest of what `lines` has read, which is the same packed or not."""
        return "sha256:" + self._digest.hexdigest()

    def lines(self) -> Iterator[Line]:
        """Read from the beginning. Neither a damaged file nor a line without end raises anything.

        Raises:
            OSError: the disk can't be read.
        """
        self._file.seek(0)
        self._digest = hashlib.sha256()
        self._unpacked = 0
        packed = self._file.read(len(_GZIP)) == _GZIP
        self._file.seek(0)
        number = 0
        try:
            source = gzip.GzipFile(fileobj=self._file) if packed else self._file
            for number, line in enumerate(self._raw(source), start=1):
                if self._most is not None and number > self._most.lines:
                    yield self._too_much(number, self._most)
                    return
                if line is None:
                    text = f"The line has over {MAX_LINE_BYTES:,} bytes, and may have that many."
                    yield Line(number, None, text)
                elif line.strip():
                    yield Line(number, line)
        except (gzip.BadGzipFile, zlib.error, EOFError):
            yield Line(number + 1, None, "The gzip data is damaged or cut off here.")
        except _TooMuch as error:
            yield self._too_much(number + 1, error.most)

    def raw_digest(self) -> str:
        """Return the digest of its bytes as they lie on the disk: packed or not, it differs.

        Raises:
            OSError: the disk can't be read.
        """
        found = hashlib.sha256()
        for piece in self.pieces():
            found.update(piece)
        return "sha256:" + found.hexdigest()

    def pieces(self) -> Iterator[bytes]:
        """Read its bytes as they lie on the disk, from the beginning.

        Raises:
            OSError: the disk can't be read.
        """
        self._file.seek(0)
        while piece := self._file.read(_PIECE_BYTES):
            yield piece

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> "InputFile":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _raw(self, source: BinaryIO | gzip.GzipFile) -> Iterator[bytes | None]:
        """Yield lines without their ends, and None for one that is too long to be held."""
        first = True
        while piece := source.readline(MAX_LINE_BYTES + len(_BOM) + len(b"\r\n")):
            self._note(piece)
            line = piece
            while piece and not piece.endswith(b"\n"):
                # It ends here, or is too long: then what is left of it is only passed over.
                piece = source.readline(_PIECE_BYTES)
                self._note(piece)
            if first:
                first = False
                line = line.removeprefix(_BOM)
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            yield line if len(line) <= MAX_LINE_BYTES else None

    def _note(self, piece: bytes) -> None:
        self._digest.update(piece)
        self._passed = self._file.tell()
        self._unpacked += len(piece)
        if self._most is not None and self._unpacked > self._most.bytes:
            raise _TooMuch(self._most)

    @staticmethod
    def _too_much(number: int, most: Most) -> Line:
        text = (
            f"The file has over {most.lines:,} lines or {most.bytes:,} bytes, unpacked, and may "
            "have that many."
        )
        return Line(number, None, text)


class _TooMuch(Exception):
    def __init__(self, most: Most) -> None:
        super().__init__()
        self.most = most
