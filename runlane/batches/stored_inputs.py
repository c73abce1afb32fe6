"""Inputs that stand in the ledger for as long as a schedule begins batches of them."""

import base64
import os
from datetime import UTC, datetime, timedelta

from ledger import Ledger
from ledger.files import STANDING, StoredFile
from runlane.batches.lines import InputFile

UNKEPT = timedelta(days=1)
"""For how long an input stays that nothing is known to read: begun batches still do."""

_ID_BYTES = 15


class StoredInputs:
    """The inputs of schedules, in one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        """Read and write through this ledger."""
        self._ledger = ledger

    async def store(self, source: InputFile, filename: str) -> StoredFile:
        """Store a file as it is, packed or not. It stays for a day, or once it is kept.

        Args:
            source: the file.
            filename: as people know it.

        Raises:
            OSError: the disk can't be read.
            LedgerError: the ledger doesn't answer, or can't be used. Nothing stays for long.
        """
        its_id = "file-" + base64.b32encode(os.urandom(_ID_BYTES)).decode().lower()
        now = datetime.now(UTC)
        writing = await self._ledger.files.begin(its_id, "", now)
        for piece in source.pieces():
            await writing.write(piece)
        return await writing.finish(filename=filename, purpose=STANDING, expires_at=now + UNKEPT)

    async def keep(self, file_id: str) -> bool:
        """Let an input stay until it is let go; return whether it is there.

        Raises:
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        return await self._ledger.files.set_expiry(file_id, None)

    async def let_go(self, file_id: str) -> None:
        """Let an input stay for a day more: a batch that has begun may not have read it yet.

        Raises:
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        await self._ledger.files.set_expiry(file_id, datetime.now(UTC) + UNKEPT)

    async def remove(self, file_id: str) -> None:
        """Remove an input that nothing reads.

        Raises:
            LedgerUnavailable: the ledger doesn't answer; it goes in a day.
        """
        await self._ledger.files.delete(file_id)

    async def expiry(self, file_id: str) -> datetime | None:
        """Return when an input goes that isn't kept; None: it stays.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        now = datetime.now(UTC)
        found = await self._ledger.files.find(file_id, now)
        return now if found is None else found.expires_at
