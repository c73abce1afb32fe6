"""A batch's items from a file that was uploaded: all of it is checked before any is added.

The file stays in the ledger, where it is sealed; a chunk of it at a time is in memory here.
"""

import asyncio
import io
import json
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from activities.intake import FILE
from ledger import Ledger, LedgerRefused
from ledger.batch_item import NewItem
from ledger.batch_notes import Note
from ledger.batch_record import BatchRecord, BatchStatus
from ledger.files import CHUNK_BYTES
from runlane.batches.checked_line import Added, CheckedLine, Problem
from runlane.batches.checking import Checking
from runlane.batches.lines import InputFile, Most
from runlane.batches.uploading import new_item
from runlane.tools.added import added

MAX_TOLD = 100
"""Lines that can't be used, of which a batch tells; of the others it tells how many."""
MAX_LINES = 2_000_000
"""Of a stored file, blank ones included."""
MAX_UNPACKED = 8_000_000_000
"""Bytes of its content. A few megabytes of gzip may hold more than a worker reads in a day."""

_T = TypeVar("_T")


class StoredIntake:
    """The intake of one worker."""

    def __init__(self, ledger: Ledger) -> None:
        """Read and write through this ledger."""
        self._ledger = ledger

    async def take(self, batch: BatchRecord) -> None:
        """Do as `activities.intake.Intake.take` says.

        Raises:
            LedgerError: the ledger doesn't answer, or can't be used.
        """
        if not await self._is_awaited(batch.id):
            return
        file_id = str(batch.options[FILE])
        found = await self._ledger.files.find(file_id, datetime.now(UTC))
        if found is None:
            text = f"{file_id} was deleted, or has expired, before it was read."
            await self._fail(batch, [_error(text, "file_not_found")])
            return
        # Checking is a matter of the processor: the loop has heartbeats to send.
        reading = _Reading(self._ledger, file_id, await self._added(batch))
        try:
            errors = await asyncio.to_thread(reading.check)
            if errors:
                await self._fail(batch, errors)
                return
            await self._ledger.batch_notes.pass_check(batch.id, reading.usable)
            begin = await self._ledger.batch_items.next_index(batch.id)
            await asyncio.to_thread(reading.add, batch.id, begin)
        except LedgerRefused:
            # A batch that was cancelled takes no more items.
            if await self._is_awaited(batch.id):
                raise
        finally:
            reading.stop()

    async def _added(self, batch: BatchRecord) -> Added | None:
        tools = await self._ledger.batch_notes.find(batch.id, Note.TOOLS)
        return None if tools is None else partial(added, definitions=json.loads(tools))

    async def _is_awaited(self, batch_id: str) -> bool:
        found = await self._ledger.batches.find(batch_id)
        return found is not None and found.status is BatchStatus.VALIDATING

    async def _fail(self, batch: BatchRecord, errors: list[dict[str, Any]]) -> None:
        at = datetime.now(UTC)
        await self._ledger.batch_notes.fail_check(batch.id, json.dumps(errors), at)


class _Reading:
    """The passes over one file, in a thread; the ledger is asked in the loop."""

    def __init__(self, ledger: Ledger, file_id: str, added: Added | None) -> None:
        self.usable = 0
        self._added = added
        self._ledger = ledger
        self._file_id = file_id
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let a thread end whose result nobody waits for any more."""
        self._stopped.set()

    def check(self) -> list[dict[str, Any]]:
        """Read all lines; return what is wrong with them, as a batch tells it."""
        errors: list[dict[str, Any]] = []
        checking = Checking(self._source(), self._added)
        for found in checking.lines():
            if self._stopped.is_set():
                raise _Stopped
            if isinstance(found, Problem) and len(errors) < MAX_TOLD:
                errors.append(_error(found.reason, found.code, line=found.line))
        totals = checking.totals
        self.usable = totals.usable
        if totals.unusable > len(errors):
            text = f"{totals.unusable - len(errors):,} more lines can't be used."
            errors.append(_error(text, "more_invalid_lines"))
        if not totals.usable and not totals.unusable:
            errors.append(_error("The file holds no line.", "empty_file"))
        return errors

    def add(self, batch_id: str, begin: int) -> None:
        """Add the items from this index on."""
        checking = Checking(self._source(), self._added)
        page: list[NewItem] = []
        for found in checking.lines():
            if isinstance(found, CheckedLine) and found.number > begin:
                page.append(new_item(found))
            if checking.at_page_end:
                self._add(batch_id, page)
        self._add(batch_id, page)

    def _add(self, batch_id: str, page: list[NewItem]) -> None:
        if page:
            self._ask(lambda: self._ledger.batch_items.add(batch_id, page))
            page.clear()

    def _source(self) -> InputFile:
        raw = _Chunks(lambda number: self._ask(lambda: self._chunk(number)))
        file = cast("Any", io.BufferedReader(raw, CHUNK_BYTES))
        most = Most(lines=MAX_LINES, bytes=MAX_UNPACKED)
        return InputFile(Path(self._file_id), file, most=most)

    async def _chunk(self, number: int) -> bytes | None:
        return await self._ledger.files.chunk(self._file_id, number)

    def _ask(self, call: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        if self._stopped.is_set():
            raise _Stopped
        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()


class _Stopped(Exception):
    """Nobody waits for this any more."""


class _Chunks(io.RawIOBase):
    """A stored file as Python's readers want it; a chunk at a time is held."""

    def __init__(self, chunk: Callable[[int], bytes | None]) -> None:
        self._chunk = chunk
        self._at = 0
        self._number = -1
        self._held: bytes | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation
        self._at = offset if whence == io.SEEK_SET else self._at + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        number, start = divmod(self._at, CHUNK_BYTES)
        if number != self._number:
            self._number, self._held = number, self._chunk(number)
        given = (self._held or b"")[start : start + len(buffer)]
        buffer[: len(given)] = given
        self._at += len(given)
        return len(given)


def _error(message: str, code: str, *, line: int | None = None) -> dict[str, Any]:
    return {"code": code, "line": line, "message": message, "param": None}
