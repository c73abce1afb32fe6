"""The journal of a batch's items, on SQLite and PostgreSQL: added, claimed, written, ended."""

import asyncio
from datetime import timedelta

import pytest

from ledger import BatchNotKnown, Ledger, LedgerRefused, Location
from ledger.batch_item import Item, ItemState, NewItem, Withheld
from ledger.batch_record import BatchStatus
from ledger.batch_writes import Intend, MadeRun, MadeThread, PutBack, Settle, Write
from tests.lines import BATCH, NOON, begun, item, outcome, record, usage

SECOND = timedelta(seconds=1)


async def one(ledger: Ledger, index: int = 0) -> Item:
    """Return an item that has ended."""
    (found,) = [each for each in await ledger.batch_items.ordered(BATCH) if each.index == index]
    return found


async def claimed(ledger: Ledger, lane: int, epoch: int, limit: int = 100) -> list[int]:
    """Return the indexes that a claim gives."""
    claim = await ledger.batch_items.claim(BATCH, lane, epoch, limit, NOON)
    return [each.index for each in claim.items]


async def test_a_page_is_added_once(ledger: Ledger) -> None:
    """Whoever missed the answer adds it again, side by side too, and goes on after the last."""
    await ledger.batches.create(record())
    items = ledger.batch_items
    assert 0 == await items.next_index(BATCH)
    page = [item(0), item(1), item(5)]

    assert [0, 0, 3] == sorted(await asyncio.gather(*(items.add(BATCH, page) for _ in range(3))))
    assert 6 == await items.next_index(BATCH)
    assert 1 == await items.add(BATCH, [item(5), item(6)])
    assert 4 == (await ledger.batches.counts(BATCH)).total


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ([item(2, digest="sha256:" + "0" * 64)], "index 2 stands there with another digest"),
        ([item(1)], "index 1 comes after 2"),
        ([item(4), item(3)], "index 3 comes after 4"),
        ([item(3, custom_id="ticket-2")], "index 3 has the custom_id of index 2"),
        ([item(3, custom_id="x"), item(4, custom_id="x")], "index 4 has the custom_id of index 3"),
        ([item(3, custom_id="")], "custom_id must not be empty"),
    ],
    ids=["changed", "before", "unordered", "taken", "twice", "unstorable"],
)
async def test_an_item_that_does_not_fit_is_refused(
    ledger: Ledger, page: list[NewItem], problem: str
) -> None:
    """And with it its page; what stands isn't changed."""
    await ledger.batches.create(record())
    await ledger.batch_items.add(BATCH, [item(2)])

    with pytest.raises(LedgerRefused, match=problem):
        await ledger.batch_items.add(BATCH, page)

    assert 1 == (await ledger.batches.counts(BATCH)).total


async def test_a_batch_that_ends_takes_no_more_items(ledger: Ledger) -> None:
    """They would never run. One that isn't there takes none either."""
    await begun(ledger, 1)
    await ledger.batches.set_status(BATCH, BatchStatus.CANCELLING, NOON)

    with pytest.raises(LedgerRefused, match="is cancelling"):
        await ledger.batch_items.add(BATCH, [item(1)])
    assert 0 == await ledger.batch_items.add(BATCH, [item(0)])
    with pytest.raises(BatchNotKnown):
        await ledger.batch_items.add("batch_none", [item(1)])


async def test_items_are_given_out_once_and_in_order(ledger: Ledger) -> None:
    """By four lanes that claim at once, each item to one of them, with its body."""
    await begun(ledger, 40)
    items = ledger.batch_items
    epochs = [await items.take_lane(BATCH, lane, f"lane {lane}") for lane in range(4)]
    claims = await asyncio.gather(
        *(items.claim(BATCH, lane, epochs[lane], 10, NOON) for lane in range(4))
    )

    given = [[each.index for each in claim.items] for claim in claims]
    assert list(range(40)) == sorted(index for each in given for index in each)
    assert all(each == sorted(each) for each in given)
    assert ['{"line": 0}'] == [
        each.body for claim in claims for each in claim.items if each.index == 0
    ]
    assert [] == await claimed(ledger, 0, epochs[0])


