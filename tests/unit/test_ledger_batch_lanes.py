"""Who may write of a batch's items: one attempt of a lane at a time, on any machine."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from ledger import Ledger, LedgerRefused, Location
from ledger.batch_item import ItemState, Withheld
from ledger.batch_writes import Intend, MadeRun, MadeThread, Promote, PutBack, Settle, Write
from tests.lines import BATCH, NOON, begun, outcome, usage

WRITES: list[Write] = [
    Intend(index=0, run_id="run_old", at=NOON, attempt=1),
    MadeThread(index=0, thread_id="thread_old"),
    MadeRun(index=0, upstream_run_id="up_old"),
    Promote(index=0),
    PutBack(index=0, not_before=None, error_kind="old", tries=1),
    Settle(index=0, outcome=outcome(ItemState.FAILED, error_kind="old")),
]


@pytest_asyncio.fixture
async def other(location: Location, ledger: Ledger) -> AsyncIterator[Ledger]:
    """The same ledger as another process has it open, with connections of its own."""
    async with await Ledger.open(location) as opened:
        yield opened


@pytest.mark.parametrize("write", WRITES, ids=lambda write: type(write).__name__)
async def test_an_attempt_whose_lane_was_taken_writes_nothing(
    ledger: Ledger, other: Ledger, write: Write
) -> None:
    """From the moment on at which the lane is taken, before its items are claimed anew."""
    await begun(ledger, 2)
    old = await ledger.batch_items.take_lane(BATCH, 0, "old")
    await ledger.batch_items.claim(BATCH, 0, old, 1, NOON)
    assert await ledger.batch_items.holds(BATCH, old)

    new = await other.batch_items.take_lane(BATCH, 0, "new")

    assert new > old
    assert not await ledger.batch_items.holds(BATCH, old)
    assert [False] == await ledger.batch_items.write(BATCH, old, [write])
    refused = await ledger.batch_items.claim(BATCH, 0, old, 1, NOON)
    assert (Withheld.EPOCH, []) == (refused.withheld, refused.items)

    (found,) = (await other.batch_items.claim(BATCH, 0, new, 1, NOON)).items
    assert (ItemState.BEGUN, new, None, None, None, 0, None) == (
        found.state, found.epoch, found.run_id, found.made_thread, found.upstream_run_id,
        found.tries, found.error_kind,
    )  # fmt: skip
    assert [False] == await ledger.batch_items.write(BATCH, old, [write])
    assert await other.batch_items.settle(BATCH, 0, new, outcome())
    assert [False] == await ledger.batch_items.write(BATCH, old, [write])
    (ended,) = await other.batch_items.results(BATCH)
    assert ItemState.COMPLETED == ended.state


async def test_two_attempts_that_write_side_by_side(ledger: Ledger, other: Ledger) -> None:
    """As in a partition: each item has one end, and only by whom it was told that it counts."""
    await begun(ledger, 30)
    old = await ledger.batch_items.take_lane(BATCH, 0, "old")
    given = (await ledger.batch_items.claim(BATCH, 0, old, 30, NOON)).items

    async def drive(by: Ledger, epoch: int, name: str, indexes: list[int]) -> list[int]:
        ended = []
        for index in indexes:
            settled = await by.batch_items.settle(BATCH, index, epoch, outcome(response=name))
            ended += [index] if settled else []
        return ended

    async def take() -> list[int]:
        new = await other.batch_items.take_lane(BATCH, 0, "new")
        claim = await other.batch_items.claim(BATCH, 0, new, 30, NOON)
        return await drive(other, new, "new", [each.index for each in claim.items])

    by_old, by_new = await asyncio.gather(
        drive(ledger, old, "old", [each.index for each in given]), take()
    )

    assert list(range(30)) == sorted([*by_old, *by_new])
    told = {each.index: each.response for each in await ledger.batch_items.ordered(BATCH)}
    assert told == {**dict.fromkeys(by_old, "old"), **dict.fromkeys(by_new, "new")}


async def test_lanes_do_not_disturb_one_another(ledger: Ledger, other: Ledger) -> None:
    """Taking one over ends no epoch of another; nobody writes of another lane's items."""
    await begun(ledger, 2)
    first = await ledger.batch_items.take_lane(BATCH, 0, "first")
    second = await other.batch_items.take_lane(BATCH, 1, "second")
    await ledger.batch_items.claim(BATCH, 0, first, 1, NOON)
    await other.batch_items.claim(BATCH, 1, second, 1, NOON)

    assert 2 == len({first, second})
    assert not await other.batch_items.settle(BATCH, 0, second, outcome())
    again = await ledger.batch_items.take_lane(BATCH, 0, "again")
    assert await other.batch_items.settle(BATCH, 1, second, outcome())
    claim = await ledger.batch_items.claim(BATCH, 0, again, 1, NOON)
    assert [0] == [each.index for each in claim.items]


