"""What a worker does to the ledger now and then: it signs checkpoints, and removes what is old.

Several workers may do so at once. A checkpoint is made once an hour, by whoever is first.
"""

import asyncio
import json
import logging
import os
import random
import tempfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ledger import Ledger, LedgerError
from ledger.retention import Retention
from ledger.signing import KeyUnusable, PublicKey, Signer
from runlane.errors import LedgerUnusable
from runlane.settings import Settings

EVERY = timedelta(hours=1)
"""Between two checkpoints; a chain whose end has not moved is in none."""
LOOK_SECONDS = 300.0
"""Between two looks whether one is due."""
NAME = "checkpoint-{:08}.json"

_logger = logging.getLogger("runlane.upkeep")


def find_signer(settings: Settings, data_dir: Path | None) -> Signer | None:
    """Return the key that signs checkpoints and exports; None where no place holds one.

    Args:
        settings: a file that they name goes first.
        data_dir: its `audit.key` is made where it isn't there.

    Raises:
        LedgerUnusable: it can't be read or made.
    """
    try:
        if settings.audit_key is not None:
            return Signer.from_file(settings.audit_key)
        return None if data_dir is None else Signer.in_directory(data_dir)
    except KeyUnusable as error:
        raise LedgerUnusable(str(error), param="RUNLANE_AUDIT_KEY") from None


class Upkeep:
    """What one worker does.

    Args:
        ledger: the worker's.
        signer: signs checkpoints; None makes none.
        directory: the second place of checkpoints.
        retention: what is removed.
        every: between two checkpoints.
        look_seconds: between two looks.
    """

    def __init__(
        self,
        ledger: Ledger,
        signer: Signer | None,
        *,
        directory: Path | None = None,
        retention: Retention | None = None,
        every: timedelta = EVERY,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._ledger = ledger
        self._signer = signer
        self._directory = directory
        self._retention = retention
        self._every = every
        self._look_seconds = look_seconds
        self._pruned_at: datetime | None = None

    async def run(self) -> None:
        """Look again and again until cancelled; what fails is tried again at the next look."""
        while True:
            await asyncio.sleep(self._look_seconds * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
            try:
                await self.look()
            except (LedgerError, OSError) as error:
                _logger.warning("The ledger's upkeep has to wait: %s", error)
            except Exception:
                # The worker serves runs all the same.
                _logger.exception("The ledger's upkeep failed")

    async def look(self) -> None:
        """Make a checkpoint if one is due, copy what the second place lacks, remove what is old.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
            OSError: the second place can't be written.
        """
        if self._signer is not None:
            await self._checkpoint(self._signer)
        if self._directory is not None:
            await self._copy(self._directory)
        now = datetime.now(UTC)
        if self._retention is not None and (
            self._pruned_at is None or now - self._pruned_at >= self._every
        ):
            pruned = await self._ledger.prune(self._retention)
            self._pruned_at = now
            if any(vars(pruned).values()):
                _logger.info("Removed from the ledger what is old enough: %s", pruned)

    async def _checkpoint(self, signer: Signer) -> None:
        latest = await self._ledger.checkpoints.latest()
        if latest is not None:
            body = json.loads(latest)["body"]
            if body["signed_by"] != signer.public.id:
                _logger.warning(
                    "No checkpoint is made: the last one is signed by key %s, and this worker has "
                    "%s. Give all workers the same RUNLANE_AUDIT_KEY.",
                    body["signed_by"],
                    signer.public.id,
                )
                return
            if datetime.now(UTC) - datetime.fromisoformat(body["at"]) < self._every:
                return
        for line in await self._ledger.checkpoints.make(signer):
            number = json.loads(line)["body"]["number"]
            _logger.info("Made checkpoint %s of the audit trail", number)

    async def _copy(self, directory: Path) -> None:
        kept = await asyncio.to_thread(_kept, directory)
        newest = max(kept, default=0)
        lines = await self._ledger.checkpoints.since(max(newest - 1, 0))
        if newest and (not lines or lines[0] != kept[newest].read_text(encoding="utf-8").strip()):
            _logger.error(
                "Checkpoint %d in %s is not the ledger's: the ledger was set back to a copy, or "
                "written anew. Verify an export against that directory.",
                newest,
                directory,
            )
            return
        for line in lines:
            number = json.loads(line)["body"]["number"]
            if number > newest:
                await asyncio.to_thread(_write_once, directory / NAME.format(number), line + "\n")


def kept_lines(directory: Path) -> list[str]:
    """Return the checkpoints that a second place holds, oldest first.

    Raises:
        OSError: it can't be read.
    """
    return [file.read_text(encoding="utf-8") for _, file in sorted(_kept(directory).items())]


def public_key(path: Path) -> PublicKey:
    """Read a public key.

    Raises:
        KeyUnusable: it is none.
        OSError: it can't be read.
    """
    return PublicKey.from_pem(path.read_text(encoding="utf-8", errors="replace"), str(path))


def _kept(directory: Path) -> dict[int, Path]:
    start, end = NAME.split("{:08}")
    found = {}
    for file in directory.glob(f"{start}*{end}"):
        number = file.name.removeprefix(start).removesuffix(end)
        if number.isascii() and number.isdecimal():
            found[int(number)] = file
    return found


def _write_once(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".checkpoint-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # A link, not a rename: it fails where another worker was first.
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