async def test_what_is_done_with_an_item_stands_there(location: Location) -> None:
    """Each step as it was written, in another process too; its answer in the results."""
    ended = outcome(status_code=200, response='{"id": "run_1"}', usage=usage(12), at=NOON + SECOND)
    async with await Ledger.open(location) as ledger:
        await begun(ledger)
        items = ledger.batch_items
        epoch = await items.take_lane(BATCH, 0, "first")
        await items.claim(BATCH, 0, epoch, 1, NOON)
        assert await items.intend(BATCH, 0, epoch, "run_1", NOON)
        assert await items.made_thread(BATCH, 0, epoch, "thread_1")
        assert await items.made_run(BATCH, 0, epoch, "up_1")
        (held,) = await items.held(BATCH, epoch)
        assert ("run_1", NOON, 1, "thread_1", "up_1", '{"line": 0}') == (
            held.run_id, held.intended_at, held.attempt, held.made_thread, held.upstream_run_id,
            held.body,
        )  # fmt: skip
        assert await items.settle(BATCH, 0, epoch, ended)

    async with await Ledger.open(location) as ledger:
        (found,) = await ledger.batch_items.results(BATCH)
        assert (1, 0, "ticket-0", item(0).digest) == (
            found.seq, found.index, found.custom_id, found.digest
        )  # fmt: skip
        assert (ItemState.COMPLETED, 200, '{"id": "run_1"}', None, usage(12), NOON + SECOND) == (
            found.state, found.status_code, found.response, found.error, found.usage,
            found.ended_at,
        )  # fmt: skip
        same = await ledger.batch_items.of_run("run_1")
        assert same is not None
        assert 0 == same.index


async def test_every_write_may_be_made_twice(ledger: Ledger) -> None:
    """Whoever missed the answer writes it again: it counts, and tokens are added once."""
    await begun(ledger, 2)
    items = ledger.batch_items
    epoch = await items.take_lane(BATCH, 0, "first")
    assert epoch == await items.take_lane(BATCH, 0, "first")
    await items.claim(BATCH, 0, epoch, 2, NOON)
    writes: list[Write] = [
        Intend(index=0, run_id="run_1", at=NOON, attempt=1),
        MadeThread(index=0, thread_id="thread_1"),
        MadeRun(index=0, upstream_run_id="up_1"),
        Intend(index=0, run_id="run_1", at=NOON, attempt=2, usage=usage(3)),
        MadeRun(index=0, upstream_run_id="up_2"),
        Settle(index=0, outcome=outcome(usage=usage(5))),
    ]
    for each in writes:
        for _ in range(2):
            assert [True] == await items.write(BATCH, epoch, [each])
    back = PutBack(index=1, not_before=None, error_kind="x", tries=1, usage=usage(4))
    for _ in range(2):
        assert [True] == await items.write(BATCH, epoch, [back])

    ended = await one(ledger)
    assert (1, "up_2", 2, 8) == (
        ended.seq, ended.upstream_run_id, ended.attempt, ended.usage.total_tokens
    )  # fmt: skip
    found = await ledger.batches.find(BATCH)
    assert found is not None
    assert 12 == found.tokens_used


async def test_many_writes_at_once_are_as_one_after_another(ledger: Ledger) -> None:
    """In their order, of many items and kinds; what doesn't count holds up no other."""
    await begun(ledger, 3)
    items = ledger.batch_items
    epoch = await items.take_lane(BATCH, 0, "first")
    await items.claim(BATCH, 0, epoch, 2, NOON)

    counted = await items.write(
        BATCH,
        epoch,
        [
            Intend(index=0, run_id="run_0", at=NOON, attempt=1, usage=usage(2)),
            Intend(index=1, run_id="run_1", at=NOON, attempt=1),
            Settle(index=1, outcome=outcome(ItemState.FAILED, error="{}", error_kind="bad")),
            Intend(index=2, run_id="run_2", at=NOON, attempt=1),
            MadeRun(index=1, upstream_run_id="up_1"),
            Settle(index=0, outcome=outcome(usage=usage(3))),
        ],
    )

    assert [True, True, True, False, False, True] == counted
    first, second = await items.results(BATCH)
    assert (1, 1, ItemState.FAILED, "bad", "{}") == (
        first.seq, first.index, first.state, first.error_kind, first.error
    )  # fmt: skip
    assert (2, 0, "run_0", 5) == (
        second.seq, second.index, second.run_id, second.usage.total_tokens
    )  # fmt: skip


