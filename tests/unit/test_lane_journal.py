"""What a lane writes is written together, and once it has lost its lane it writes no more."""

import asyncio
from datetime import UTC, datetime

import pytest

from activities.lane_journal import EpochOver, Journal
from ledger import Ledger, LedgerRefused
from ledger.batch_item import ItemState, NewItem
from ledger.batch_record import BatchRecord, BatchStatus, batch_id
from ledger.batch_writes import Intend
from ledger.stops import Scope, Stop

DIGEST = "sha256:" + "0" * 64
NOW = datetime(2026, 11, 29, tzinfo=UTC)
BATCH = batch_id("", "b")


async def begun(ledger: Ledger, count: int) -> Journal:
    """Return the journal of a lane that holds all items of a new batch."""
    record = BatchRecord(id=BATCH, name="b", input_digest=DIGEST, total=count, created_at=NOW)
    await ledger.batches.create(record)
    items = [
        NewItem(index=index, custom_id=f"item-{index}", digest=DIGEST, body="{}")
        for index in range(count)
    ]
    await ledger.batch_items.add(BATCH, items)
    await ledger.batches.set_status(BATCH, BatchStatus.IN_PROGRESS, NOW)
    epoch = await ledger.batch_items.take_lane(BATCH, 0, "first")
    claim = await ledger.batch_items.claim(BATCH, 0, epoch, count, NOW)
    assert count == len(claim.items)
    return Journal(ledger, BATCH, epoch)


def intent(index: int) -> Intend:
    return Intend(index=index, run_id=f"run_{index}", at=NOW, attempt=1)


async def test_writes_that_come_together_are_all_durable(ledger: Ledger) -> None:
    """A hundred at once: each returns once it stands in the ledger."""
    journal = await begun(ledger, 100)
    await asyncio.gather(*(journal.write(intent(index)) for index in range(100)))
    held = await ledger.batch_items.held(BATCH, 1)
    assert [f"run_{index}" for index in range(100)] == [each.run_id for each in held]


async def test_a_lane_that_was_taken_neither_writes_nor_sends(ledger: Ledger) -> None:
    """Its items belong to the attempt that has taken it."""
    journal = await begun(ledger, 1)
    assert None is await journal.may_send("run_0")
    await ledger.batch_items.take_lane(BATCH, 0, "second")
    with pytest.raises(EpochOver):
        await journal.write(intent(0))
    with pytest.raises(EpochOver):
        await journal.may_send("run_0")
    counts = await ledger.batches.counts(BATCH)
    assert 1 == counts.by_state[ItemState.BEGUN]


async def test_a_stop_is_told_to_whom_it_concerns(ledger: Ledger) -> None:
    """One against a run lets every other run be sent."""
    journal = await begun(ledger, 1)
    stop = Stop(scope=Scope.RUN, target="run_0", by="ann", reason="wrong", since=NOW)
    await ledger.stops.stop(stop)
    told = await asyncio.gather(journal.may_send("run_0"), journal.may_send("run_1"))
    assert [stop, None] == list(told)


async def test_one_that_gives_up_waiting_harms_no_other(ledger: Ledger) -> None:
    """An item whose task is cancelled while it waits for a write leaves the others theirs."""
    journal = await begun(ledger, 3)
    tasks = [asyncio.create_task(journal.write(intent(index))) for index in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(tasks[0], tasks[2])
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]


async def test_one_that_can_not_be_stored_keeps_no_other_from_it(ledger: Ledger) -> None:
    """Written together with others, it alone is refused."""
    journal = await begun(ledger, 3)
    bad = Intend(index=1, run_id="x" * 300, at=NOW, attempt=1)
    results = await asyncio.gather(
        journal.write(intent(0)), journal.write(bad), journal.write(intent(2)),
        return_exceptions=True,
    )  # fmt: skip
    held = await ledger.batch_items.held(BATCH, 1)
    assert isinstance(results[1], LedgerRefused)
    assert [None, None] == [results[0], results[2]]
    assert ["run_0", None, "run_2"] == [each.run_id for each in held]
