import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    StorageDriverActivityInfo,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
    StorageDriverWorkflowInfo,
)

from runlane.payload_store import FilePayloadStore, PayloadStoreError, _file_name
from runlane.settings import S3Location, SettingsError
from runlane.temporal import data_converter, payload_directory

BIG = "b" * 40_000
PAYLOAD = Payload(metadata={"encoding": b"json/plain"}, data=b'"text"')


def _of(workflow_id: str, namespace: str = "default") -> StorageDriverStoreContext:
    return StorageDriverStoreContext(
        target=StorageDriverWorkflowInfo(namespace=namespace, id=workflow_id)
    )


def _files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


async def _store(
    root: Path, context: StorageDriverStoreContext, payload: Payload = PAYLOAD
) -> StorageDriverClaim:
    [claim] = await FilePayloadStore(root).store(context, [payload])
    return claim


async def _retrieve(root: Path, claim: StorageDriverClaim) -> Payload:
    [payload] = await FilePayloadStore(root).retrieve(StorageDriverRetrieveContext(), [claim])
    return payload


async def test_what_is_stored_is_read_back_by_another_process(tmp_path: Path) -> None:
    """A claim is enough to find the payload: nothing lives in the store object."""
    claim = await _store(tmp_path, _of("run_1"))

    assert PAYLOAD == await _retrieve(tmp_path, claim)


async def test_a_moved_data_directory_is_still_read(tmp_path: Path) -> None:
    """A claim holds no absolute path, so a data directory may be moved or mounted elsewhere."""
    claim = await _store(tmp_path / "old", _of("run_1"))
    (tmp_path / "old").rename(tmp_path / "new")

    assert PAYLOAD == await _retrieve(tmp_path / "new", claim)


async def test_storing_again_writes_nothing(tmp_path: Path) -> None:
    """The same payload for the same workflow is one file, written once, and young again."""
    first = await _store(tmp_path, _of("run_1"))
    [file] = _files(tmp_path)
    written = file.stat().st_ino
    os.utime(file, (1, 1))

    assert first == await _store(tmp_path, _of("run_1"))
    assert [file] == _files(tmp_path)
    assert written == file.stat().st_ino
    assert time.time() - 600 < file.stat().st_mtime


async def test_many_writers_of_one_payload_leave_one_whole_file(tmp_path: Path) -> None:
    """Writers that race end with one file and no leftovers."""
    claims = await asyncio.gather(*(_store(tmp_path, _of("run_1")) for _ in range(20)))

    assert 1 == len(_files(tmp_path))
    assert PAYLOAD == await _retrieve(tmp_path, claims[-1])


async def test_a_cut_off_file_is_written_again(tmp_path: Path) -> None:
    """A file that a disk fault shortened doesn't count as stored."""
    claim = await _store(tmp_path, _of("run_1"))
    [file] = _files(tmp_path)
    file.write_bytes(b"")

    await _store(tmp_path, _of("run_1"))

    assert PAYLOAD == await _retrieve(tmp_path, claim)


async def test_each_workflow_has_a_directory(tmp_path: Path) -> None:
    """Payloads lie by namespace and workflow, so that one can see whose they are."""
    await _store(tmp_path, _of("run_1"))
    await _store(tmp_path, _of("run_2", "other"))
    await _store(
        tmp_path,
        StorageDriverStoreContext(target=StorageDriverActivityInfo(namespace="default", id="a")),
    )
    await _store(tmp_path, StorageDriverStoreContext())

    expected = {"default/run_1", "other/run_2", "default/activity-a", "_"}
    assert expected == {str(file.parent.relative_to(tmp_path)) for file in _files(tmp_path)}


async def test_only_the_owner_reads_payloads(tmp_path: Path) -> None:
    """Payloads are what people told an assistant: nobody else on the machine reads them."""
    await _store(tmp_path / "payloads", _of("run_1"))

    [file] = _files(tmp_path)
    assert 0o600 == file.stat().st_mode & 0o777
    assert 0o700 == file.parent.stat().st_mode & 0o777


@pytest.mark.parametrize("name", ["..", ".", "../../etc", "a/b", "a\\b", "x" * 1000, "ü", "", "~"])
async def test_no_workflow_id_leaves_the_directory(tmp_path: Path, name: str) -> None:
    """A workflow id is anybody's text; it names one directory under the root, whatever it is."""
    root = tmp_path / "root"
    claim = await _store(root, _of(name, name or "default"))

    [file] = _files(tmp_path)
    assert file.parent.parent.parent == root
    assert PAYLOAD == await _retrieve(root, claim)


@given(st.text(), st.text())
def test_different_ids_have_different_directories(first: str, second: str) -> None:
    """Two workflows never share a directory."""
    assert (first == second) == (_file_name(f"r{first}") == _file_name(f"r{second}"))