async def test_a_new_attempt_forgets_the_upstream_run_before(ledger: Ledger) -> None:
    """So nobody takes it for the new one; the same attempt again keeps it, an older is refused."""
    await begun(ledger, 1)
    items = ledger.batch_items
    epoch = await items.take_lane(BATCH, 0, "first")
    await items.claim(BATCH, 0, epoch, 1, NOON)
    await items.intend(BATCH, 0, epoch, "run_1", NOON)
    await items.made_run(BATCH, 0, epoch, "up_1")

    assert await items.intend(BATCH, 0, epoch, "run_1", NOON + SECOND)
    (held,) = await items.held(BATCH, epoch)
    assert (1, "up_1", NOON) == (held.attempt, held.upstream_run_id, held.intended_at)

    assert await items.intend(BATCH, 0, epoch, "run_1", NOON + SECOND, attempt=2)
    (held,) = await items.held(BATCH, epoch)
    assert (2, None, NOON + SECOND) == (held.attempt, held.upstream_run_id, held.intended_at)
    assert not await items.intend(BATCH, 0, epoch, "run_1", NOON, attempt=1)


async def test_an_item_put_back_comes_again_when_it_may(ledger: Ledger) -> None:
    """To any lane, with what is known of it; the claim says when to ask again."""
    await begun(ledger, 1)
    items = ledger.batch_items
    first = await items.take_lane(BATCH, 0, "first")
    second = await items.take_lane(BATCH, 1, "second")
    await items.claim(BATCH, 0, first, 1, NOON)
    await items.intend(BATCH, 0, first, "run_1", NOON)
    assert await items.put_back(
        BATCH, 0, first, not_before=NOON + SECOND, error_kind="rate_limit", tries=2
    )

    early = await items.claim(BATCH, 1, second, 1, NOON)
    assert ([], NOON + SECOND, None) == (early.items, early.next_at, early.withheld)
    (again,) = (await items.claim(BATCH, 1, second, 1, NOON + SECOND)).items
    assert (1, second, 2, "run_1", NOON) == (
        again.lane, again.epoch, again.tries, again.run_id, again.intended_at
    )  # fmt: skip
    assert not await items.made_run(BATCH, 0, first, "up_1")

    assert await items.put_back(
        BATCH, 0, second, not_before=None, error_kind=None, tries=2, is_void=True
    )
    (void,) = (await items.claim(BATCH, 0, first, 1, NOON)).items
    assert (None, 1, "run_1") == (void.intended_at, void.attempt, void.run_id)


async def test_of_one_thread_one_item_is_under_way(ledger: Ledger) -> None:
    """The first that is unfinished; put back or promoted it still holds up the next one."""
    threads = ["t1", "t1", None, "t2", "t1", "t2"]
    lines = [item(index, thread_id=thread) for index, thread in enumerate(threads)]
    await begun(ledger, lines[:2])
    await ledger.batch_items.add(BATCH, lines[2:])
    items = ledger.batch_items
    epoch = await items.take_lane(BATCH, 0, "first")

    assert [0, 2, 3] == await claimed(ledger, 0, epoch)
    await items.put_back(BATCH, 0, epoch, not_before=NOON + SECOND, error_kind=None, tries=1)
    assert [] == await claimed(ledger, 0, epoch)
    await items.claim(BATCH, 0, epoch, 9, NOON + SECOND)
    await items.intend(BATCH, 0, epoch, "run_0", NOON)
    await items.promote(BATCH, 0, epoch)
    assert [] == await claimed(ledger, 0, epoch)

    assert await items.settle(BATCH, 0, None, outcome(), run_id="run_0")
    assert [1] == await claimed(ledger, 0, epoch)
    await items.settle_many(BATCH, epoch, [(1, outcome()), (3, outcome(ItemState.FAILED))])
    assert [4, 5] == await claimed(ledger, 0, epoch)


async def test_nothing_new_is_given_out_while_something_is_in_the_way(ledger: Ledger) -> None:
    """And the claim says what; what the lane held before is given out all the same."""
    await begun(ledger, 3, deadline=NOON + 2 * SECOND, token_limit=5)
    items, batches = ledger.batch_items, ledger.batches
    epoch = await items.take_lane(BATCH, 0, "first")

    async def told() -> Withheld | None:
        claim = await items.claim(BATCH, 0, epoch, 1, NOON)
        assert claim.items == [] or claim.withheld is None
        return claim.withheld

    assert await told() is None
    await batches.pause(BATCH, "quota", "ann", NOON)
    assert Withheld.PAUSED == await told()
    await batches.resume(BATCH)
    late = await items.claim(BATCH, 0, epoch, 1, NOON + 2 * SECOND)
    assert (Withheld.DEADLINE, []) == (late.withheld, late.items)
    await items.settle(BATCH, 0, epoch, outcome(usage=usage(4)))
    assert await told() is None
    await items.settle(BATCH, 1, epoch, outcome(usage=usage(1)))
    assert Withheld.BUDGET == await told()

    await batches.resume(BATCH)
    await batches.set_status(BATCH, BatchStatus.CANCELLING, NOON)
    assert Withheld.STATUS == await told()


