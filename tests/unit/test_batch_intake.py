"""A batch's items read from a stored file, on SQLite and PostgreSQL, whoever dies meanwhile."""

import asyncio
import contextlib
import gzip
import json
from typing import Any

from ledger import Ledger
from ledger.batch_notes import Note
from ledger.batch_record import BatchRecord, BatchStatus
from runlane.batches.checking import PAGE_LINES
from runlane.batches.intake import MAX_LINES, StoredIntake
from tests.lines import BATCH, NOON, record

LINES = 4 * PAGE_LINES + 1


async def _given(ledger: Ledger) -> BatchRecord:
    """Return a batch whose file has so many lines, and none of whose items is there."""
    lines: list[Any] = [
        {
            "custom_id": f"ticket-{number}",
            "method": "POST",
            "url": "/v1/threads/runs",
            "body": {"assistant_id": "asst_1"},
        }
        for number in range(LINES)
    ]
    writing = await ledger.files.begin("file-a", "", NOON)
    await writing.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    await writing.finish(filename="in.jsonl", purpose="batch")
    return await ledger.batches.create(record(total=0, options={"input_file_id": "file-a"}))


async def _some_are_there(ledger: Ledger) -> int:
    while not (found := await ledger.batch_items.next_index(BATCH)):
        await asyncio.sleep(0.005)
    return found


async def test_who_takes_over_adds_what_is_missing(ledger: Ledger) -> None:
    """Ended between two pages, and done again twice: each line is one item."""
    batch = await _given(ledger)
    first = asyncio.create_task(StoredIntake(ledger).take(batch))
    some = await _some_are_there(ledger)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    await StoredIntake(ledger).take(batch)
    await StoredIntake(ledger).take(batch)
    found = await ledger.batches.find(BATCH)

    assert found is not None
    assert some < LINES
    assert LINES == found.total == (await ledger.batches.counts(BATCH)).total


async def test_a_batch_that_was_cancelled_takes_no_more(ledger: Ledger) -> None:
    """Its intake ends quietly, with what was there by then."""
    batch = await _given(ledger)
    taking = asyncio.create_task(StoredIntake(ledger).take(batch))
    await _some_are_there(ledger)
    await ledger.batches.set_status(BATCH, BatchStatus.CANCELLING, NOON)
    await taking
    await StoredIntake(ledger).take(batch)

    assert 0 < (await ledger.batches.counts(BATCH)).total < LINES


async def test_a_packed_file_of_boundless_content_is_told_and_left(ledger: Ledger) -> None:
    """A kilobyte of gzip may hold more lines than any worker reads in a day: the batch has failed
    as soon as there are more than a file may have.
    """
    packed = gzip.compress(b"\n" * (MAX_LINES + 1))
    writing = await ledger.files.begin("file-a", "", NOON)
    await writing.write(packed * 200)
    await writing.finish(filename="in.jsonl.gz", purpose="batch")
    batch = await ledger.batches.create(record(total=0, options={"input_file_id": "file-a"}))
    await asyncio.wait_for(StoredIntake(ledger).take(batch), 60)
    found = await ledger.batches.find(BATCH)
    told = json.loads(await ledger.batch_notes.find(BATCH, Note.ERRORS) or "[]")

    assert found is not None
    assert BatchStatus.FAILED is found.status
    assert [MAX_LINES + 1] == [each["line"] for each in told]
    assert "2,000,000 lines" in told[0]["message"]
