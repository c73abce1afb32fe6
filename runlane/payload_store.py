"""Where payloads lie that are too big for Temporal's history: a directory, or S3.

Temporal refuses a message over 2 MB, and one that slips into a state makes every later workflow
task fail. So temporalio's external storage replaces a big payload by a reference, and these
drivers keep the bytes. Nothing is deleted here: a reference in a history outlives the run, and what
Temporal has forgotten is deleted by `runlane prune`.
"""

import asyncio
import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from temporalio.api.common.v1 import Payload
from temporalio.contrib.aws.s3driver import S3StorageDriver, S3StorageDriverClient
from temporalio.converter import (
    ExternalStorage,
    StorageDriver,
    StorageDriverActivityInfo,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverSelectContext,
    StorageDriverStoreContext,
    StorageDriverWorkflowInfo,
)

from runlane.errors import RunlaneError
from runlane.settings import S3Location, SettingsError

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

PAYLOAD_SIZE_THRESHOLD = 32 * 1024
"""Bytes from which a payload is stored outside the history."""

# Both names stand in histories: renaming one strands the payloads written under it.
FILES_DRIVER = "runlane.files"
S3_DRIVER = "runlane.s3"

# File systems allow 255 bytes in a name; a workflow id may have 1,000 characters.
_LONGEST_NAME = 200
_KEY = re.compile(r"[A-Za-z0-9_%~-][A-Za-z0-9_.%~-]*(/[A-Za-z0-9_%~-][A-Za-z0-9_.%~-]*)*")


class PayloadStoreError(RunlaneError):
    """A big payload can't be stored or read back; the message names it and the remedy."""

    type = "payload_store_error"
    code = "payload_store"


class FilePayloadStore(StorageDriver):
    """Keeps payloads as files: `<root>/<namespace>/<workflow id>/<sha256>`.

    Storing the same payload twice for the same workflow is one file. A file appears under its
    name only when it is whole and on the disk, so a crash leaves no half payload.
    """

    def __init__(self, root: Path) -> None:
        """Keep files under `root`, which is made when the first payload arrives."""
        self._root = root.absolute()

    def name(self) -> str:
        """The name that references in histories carry."""
        return FILES_DRIVER

    async def store(
        self, context: StorageDriverStoreContext, payloads: Sequence[Payload]
    ) -> list[StorageDriverClaim]:
        """Write each payload, unless it is there already.

        Raises:
            PayloadStoreError: one can't be written.
        """
        shard = _shard(context.target)
        try:
            return [
                # Two serializations of one map may differ, and each would be another file.
                await asyncio.to_thread(
                    self._write, shard, payload.SerializeToString(deterministic=True)
                )
                for payload in payloads
            ]
        except OSError as error:
            msg = (
                f"Big payloads can't be stored in {self._root}: {error.strerror}. Make it a "
                "directory with space that the user this process runs as may write to."
            )
            raise PayloadStoreError(msg) from error

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """Read payloads back, each checked against its digest.

        Raises:
            PayloadStoreError: a file is missing, unreadable or changed.
        """
        return [await asyncio.to_thread(self._read, claim) for claim in claims]

    def _write(self, shard: str, data: bytes) -> StorageDriverClaim:
        digest = hashlib.sha256(data).hexdigest()
        key = f"{shard}/{digest}"
        path = self._root / key
        claim = StorageDriverClaim({"key": key, "sha256": digest})
        with suppress(FileNotFoundError, PermissionError):
            if path.stat().st_size == len(data):
                # From here on it is needed: what is old and nobody's is deleted.
                os.utime(path)
                return claim
        descriptor, temporary = _temporary_file(path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                # Without it a power cut may keep the name and lose the content: the history
                # would hold a reference to an empty file.
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)
        return claim

    def _read(self, claim: StorageDriverClaim) -> Payload:
        key = claim.claim_data.get("key", "")
        # The key comes out of a history, which whoever can start a workflow can write.
        if not _KEY.fullmatch(key):
            msg = f"The history refers to a payload by an impossible name: {key!r}."
            raise PayloadStoreError(msg)
        path = self._root / key
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            msg = (
                f"Payload file {path} is missing. Set RUNLANE_DATA_DIR to the data directory of "
                "the worker or client that wrote it (on another machine: share the directory or "
                "use RUNLANE_PAYLOAD_STORE), or restore the file from a backup."
            )
            raise PayloadStoreError(msg) from None
        except OSError as error:
            msg = (
                f"Payload file {path} can't be read: {error.strerror}. Make it readable for the "
                "user this process runs as."
            )
            raise PayloadStoreError(msg) from error
        if hashlib.sha256(data).hexdigest() != claim.claim_data.get("sha256"):
            msg = f"Payload file {path} was changed or damaged; restore it from a backup."
            raise PayloadStoreError(msg)
        return Payload.FromString(data)