async def test_items_begin_as_far_as_a_minutes_tokens_go(ledger: Ledger) -> None:
    """Four, until one has told what it uses; then as many as that leaves room for, with those that
    any lane drives; one alone has room whatever it uses.
    """
    await begun(ledger, 30)
    items = ledger.batch_items
    epochs = [await items.take_lane(BATCH, lane, f"holder {lane}") for lane in range(2)]

    async def claimed(lane: int, up_to: float, limit: int = 8) -> tuple[list[int], Withheld | None]:
        found = await items.claim(BATCH, lane, epochs[lane], limit, NOON, tokens_up_to=up_to)
        return [each.index for each in found.items], found.withheld

    async def end(lane: int, *indexes: int) -> None:
        ended = outcome(usage=usage(100))
        assert all(await items.settle_many(BATCH, epochs[lane], [(i, ended) for i in indexes]))

    assert ([0, 1, 2], None) == await claimed(0, 1000, 3)
    assert ([3], Withheld.PACE) == await claimed(1, 1000)
    assert ([], Withheld.PACE) == await claimed(0, 1000)
    await end(0, 0, 1)
    assert ([4, 5, 6], Withheld.PACE) == await claimed(1, 700)
    assert ([], Withheld.PACE) == await claimed(0, 200)
    await end(0, 2)
    await end(1, 3, 4, 5, 6)
    assert ([], Withheld.PACE) == await claimed(0, 700)
    assert ([7], Withheld.PACE) == await claimed(0, 701)
    assert ([], Withheld.PACE) == await claimed(1, 701)
    assert ([8, 9, 10, 11, 12, 13, 14, 15], None) == await claimed(1, 10_000)


async def test_the_last_ends_are_told_with_their_tokens(ledger: Ledger) -> None:
    """Those since a moment, in their order."""
    await begun(ledger, 3)
    epoch = await ledger.batch_items.take_lane(BATCH, 0, "a")
    await ledger.batch_items.claim(BATCH, 0, epoch, 3, NOON)
    times = [NOON + timedelta(seconds=seconds) for seconds in (0, 30, 60)]
    for index, at in enumerate(times):
        ended = outcome(at=at, usage=usage(10 + index))
        await ledger.batch_items.settle(BATCH, index, epoch, ended)

    found = await ledger.batch_items.ended_since(BATCH, times[1])
    assert [(times[1], 11), (times[2], 12)] == list(found)
    assert [] == list(await ledger.batch_items.ended_since(BATCH, times[2] + timedelta(seconds=1)))


async def test_a_lane_is_taken_by_one_of_many(ledger: Ledger, other: Ledger) -> None:
    """Who race for it have epochs of their own, and one of them holds it."""
    await begun(ledger, 1)
    epochs = await asyncio.gather(
        *(
            each.batch_items.take_lane(BATCH, 0, f"{name} {number}")
            for number in range(4)
            for name, each in (("ours", ledger), ("theirs", other))
        )
    )

    assert 8 == len(set(epochs))
    assert [False] * 7 + [True] == [
        await ledger.batch_items.holds(BATCH, epoch) for epoch in sorted(epochs)
    ]


async def test_the_run_of_a_promoted_item_ends_it(ledger: Ledger, other: Ledger) -> None:
    """Also where its lane died before it could say so; a lane that comes then has lost it."""
    await begun(ledger, 2)
    items = ledger.batch_items
    epoch = await items.take_lane(BATCH, 0, "first")
    await items.claim(BATCH, 0, epoch, 2, NOON)
    for index in (0, 1):
        await items.intend(BATCH, index, epoch, f"run_{index}", NOON)
    assert await items.promote(BATCH, 0, epoch)
    assert [0] == [each.index for each in await items.promoted(BATCH)]
    assert [] == await items.promoted(BATCH, after=0)
    assert not await items.settle(BATCH, 0, epoch, outcome())

    for index in (0, 1):
        named = f"run_{index}"
        for state in (ItemState.COMPLETED, ItemState.FAILED):
            assert await other.batch_items.settle(BATCH, index, None, outcome(state), run_id=named)
    assert not await items.promote(BATCH, 1, epoch)
    assert not await items.settle(BATCH, 1, epoch, outcome(ItemState.FAILED))

    assert [ItemState.COMPLETED] * 2 == [each.state for each in await items.results(BATCH)]
    assert not await items.settle(BATCH, 0, None, outcome(), run_id="run_1")
    with pytest.raises(LedgerRefused, match="run_id must not be empty"):
        await items.settle(BATCH, 0, None, outcome())