async def test_what_a_lane_held_is_taken_over_though_the_batch_is_paused(ledger: Ledger) -> None:
    """Its upstream runs go on anyway, and somebody must see their ends."""
    await begun(ledger, 3)
    items = ledger.batch_items
    first = await items.take_lane(BATCH, 0, "first")
    await items.claim(BATCH, 0, first, 2, NOON)
    await ledger.batches.pause(BATCH, "quota", "ann", NOON)

    second = await items.take_lane(BATCH, 0, "second")
    claim = await items.claim(BATCH, 0, second, 100, NOON)

    assert [(0, second), (1, second)] == [(each.index, each.epoch) for each in claim.items]
    assert Withheld.PAUSED == claim.withheld
    assert [] == await claimed(ledger, 0, second)


async def test_results_come_in_the_order_of_ends(ledger: Ledger) -> None:
    """By pages that miss none, while others end; and in the order of the input by `ordered`."""
    await begun(ledger, 9)
    items = ledger.batch_items
    epochs = [await items.take_lane(BATCH, lane, f"lane {lane}") for lane in range(3)]
    for lane, epoch in enumerate(epochs):
        await items.claim(BATCH, lane, epoch, 3, NOON)

    async def end(lane: int) -> None:
        for index in (3 * lane + 2, 3 * lane, 3 * lane + 1):
            assert await items.settle(BATCH, index, epochs[lane], outcome(response=str(index)))

    async def read() -> list[Item]:
        found: list[Item] = []
        while len(found) < 9:
            last = found[-1].seq if found else 0
            found += await items.results(BATCH, last or 0, 2)
        return found

    reading = asyncio.create_task(read())
    await asyncio.gather(*(end(lane) for lane in range(3)))
    read_meanwhile = await reading

    assert list(range(1, 10)) == [each.seq for each in read_meanwhile]
    assert list(range(9)) == sorted(each.index for each in read_meanwhile)
    assert [str(each.index) for each in read_meanwhile] == [
        each.response for each in read_meanwhile
    ]
    ordered = [*await items.ordered(BATCH, limit=5), *await items.ordered(BATCH, 4)]
    assert list(range(9)) == [each.index for each in ordered]


@pytest.mark.parametrize(
    ("state", "kind"),
    [(ItemState.EXPIRED, "batch_expired"), (ItemState.CANCELLED, "batch_cancelled")],
)
async def test_what_waits_is_ended_and_what_runs_goes_on(
    ledger: Ledger, state: ItemState, kind: str
) -> None:
    """All of it, also behind others of its thread; where a POST may have been sent: uncertain."""
    lines = [item(index, thread_id="t" if index > 3 else None) for index in range(700)]
    await begun(ledger, lines)
    items = ledger.batch_items
    epoch = await items.take_lane(BATCH, 0, "first")
    await items.claim(BATCH, 0, epoch, 3, NOON)
    for index in (0, 1):
        await items.intend(BATCH, index, epoch, f"run_{index}", NOON)
    await items.made_run(BATCH, 1, epoch, "up_1")
    for index in (0, 1):
        await items.put_back(BATCH, index, epoch, not_before=None, error_kind=None, tries=1)

    assert 699 == await items.fail_waiting(BATCH, state, NOON)
    assert 0 == await items.fail_waiting(BATCH, state, NOON)

    counts = await ledger.batches.counts(BATCH)
    assert (1, 698, 1) == (
        counts.in_flight, counts.by_state[state], counts.by_state[ItemState.UNCERTAIN]
    )  # fmt: skip
    assert {kind: 698, "create_uncertain": 1} == counts.by_error_kind
    assert ItemState.UNCERTAIN == (await one(ledger, 0)).state
    assert await items.unfinished(BATCH)
    with pytest.raises(LedgerRefused, match="state must be expired or cancelled"):
        await items.fail_waiting(BATCH, ItemState.FAILED, NOON)


