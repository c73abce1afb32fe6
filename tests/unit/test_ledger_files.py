"""Uploaded files in the ledger, on SQLite and PostgreSQL: chunked, sealed, owned, removed."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from ledger import Ledger, LedgerRefused, Location
from ledger.batch_notes import Note
from ledger.batch_record import BatchStatus
from ledger.files import CHUNK_BYTES, StoredFile
from ledger.retention import Retention
from tests.lines import BATCH, NOON, record

HOUR = timedelta(hours=1)


class Turned:
    """Turns every byte around: enough to tell what is sealed from what isn't."""

    def seal(self, body: bytes) -> bytes:
        return bytes(255 - each for each in body)

    def unseal(self, stored: bytes) -> bytes:
        return self.seal(stored)


async def _stored(
    ledger: Ledger, id: str, body: bytes = b"{}", at: datetime = NOON, **fields: datetime
) -> StoredFile:
    writing = await ledger.files.begin(id, "ann", at)
    await writing.write(body)
    return await writing.finish(filename="in.jsonl", purpose="batch", **fields)


async def _read(ledger: Ledger, id: str) -> bytes:
    return b"".join([chunk async for chunk in ledger.files.chunks(id)])


async def test_a_file_comes_back_as_it_was(ledger: Ledger) -> None:
    """Whatever pieces it came in, it is given out by whole chunks; nobody else's eyes see it."""
    body = bytes(range(256)) * 10_000
    writing = await ledger.files.begin("file-a", "ann", NOON)
    for start in range(0, len(body), 300_001):
        await writing.write(memoryview(body)[start : start + 300_001])
    unseen = await ledger.files.find("file-a", NOON)
    made = await writing.finish(filename="in.jsonl", purpose="batch")

    assert unseen is None
    assert (len(body), "in.jsonl", "ann") == (made.bytes, made.filename, made.owner)
    assert body == await _read(ledger, "file-a")
    sizes = [len(chunk) async for chunk in ledger.files.chunks("file-a")]
    assert [CHUNK_BYTES] * 2 + [len(body) - 2 * CHUNK_BYTES] == sizes
    assert made == await ledger.files.find("file-a", NOON, owner="ann")
    assert await ledger.files.find("file-a", NOON, owner="bob") is None


async def test_files_lie_sealed(tmp_path: Path) -> None:
    """In no file of the ledger stands what was uploaded, or what came beside it."""
    location = Location.in_directory(tmp_path)
    async with await Ledger.open(location, Turned()) as ledger:
        await _stored(ledger, "file-a", b"where is my order?" * 1000)
        await ledger.batch_notes.prepare(BATCH, {Note.METADATA: '{"k": "where is my order?"}'})
        found = await ledger.batch_notes.find(BATCH, Note.METADATA)
        lying = b"".join(each.read_bytes() for each in location.file.parent.iterdir())
        assert b"where is my order?" * 1000 == await _read(ledger, "file-a")
    assert '{"k": "where is my order?"}' == found
    assert b"order" not in lying


async def test_files_are_listed_by_age_and_owner(ledger: Ledger) -> None:
    """A page goes on after its last one; what isn't whole, or has expired, isn't there."""
    made = [await _stored(ledger, f"file-{n}", at=NOON + n * HOUR) for n in range(3)]
    await ledger.files.begin("file-3", "ann", NOON)
    await _stored(ledger, "file-4", expires_at=NOON + HOUR)
    listed = ledger.files.list

    now = NOON + HOUR
    assert made[::-1] == await listed(now)
    assert made[1::-1] == await listed(now, owner="ann", after=made[2])
    assert made[1:] == await listed(now, oldest_first=True, after=made[0])
    assert [] == await listed(now, owner="bob")
    assert await ledger.files.find("file-4", NOON)
    assert await ledger.files.find("file-4", now) is None


async def test_a_removed_file_is_gone_with_its_chunks(ledger: Ledger) -> None:
    """Deleted, expired, left by an upload that died, or older than contents are kept."""
    await _stored(ledger, "file-a")
    await _stored(ledger, "file-b", expires_at=NOON + HOUR)
    dead = await ledger.files.begin("file-c", "ann", NOON)
    await dead.write(b"x" * CHUNK_BYTES)
    assert await ledger.files.delete("file-a")
    assert not await ledger.files.delete("file-a")
    await _stored(ledger, "file-d", at=NOON + timedelta(days=2))
    assert [] == [each for each in "abc" if await ledger.files.chunk(f"file-{each}", 0)]
    assert await ledger.files.chunk("file-d", 0)
    with pytest.raises(LedgerRefused, match="was removed"):
        await dead.finish(filename="in.jsonl", purpose="batch")

    assert 1 == (await ledger.prune(Retention(contents=1))).contents
    assert await ledger.files.chunk("file-d", 0) is None


async def test_a_check_ends_once(ledger: Ledger) -> None:
    """What has been found wrong stands with the batch; one that has begun can't fail by it."""
    await ledger.batches.create(record(total=0))
    await ledger.batch_notes.pass_check(BATCH, 7)
    counted = await ledger.batches.find(BATCH)
    await ledger.batch_notes.fail_check(BATCH, "[1]", NOON)
    await ledger.batch_notes.fail_check(BATCH, "[2]", NOON + HOUR)
    await ledger.batch_notes.pass_check(BATCH, 8)
    failed = await ledger.batches.find(BATCH)

    assert counted is not None
    assert 7 == counted.total
    assert replace(counted, status=BatchStatus.FAILED, ended_at=NOON) == failed
    assert "[1]" == await ledger.batch_notes.find(BATCH, Note.ERRORS)


async def test_metadata_is_that_of_the_batch_that_was_made(ledger: Ledger) -> None:
    """Before there is a batch the last word counts, and afterwards none."""
    await ledger.batch_notes.prepare(BATCH, {Note.METADATA: '{"k": "1"}'})
    await ledger.batch_notes.prepare(BATCH, {Note.METADATA: '{"k": "2"}'})
    await ledger.batches.create(record())
    await ledger.batch_notes.prepare(BATCH, {Note.METADATA: '{"k": "3"}'})
    assert '{"k": "2"}' == await ledger.batch_notes.find(BATCH, Note.METADATA)