class AbsentPayloadStore(StorageDriver):
    """Stands for a store this process was not given: it says what to set, and stores nothing."""

    def __init__(self, name: str, remedy: str) -> None:
        """Answer to references that carry `name`."""
        self._name = name
        self._remedy = remedy

    def name(self) -> str:
        """The name of the store that is not there."""
        return self._name

    async def store(
        self, context: StorageDriverStoreContext, payloads: Sequence[Payload]
    ) -> list[StorageDriverClaim]:
        """Never called: `external_storage` selects only stores that are there."""
        raise PayloadStoreError(self._remedy)

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """Refuse, with the remedy.

        Raises:
            PayloadStoreError: always.
        """
        raise PayloadStoreError(self._remedy)


def external_storage(files: Path | None, s3: S3Location | None) -> ExternalStorage:
    """The stores of one process: S3 takes new payloads when given, else the directory does.

    What either store holds stays readable while both are given, so one can move from files to
    S3 without stranding a run. With neither, big payloads are sent inline and Temporal's own
    limit of 2 MB holds.

    Raises:
        SettingsError: S3 is asked for and the extra `runlane[s3]` is not installed.
    """
    file_store: StorageDriver = (
        FilePayloadStore(files)
        if files
        else AbsentPayloadStore(
            FILES_DRIVER,
            "A big payload of this run lies in a data directory this process does not know. Set "
            "RUNLANE_DATA_DIR to the data directory of the worker.",
        )
    )
    s3_store: StorageDriver = (
        S3StorageDriver(_AiobotocoreClient(s3.prefix), s3.bucket, driver_name=S3_DRIVER)
        if s3
        else AbsentPayloadStore(
            S3_DRIVER,
            "A big payload of this run lies in S3. Set RUNLANE_PAYLOAD_STORE as for the worker.",
        )
    )
    target = s3_store if s3 else file_store if files else None

    def select(_context: StorageDriverSelectContext, _payload: Payload) -> StorageDriver | None:
        return target

    return ExternalStorage(
        drivers=[file_store, s3_store],
        driver_selector=select,
        payload_size_threshold=PAYLOAD_SIZE_THRESHOLD,
    )


class _AiobotocoreClient(S3StorageDriverClient):
    """S3 by aiobotocore; region, credentials and endpoint come from AWS's own variables.

    temporalio's adapter wants a client that somebody opens and closes around the whole process;
    a Temporal client has no such end. So each operation opens its own.
    """

    def __init__(self, prefix: str) -> None:
        try:
            # Deferred: the extra is installed only where S3 is used.
            from aiobotocore.session import get_session  # noqa: PLC0415
        except ImportError:
            problem = "S3 needs the extra `s3`; run: pip install 'runlane[s3]'"
            raise SettingsError("RUNLANE_PAYLOAD_STORE", problem) from None
        self._session = get_session()
        self._prefix = f"{prefix}/" if prefix else ""

    def _open(self) -> "AbstractAsyncContextManager[S3Client]":
        return self._session.create_client("s3")

    async def put_object(self, *, bucket: str, key: str, data: bytes) -> None:
        async with self._open() as client:
            await client.put_object(Bucket=bucket, Key=self._prefix + key, Body=data)

    async def object_exists(self, *, bucket: str, key: str) -> bool:
        from botocore.exceptions import ClientError  # noqa: PLC0415 # comes with the extra

        async with self._open() as client:
            try:
                await client.head_object(Bucket=bucket, Key=self._prefix + key)
            except ClientError as error:
                if error.response["Error"]["Code"] == "404":
                    return False
                raise
            return True

    async def get_object(self, *, bucket: str, key: str) -> bytes:
        async with self._open() as client:
            answer = await client.get_object(Bucket=bucket, Key=self._prefix + key)
            return await answer["Body"].read()


def _shard(target: StorageDriverActivityInfo | StorageDriverWorkflowInfo | None) -> str:
    if target is None:
        return "_"
    owner = target.id or "_"
    if isinstance(target, StorageDriverActivityInfo):
        owner = f"activity-{owner}"
    return f"{_file_name(target.namespace)}/{_file_name(owner)}"


def _file_name(text: str) -> str:
    name = quote(text, safe="")
    # `quote` leaves dots alone, and `..` is a way out of the root.
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    if len(name) > _LONGEST_NAME:
        name = f"~{hashlib.sha256(text.encode()).hexdigest()}"
    return name or "_"


def _temporary_file(directory: Path) -> tuple[int, str]:
    while True:
        _make_directories(directory)
        # Deleted empty at this very moment, it is made again.
        with suppress(FileNotFoundError):
            return tempfile.mkstemp(dir=directory, prefix=".tmp-")


def _make_directories(path: Path) -> None:
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        # Payloads hold what people said to an assistant; only the owner reads them.
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        _sync_directory(directory.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