async def test_what_failed_is_tried_anew(ledger: Ledger) -> None:
    """As a new generation, with a new number in the order of ends; the tokens used stay."""
    await begun(ledger, 4)
    items = ledger.batch_items
    epoch = await items.take_lane(BATCH, 0, "first")
    await items.claim(BATCH, 0, epoch, 3, NOON)
    await items.intend(BATCH, 1, epoch, "run_1", NOON)
    failed = outcome(ItemState.FAILED, error="{}", error_kind="bad", usage=usage(3))
    uncertain = outcome(ItemState.UNCERTAIN)
    ends = [outcome(), failed, uncertain]
    await items.settle_many(BATCH, epoch, list(enumerate(ends)))
    await items.fail_waiting(BATCH, ItemState.EXPIRED, NOON)
    await ledger.batches.set_status(BATCH, BatchStatus.COMPLETED, NOON)

    assert 2 == await items.retry_failed(BATCH, deadline=NOON + SECOND)
    assert 0 == await items.retry_failed(BATCH)

    found = await ledger.batches.find(BATCH)
    assert found is not None
    assert (BatchStatus.IN_PROGRESS, None, NOON + SECOND) == (
        found.status, found.ended_at, found.deadline
    )  # fmt: skip
    # The run of the generation before may come late, and is none of this one's.
    assert not await items.settle(BATCH, 1, None, outcome(), run_id="run_1")
    claim = await items.claim(BATCH, 0, epoch, 9, NOON)
    assert [(1, 2, 0, None, None), (3, 2, 0, None, None)] == [
        (each.index, each.generation, each.attempt, each.run_id, each.error_kind)
        for each in claim.items
    ]
    assert await items.settle(BATCH, 1, epoch, outcome(response="2", usage=usage(4)))
    assert [1, 3, 5] == [each.seq for each in await items.results(BATCH)]
    again = await one(ledger, 1)
    assert ("2", None, 7) == (again.response, again.error, again.usage.total_tokens)


async def test_a_retry_keeps_the_order_of_a_thread(ledger: Ledger) -> None:
    """What is tried anew comes before what follows it there, and not beside what runs."""
    await begun(ledger, [item(index, thread_id="t") for index in range(4)])
    items = ledger.batch_items
    epoch = await items.take_lane(BATCH, 0, "first")
    assert [0] == await claimed(ledger, 0, epoch)
    await items.settle(BATCH, 0, epoch, outcome(ItemState.FAILED))
    assert [1] == await claimed(ledger, 0, epoch)

    assert 1 == await items.retry_failed(BATCH)
    assert [] == await claimed(ledger, 0, epoch)
    await items.settle(BATCH, 1, epoch, outcome(ItemState.FAILED))
    assert 1 == await items.retry_failed(BATCH)
    for index in range(4):
        assert [index] == await claimed(ledger, 0, epoch)
        assert await items.settle(BATCH, index, epoch, outcome())


async def test_a_cancelled_batch_is_not_tried_anew(ledger: Ledger) -> None:
    """Nor one whose items are still being added."""
    await ledger.batches.create(record())
    with pytest.raises(LedgerRefused, match="is validating"):
        await ledger.batch_items.retry_failed(BATCH)
    await ledger.batches.set_status(BATCH, BatchStatus.CANCELLED, NOON)
    with pytest.raises(LedgerRefused, match="is cancelled"):
        await ledger.batch_items.retry_failed(BATCH)


async def test_a_thread_that_expired_as_a_whole_is_tried_in_its_order(ledger: Ledger) -> None:
    """What waited behind another item when it ended, too, and over many pages of a retry."""
    threads = [f"t{index % 2}" for index in range(1_203)]
    await begun(ledger, [item(index, thread_id=each) for index, each in enumerate(threads)])
    items = ledger.batch_items
    epoch = await items.take_lane(BATCH, 0, "first")
    assert [0, 1] == await claimed(ledger, 0, epoch)
    await items.settle(BATCH, 0, epoch, outcome(ItemState.FAILED))
    assert 1_201 == await items.fail_waiting(BATCH, ItemState.EXPIRED, NOON)

    # Its followers have ended while they were behind it.
    assert await items.settle(BATCH, 1, epoch, outcome())

    assert 1_202 == await items.retry_failed(BATCH)

    for expected in ([0, 3], [2, 5], [4, 7]):
        assert expected == await claimed(ledger, 0, epoch)
        ends = [(index, outcome()) for index in expected]
        assert [True, True] == await items.settle_many(BATCH, epoch, ends)
