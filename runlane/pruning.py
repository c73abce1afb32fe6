"""Payload files of runs that Temporal has forgotten: found, and deleted when somebody says so.

A file is kept as long as its run's workflow exists in any state, and a day longer than it was last
needed: who starts a run stores its payloads first, and touches those that are there already.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, unquote

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from runlane import temporal
from runlane.errors import InvalidRequest
from runlane.rpc import is_namespace_missing
from runlane.settings import Settings
from runlane.workers import namespace_data

OLDER_THAN = timedelta(days=1)

_OURS = "run_"
"""What our runs' ids, and so the directories of their payloads, begin with."""
_ASKED_AT_ONCE = 20
_TRASH = ".gone-"


@dataclass(frozen=True)
class Forgotten:
    """The payloads of a run that Temporal doesn't know any more."""

    run_id: str
    directory: Path
    files: int
    bytes: int


async def payload_directory(client: Client, settings: Settings) -> Path:
    """Return the directory of the payloads: the one that is set, or the embedded server's.

    Raises:
        InvalidRequest: they lie elsewhere, or nowhere.
    """
    if settings.payload_store is not None:
        text = (
            f"Payloads go to {settings.payload_store}. Let a lifecycle rule of the bucket delete "
            "what is older than your longest deadline and Temporal's retention together."
        )
        raise InvalidRequest(text, param="RUNLANE_PAYLOAD_STORE")
    data_dir = settings.data_dir
    if data_dir is None:
        named = (await namespace_data(client)).get(temporal.DATA_DIR_KEY)
        if not named:
            raise InvalidRequest("No directory holds payloads.", param="RUNLANE_DATA_DIR")
        data_dir = Path(named)
    return temporal.payload_directory(data_dir)


async def forgotten(
    client: Client,
    root: Path,
    *,
    older_than: timedelta = OLDER_THAN,
    limit: int | None = None,
) -> AsyncIterator[Forgotten]:
    """Yield what runs have left that the client's namespace doesn't know any more.

    Args:
        client: of the Temporal that alone uses the directory for this namespace.
        root: from `payload_directory`.
        older_than: where a file was written or needed since, nothing is yielded.
        limit: so many directories are looked at.

    Raises:
        RPCError: Temporal can't be asked.
    """
    old = await asyncio.to_thread(
        lambda: list(_old(root / quote(client.namespace, safe=""), older_than))[:limit]
    )
    for begin in range(0, len(old), _ASKED_AT_ONCE):
        some = old[begin : begin + _ASKED_AT_ONCE]
        unknown = await asyncio.gather(*(_is_unknown(client, each.run_id) for each in some))
        for each, gone in zip(some, unknown, strict=True):
            if gone:
                yield each


async def of_run(client: Client, root: Path, run_id: str) -> Forgotten | None:
    """Return what a run has stored; None where there is nothing.

    Args:
        client: of the Temporal that alone uses the directory for this namespace.
        root: from `payload_directory`.
        run_id: ours.
    """
    directory = root / quote(client.namespace, safe="") / quote(run_id, safe="")

    def look() -> Forgotten | None:
        if not run_id.startswith(_OURS) or directory.is_symlink() or not directory.is_dir():
            return None
        stats = [file.stat() for file in directory.iterdir()]
        return Forgotten(run_id, directory, len(stats), sum(stat.st_size for stat in stats))

    return await asyncio.to_thread(look)


async def delete(
    client: Client, left: Forgotten, *, older_than: timedelta = OLDER_THAN
) -> tuple[int, int]:
    """Delete what a run has left; return how many files it was, and how many bytes.

    Temporal is asked again right before. A file that somebody needs meanwhile stays.

    Raises:
        RPCError: Temporal can't be asked, and nothing was deleted.
        OSError: a file can't be deleted.
    """
    if not await _is_unknown(client, left.run_id):
        return 0, 0
    return await asyncio.to_thread(_delete, left.directory, older_than)


async def _is_unknown(client: Client, run_id: str) -> bool:
    try:
        await client.get_workflow_handle(run_id).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND and not is_namespace_missing(error):
            return True
        raise
    return False


def _old(directory: Path, older_than: timedelta) -> Iterator[Forgotten]:
    if not directory.is_dir():
        return
    for each in sorted(directory.iterdir()):
        run_id = unquote(each.name)
        # A link leads out of the payload store, to files that are no payloads.
        if not run_id.startswith(_OURS) or each.is_symlink() or not each.is_dir():
            continue
        stats = [file.stat() for file in each.iterdir()]
        if all(_is_old(stat.st_mtime, older_than) for stat in stats):
            yield Forgotten(run_id, each, len(stats), sum(stat.st_size for stat in stats))


def _is_old(changed: float, older_than: timedelta) -> bool:
    return time.time() - changed > older_than.total_seconds()


def _delete(directory: Path, older_than: timedelta) -> tuple[int, int]:
    files = size = 0
    for file in directory.iterdir():
        # Out of the way first: who needs it now either touches it before, and it is put back, or
        # doesn't find it, and writes it anew.
        gone = file.with_name(f"{_TRASH}{file.name.removeprefix(_TRASH)}")
        file.rename(gone)
        stat = gone.stat()
        if not _is_old(stat.st_mtime, older_than):
            gone.rename(file)
            continue
        gone.unlink()
        files, size = files + 1, size + stat.st_size
    with suppress(OSError):
        directory.rmdir()
    return files, size
