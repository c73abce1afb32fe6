"""Files of results: one line for each item that has ended, in the shape of OpenAI's Batch API.

A file says by itself how far it has come. Whoever is killed while writing, or finds the disk full,
goes on behind the last whole line.
"""

import base64
import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ledger.batch_item import CANCELLED, CREATE_UNCERTAIN, EXPIRED, Item, ItemState
from runlane.errors import RunlaneError

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_HEAD = b'{"id":"batch_req_'
"""With which a line begins, also one that was cut off."""
_PIECE_BYTES = 1 << 20
_TAIL_BYTES = 1 << 16
_ID_CHARACTERS = 24
_ID_END = len(_HEAD) + _ID_CHARACTERS

ERASED = {"code": "erased", "message": "What it answered was erased."}
_BY_LEDGER = {
    EXPIRED: "The batch's deadline came first.",
    CANCELLED: "The batch was cancelled first.",
    CREATE_UNCERTAIN: "Nobody has read what came of its create.",
}
"""What is said of items that the ledger ended without a lane: it keeps a kind, and no text."""


class ResultsLost(RunlaneError):
    """Results can't be written here. They stand in the ledger; the same command goes on."""

    code = "results_not_written"


def line_of(item: Item) -> dict[str, Any]:
    """Return the line of an item that has ended: OpenAI's keys, the input's digest, and ours."""
    response = None if item.response is None else json.loads(item.response)
    error = None if item.error is None else json.loads(item.error)
    if response is None and error is None:
        error = _untold(item)
    answered = None
    if item.status_code is not None:
        body = response if response is not None else {"error": error}
        answered = {"status_code": item.status_code, "request_id": item.run_id, "body": body}
    ours = {
        "batch_id": item.batch_id,
        "line": item.index + 1,
        "seq": item.seq,
        "state": item.state.value,
        "run_id": item.run_id,
    }
    if item.messages is not None:
        said = json.loads(item.messages)
        has_them = isinstance(said, list)
        ours["messages"] = said if has_them else None
        if not has_them:
            ours["messages_error"] = said["error"]
    return {
        "id": _request_id(item.batch_id, item.index, item.generation),
        "custom_id": item.custom_id,
        "response": answered,
        "error": error,
        "input_digest": item.digest,
        "runlane": ours,
    }


def _untold(item: Item) -> dict[str, str]:
    kind = item.error_kind
    if kind in _BY_LEDGER and item.response_digest is None:
        return {"code": kind, "message": _BY_LEDGER[kind]}
    return ERASED


def encoded(item: Item) -> bytes:
    """Return the line as it stands in a file, with its end."""
    text = json.dumps(line_of(item), ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="backslashreplace") + b"\n"


def mark_of(batch_id: str, index: int, generation: int) -> int:
    """Return what an item's line adds to `ResultsFile.mark`."""
    return _mark(f'{{"id":"{_request_id(batch_id, index, generation)}'.encode())