@pytest.mark.parametrize("key", ["../secret", "/etc/passwd", "a/../../b", "", "a//b", "a/./b"])
async def test_a_forged_claim_reads_no_other_file(tmp_path: Path, key: str) -> None:
    """A reference that points outside the store is refused before any file is opened."""
    (tmp_path / "secret").write_text("hush")

    with pytest.raises(PayloadStoreError, match="impossible name"):
        await _retrieve(tmp_path / "root", StorageDriverClaim({"key": key, "sha256": "0"}))


async def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    """The error says which file is missing and what to set."""
    claim = await _store(tmp_path, _of("run_1"))
    [file] = _files(tmp_path)
    file.unlink()

    with pytest.raises(PayloadStoreError, match=f"{file} is missing.*RUNLANE_DATA_DIR"):
        await _retrieve(tmp_path, claim)


async def test_a_changed_file_is_never_handed_out(tmp_path: Path) -> None:
    """A payload whose digest is not the one recorded is reported, not used."""
    claim = await _store(tmp_path, _of("run_1"))
    [file] = _files(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"text", b"lies"))

    with pytest.raises(PayloadStoreError, match="changed or damaged"):
        await _retrieve(tmp_path, claim)


async def test_a_failed_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk is full the store fails, and neither a half file nor a leftover remains."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    directory = tmp_path / "default" / "run_1"
    directory.mkdir(parents=True)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PayloadStoreError, match="No space left"):
        await _store(tmp_path, _of("run_1"))

    assert [] == _files(tmp_path)


async def test_small_payloads_stay_in_the_history(tmp_path: Path) -> None:
    """Below 32 kB nothing is written to files."""
    converter = data_converter(tmp_path)

    [small] = await converter.encode(["s" * 32_000])
    [big] = await converter.encode([BIG])

    assert small.ByteSize() > 32_000
    assert big.ByteSize() < 1_000
    assert 1 == len(_files(payload_directory(tmp_path)))


async def test_without_a_store_payloads_are_sent_inline() -> None:
    """No directory and no S3: nothing is stored outside, and Temporal's own limit holds."""
    converter = data_converter()

    [payload] = await converter.encode([BIG])

    assert payload.ByteSize() > 40_000
    assert [BIG] == await converter.decode([payload], [str])


async def test_without_the_store_a_reference_says_what_to_set(tmp_path: Path) -> None:
    """A process without any store reports a reference with the variable to set."""
    [payload] = await data_converter(tmp_path).encode([BIG])

    with pytest.raises(PayloadStoreError, match="RUNLANE_DATA_DIR"):
        await data_converter().decode([payload], [str])


class _S3(BaseHTTPRequestHandler):
    """The three calls of S3 we make, over the real wire."""

    objects: ClassVar[dict[str, bytes]] = {}
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.objects[self.path] = data
        self._answer(200, b"")

    def do_HEAD(self) -> None:
        self._answer(200 if self.path in self.objects else 404, b"")

    def do_GET(self) -> None:
        if self.path in self.objects:
            self._answer(200, self.objects[self.path])
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Be silent."""


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """An S3 endpoint on loopback, and the variables by which the client finds it."""
    _S3.objects.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _S3)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    }.items():
        monkeypatch.setenv(name, value)
    yield _S3.objects
    server.shutdown()
    server.server_close()
    thread.join()


async def test_s3_takes_payloads_under_its_prefix(s3: dict[str, bytes], tmp_path: Path) -> None:
    """With an S3 location big payloads go there and come back from there; files stay unused."""
    converter = data_converter(tmp_path, S3Location("bucket", "some/prefix"))

    [payload] = await converter.encode([BIG])
    again = await converter.encode([BIG])

    assert [BIG] == await converter.decode([payload], [str])
    assert [payload] == again
    [path] = s3
    assert path.startswith("/bucket/some/prefix/v0/")
    assert [] == _files(tmp_path)


@pytest.mark.usefixtures("s3")
async def test_files_stay_readable_after_the_move_to_s3(tmp_path: Path) -> None:
    """Runs that began with files go on when the store becomes S3."""
    [old] = await data_converter(tmp_path).encode([BIG])

    moved = data_converter(tmp_path, S3Location("bucket", ""))

    assert [BIG] == await moved.decode([old], [str])


async def test_without_s3_a_reference_to_it_says_what_to_set(s3: dict[str, bytes]) -> None:
    """A process that lacks the S3 location reports it by its variable."""
    [payload] = await data_converter(None, S3Location("bucket", "")).encode([BIG])
    assert s3

    with pytest.raises(PayloadStoreError, match="RUNLANE_PAYLOAD_STORE"):
        await data_converter().decode([payload], [str])


def test_s3_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for S3 in an environment without its client is one line with the remedy."""
    monkeypatch.setitem(sys.modules, "aiobotocore.session", None)

    with pytest.raises(SettingsError, match=r"RUNLANE_PAYLOAD_STORE: .*runlane\[s3\]"):
        data_converter(None, S3Location("bucket", ""))
