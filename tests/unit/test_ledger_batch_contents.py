"""What the items of batches were asked and have answered: sealed, erased, pruned."""

from typing import Any

import pytest
from sqlalchemy import Connection, select, text

from activities import trail
from ledger import BatchNotKnown, Ledger, LedgerRefused, Location, limits
from ledger.batch_item import ItemState
from ledger.batch_notes import Note
from ledger.batch_record import BatchStatus
from ledger.batch_writes import Intend, Settle
from ledger.contents import digest_of
from ledger.database import Database
from ledger.retention import Pruned, Retention
from ledger.stops import TRAIL
from ledger.tables import metadata
from tests.lines import BATCH, NOON, begun, item, outcome, record

SECRET = '{"text": "the customer is deaf"}'
ERROR = '{"message": "no such account"}'


class Reversed:
    """A sealing that shows whether it was used."""

    def seal(self, body: bytes) -> bytes:
        """Turn it round."""
        return b"sealed" + body[::-1]

    def unseal(self, stored: bytes) -> bytes:
        """Turn it back."""
        return stored.removeprefix(b"sealed")[::-1]


async def drive(ledger: Ledger) -> int:
    """Begin three items and end two of them, with all contents that there are."""
    await begun(ledger, [item(0, body=SECRET), item(1, body=SECRET), item(2, body=SECRET)])
    epoch = await ledger.batch_items.take_lane(BATCH, 0, "first")
    claim = await ledger.batch_items.claim(BATCH, 0, epoch, 3, NOON)
    assert [SECRET] * 3 == [each.body for each in claim.items]
    for index in range(3):
        intent = Intend(index=index, run_id=f"run_{index}", at=NOON, attempt=1)
        assert [True] == await ledger.batch_items.write(BATCH, epoch, [intent])
    failed = outcome(ItemState.FAILED, error=ERROR, error_kind="bad")
    ends = [(0, outcome(response=SECRET)), (1, failed)]
    assert [True, True] == await ledger.batch_items.settle_many(BATCH, epoch, ends)
    return epoch


async def test_contents_are_sealed_and_stand_nowhere_else(location: Location) -> None:
    """What was asked, answered and said of an error; half a pair of a broken emoji too."""
    async with await Ledger.open(location, Reversed()) as ledger:
        await drive(ledger)
        await ledger.batch_items.add(BATCH, [item(3, body='"\ud83d"')])
        epoch = await ledger.batch_items.take_lane(BATCH, 1, "second")
        (broken,) = (await ledger.batch_items.claim(BATCH, 1, epoch, 1, NOON)).items
        assert '"\ud83d"' == broken.body
        first, second = await ledger.batch_items.results(BATCH)
        assert (SECRET, ERROR) == (first.response, second.error)

    def everything(connection: Connection) -> dict[str, list[Any]]:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table))]
            for table in metadata.sorted_tables
        }

    database = Database(location)
    found = await database.read(everything)
    bodies = [row[3] for row in found["batch_contents"]]
    assert "deaf" not in str(found)
    assert "account" not in str(found)
    assert 6 == len(bodies)
    assert all(bytes(body).startswith(b"sealed") for body in bodies)
    await database.close()


async def test_an_erased_run_leaves_nothing_of_its_item(ledger: Ledger) -> None:
    """Nothing but digests; others keep theirs, and it can't be tried anew."""
    epoch = await drive(ledger)

    assert 2 == await ledger.erase_run("run_0")
    assert 2 == await ledger.erase_run("run_1")
    assert 0 == await ledger.erase_run("run_1")

    first, second = await ledger.batch_items.results(BATCH)
    assert (None, digest_of(SECRET), ItemState.COMPLETED) == (
        first.response, first.response_digest, first.state
    )  # fmt: skip
    assert (None, "bad", ItemState.FAILED) == (second.error, second.error_kind, second.state)
    assert 0 == await ledger.batch_items.retry_failed(BATCH)
    assert [SECRET] == [each.body for each in await ledger.batch_items.held(BATCH, epoch)]