class ResultsFile:
    """A file of one batch's results in the order of their ends, which grows at its end."""

    def __init__(self, path: Path, batch_id: str, *, failed_only: bool = False) -> None:
        """Open it, which makes it where it isn't there, and look how far it has come.

        Args:
            path: no other command may be writing to it.
            batch_id: whose results.
            failed_only: leave out what has completed.

        Raises:
            ResultsLost: it holds something else, is in use, or can't be read or written.
        """
        # A file that is written anew takes the place of what a link leads to, not of the link.
        self.path = Path(os.path.realpath(path)) if path.is_symlink() else path
        self._batch_id = batch_id
        self._failed_only = failed_only
        self.lines = 0
        """That are in it."""
        self.mark = 0
        """The sum of their ids as numbers: by it files that hold the same lines are told, in
        whatever order."""
        self.last_seq = 0
        """Of the last one."""
        if path.exists() and not path.is_file():
            text = f"{path} is no file. Name another place for the results."
            raise ResultsLost(text, param="--output")
        with self._explained(opening=True):
            # Without a buffer: what a full disk refuses must not be tried again at the end.
            self._file = path.open("a+b", buffering=0)
        try:
            self._hold()
            with self._explained():
                self._look()
        except BaseException:
            self._file.close()
            raise

    def write(self, items: Sequence[Item]) -> None:
        """Add those, in the order of their ends, that belong into it and aren't there yet.

        Raises:
            ResultsLost: there is no room, or the disk fails; what is whole of it stays.
        """
        self.put([item for item in items if (item.seq or 0) > self.last_seq])

    def put(self, items: Sequence[Item]) -> None:
        """Add those that belong into it, in any order; then `last_seq` says nothing.

        Raises:
            ResultsLost: see `write`.
        """
        new = [item for item in items if self._takes(item)]
        lines = [encoded(item) for item in new]
        left = memoryview(b"".join(lines))
        with self._explained():
            while left:
                left = left[self._file.write(left) :]
        if new:
            self.lines += len(new)
            self.mark += sum(map(_mark, lines))
            self.last_seq = new[-1].seq or 0

    def begin_anew(self) -> "ResultsFile":
        """Return an empty one beside it, which `take_place_of` puts in its place.

        Raises:
            ResultsLost: see `write`; or something else lies there.
        """
        beside = self.path.with_name(f"{self.path.name}.new")
        # What a command that was killed left there is this batch's; anything else is somebody's.
        anew = ResultsFile(beside, self._batch_id, failed_only=self._failed_only)
        with self._explained():
            anew._file.truncate(0)
        anew.lines = anew.mark = anew.last_seq = 0
        return anew

    def take_place_of(self, other: "ResultsFile") -> None:
        """Put this file where the other one is, whole, and go on with it there.

        Raises:
            ResultsLost: see `write`.
        """
        with self._explained():
            os.fsync(self._file.fileno())
            self.path.replace(other.path)
        other._file.close()
        self.path = other.path

    def close(self) -> None:
        """Put it onto the disk, and let go of it; an empty one is taken away.

        Raises:
            ResultsLost: the disk fails.
        """
        if self._file.closed:
            return
        try:
            with self._explained():
                os.fsync(self._file.fileno())
                if not self.lines and not os.fstat(self._file.fileno()).st_size:
                    self.path.unlink(missing_ok=True)
        finally:
            self._file.close()

    def discard(self) -> None:
        """Take it away, whatever is in it."""
        self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _takes(self, item: Item) -> bool:
        return not self._failed_only or item.state is not ItemState.COMPLETED

    def _hold(self) -> None:
        try:
            # Deferred: Windows hasn't got it.
            import fcntl  # noqa: PLC0415

            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            return
        except BlockingIOError:
            raise self._in_use() from None
        except OSError:
            # A file system without locks.
            return
        if not self._is_there():
            # Whoever held it has put another file into its place since it was opened.
            raise self._in_use()

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def _in_use(self) -> ResultsLost:
        text = f"Another command is writing results to {self.path}. Let it, or name another."
        return ResultsLost(text, param="--output")

    def _look(self) -> None:
        whole, self.lines, self.mark = _whole_lines(self._file)
        last = _last_line(self._file, whole)
        if last is None:
            self._file.seek(0)
            head = self._file.read(len(_HEAD))
            ours: object = self._batch_id if _HEAD.startswith(head) else None
        else:
            ours, self.last_seq = _told(last)
        if ours != self._batch_id:
            is_batch = isinstance(ours, str) and ours.startswith("batch_")
            what = f"results of {ours}, another batch" if is_batch else "something else"
            text = f"{self.path} holds {what}; nothing in it was changed."
            raise ResultsLost(f"{text} Name another file, or move it away.", param="--output")
        # What a kill or a full disk left of a line.
        self._file.truncate(whole)

    def _explained(self, *, opening: bool = False) -> "_Explained":
        return _Explained(self.path, opening=opening)


class _Explained:
    def __init__(self, path: Path, *, opening: bool) -> None:
        self._path = path
        self._opening = opening

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if not isinstance(error, OSError):
            return
        full = error.errno in _FULL
        why = "the disk is full" if full else (error.strerror or type(error).__name__)
        mend = "Make room, and" if full else "Mend that, and"
        # What is opened may be of a batch that has not begun.
        goes_on = "Nothing is lost." if self._opening else "The batch goes on and nothing is lost."
        text = (
            f"Can't write results to {self._path}: {why}. {goes_on} "
            f"{mend} give the same command again."
        )
        raise ResultsLost(text, param="--output") from None


def _told(line: bytes) -> tuple[object, int]:
    """Return whose result a line is, and its number; nobody's where it is none."""
    try:
        ours = json.loads(line)["runlane"]
        return ours["batch_id"], int(ours["seq"])
    except (ValueError, LookupError, TypeError):
        return None, 0


def _whole_lines(file: BinaryIO) -> tuple[int, int, int]:
    """Return where the last whole line ends, how many there are, and their mark."""
    whole = lines = mark = read = 0
    head = b""
    for piece in _pieces(file):
        *ends, rest = piece.split(b"\n")
        for text in ends:
            mark += _mark(head + text[:_ID_END])
            head = b""
        if ends:
            lines += len(ends)
            whole = read + len(piece) - len(rest)
        head = (head + rest[:_ID_END])[:_ID_END]
        read += len(piece)
    return whole, lines, mark


def _mark(line: bytes) -> int:
    return int.from_bytes(line[:_ID_END], "big")


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(_PIECE_BYTES):
        yield piece


def _last_line(file: BinaryIO, whole: int) -> bytes | None:
    if not whole:
        return None
    tail, start = b"", whole
    # The line's own end is the last byte; the one before the line is sought.
    while start > 0 and b"\n" not in tail[:-1]:
        step = min(_TAIL_BYTES, start)
        start -= step
        file.seek(start)
        tail = file.read(step) + tail
    return tail[:-1].rpartition(b"\n")[2]


def _request_id(batch_id: str, index: int, generation: int) -> str:
    told = f"{batch_id}\0{index}\0{generation}".encode()
    digest = base64.b32encode(hashlib.sha256(told).digest()).decode().lower()
    return f"batch_req_{digest[:_ID_CHARACTERS]}"