async def test_an_erased_batch_leaves_nothing_of_any_item(ledger: Ledger) -> None:
    """Lines that never began, results, messages, notes; one that hasn't ended is left as it is.
    Digests, states and the trail stay, and nothing of it can be tried anew.
    """
    await ledger.batch_notes.prepare(BATCH, {Note.METADATA: SECRET})
    epoch = await drive(ledger)
    said = outcome(response=SECRET, messages=f"[{SECRET}]")
    order = trail.control(what="erase", scope=BATCH, by="ann", reason=None, at=NOON)
    with pytest.raises(LedgerRefused, match="only what has ended"):
        await ledger.erase_batch(BATCH, [order])
    assert [SECRET] == [each.body for each in await ledger.batch_items.held(BATCH, epoch)]
    assert await ledger.batch_items.settle(BATCH, 2, epoch, said)
    await ledger.batches.set_status(BATCH, BatchStatus.COMPLETED, NOON)

    # Three lines, two responses, an error and the messages.
    assert 7 == await ledger.erase_batch(BATCH, [order])
    assert 0 == await ledger.erase_batch(BATCH, [order])

    items = await ledger.batch_items.results(BATCH)
    assert [(None, None, None)] * 3 == [
        (each.response, each.error, each.messages) for each in items
    ]
    assert digest_of(SECRET) == items[0].response_digest
    assert await ledger.batch_notes.find(BATCH, Note.METADATA) is None
    assert 0 == await ledger.batch_items.retry_failed(BATCH)
    assert 1 == len(await ledger.audit.read(TRAIL))


async def test_only_a_batch_that_there_is_can_be_erased(ledger: Ledger) -> None:
    """The trail doesn't say of others that they were."""
    order = trail.control(what="erase", scope=BATCH, by="ann", reason=None, at=NOON)
    with pytest.raises(BatchNotKnown):
        await ledger.erase_batch(BATCH, [order])

    assert [] == await ledger.audit.read(TRAIL)


async def test_an_item_that_runs_is_cancelled_by_its_erasure(ledger: Ledger) -> None:
    """And what a late writer brings of it is not stored."""
    epoch = await drive(ledger)

    assert 1 == await ledger.erase_run("run_2")

    late = Settle(index=2, outcome=outcome(response=SECRET))
    assert [False] == await ledger.batch_items.write(BATCH, epoch, [late])
    assert await ledger.batch_items.settle(BATCH, 2, None, outcome(response=SECRET), run_id="run_2")
    *_, last = await ledger.batch_items.results(BATCH)
    assert (2, ItemState.CANCELLED, "erased", None) == (
        last.index, last.state, last.error_kind, last.response
    )  # fmt: skip
    assert not await ledger.batch_items.unfinished(BATCH)


async def test_nothing_is_stored_of_a_run_that_was_erased_before(ledger: Ledger) -> None:
    """Whoever erased it before its item knew of it has erased it for good."""
    await begun(ledger, 1)
    await ledger.erase_run("run_0")
    epoch = await ledger.batch_items.take_lane(BATCH, 0, "first")
    await ledger.batch_items.claim(BATCH, 0, epoch, 1, NOON)

    intent = Intend(index=0, run_id="run_0", at=NOON, attempt=1)
    end = Settle(index=0, outcome=outcome(response=SECRET, error=ERROR))
    assert [True, True] == await ledger.batch_items.write(BATCH, epoch, [intent, end])

    (found,) = await ledger.batch_items.results(BATCH)
    assert (None, None, digest_of(SECRET)) == (found.response, found.error, found.response_digest)


async def age(location: Location, days: int) -> None:
    """Make everything so many days older."""
    microseconds = days * 86_400 * 1_000_000

    def work(connection: Connection) -> None:
        for column in ("batch_contents.stored_at", "batches.ended_at"):
            table, name = column.split(".")
            connection.execute(text(f"UPDATE {table} SET {name} = {name} - {microseconds}"))

    database = Database(location)
    await database.write("test", work)
    await database.close()


async def test_batches_are_pruned_once_they_are_old(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked and answered by `contents`, the whole of it by `batches`; none that runs."""
    monkeypatch.setattr("ledger.batch_pruning.AT_ONCE", 2)
    everything = Retention(contents=9, batches=9)
    async with await Ledger.open(location) as ledger:
        await drive(ledger)
        other = await ledger.batches.create(record(name="other"))
        await age(location, 10)
        assert Pruned() == await ledger.prune(everything)

        assert await ledger.batch_items.settle(BATCH, 2, None, outcome(), run_id="run_2")
        await ledger.batches.set_status(BATCH, BatchStatus.COMPLETED, limits.now())
        assert Pruned() == await ledger.prune(Retention(batches=9))
        await age(location, 10)
        assert Pruned() == await ledger.prune(Retention(batches=11, contents=21))

        assert Pruned(contents=5) == await ledger.prune(Retention(contents=9))
        assert [None] * 3 == [each.response for each in await ledger.batch_items.results(BATCH)]
        assert Pruned(batches=1) == await ledger.prune(everything)
        assert Pruned() == await ledger.prune(everything)
        assert [other] == await ledger.batches.list()
        assert 0 == (await ledger.batches.counts(BATCH)).total
        with pytest.raises(LedgerRefused, match="batches must be at least 1"):
            await ledger.prune(Retention(batches=0))
