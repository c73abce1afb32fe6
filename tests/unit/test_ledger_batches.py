"""Batches in the ledger, on SQLite and PostgreSQL: named, steered, counted."""

import asyncio
import json
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from activities import trail
from ledger import BatchNotKnown, BatchTaken, Ledger, LedgerRefused, Location
from ledger.batch_item import ItemState, Withheld
from ledger.batch_record import BatchStatus, batch_id
from ledger.contents import digest_of
from ledger.stops import TRAIL
from tests.lines import BATCH, NOON, begun, outcome, record, usage

LATER = NOON + timedelta(hours=1)


def test_an_id_is_the_same_for_ever() -> None:
    """It stands in run ids and stamps, so no release may change it."""
    assert "batch_jtimxmz3ek5e2gop2u3obqwx" == batch_id("ann", "tickets", 2)
    assert 3 == len({batch_id("", "a"), batch_id("a", ""), batch_id("", "a", 2)})


async def test_a_batch_is_found_by_id_and_name(location: Location) -> None:
    """With all that was said of it, in another process too; of a name it is the latest."""
    wanted = record(
        owner="ann", options={"window": 50, "text": "süß"}, deadline=LATER, token_limit=9
    )
    async with await Ledger.open(location) as ledger:
        assert wanted == await ledger.batches.create(wanted)
        again = record(owner="ann", generation=2)
        await ledger.batches.create(again)

    async with await Ledger.open(location) as ledger:
        assert wanted == await ledger.batches.find(wanted.id)
        assert wanted == await ledger.batches.find(wanted.id, owner="ann")
        assert await ledger.batches.find(wanted.id, owner="") is None
        assert again == await ledger.batches.by_name("ann", "tickets")
        assert await ledger.batches.by_name("", "tickets") is None


async def test_a_name_and_its_input_are_one_batch(ledger: Ledger) -> None:
    """The one that stands comes back, side by side too; another input is refused by both ids."""
    first = record()
    tries = [replace(first, options={"try": number}) for number in range(4)]
    found = await asyncio.gather(*(ledger.batches.create(each) for each in tries))

    assert 1 == len({json.dumps(dict(each.options)) for each in found})
    other = digest_of("another input")
    with pytest.raises(BatchTaken, match=BATCH):
        await ledger.batches.create(record(input_digest=other))
    with pytest.raises(BatchTaken, match=BATCH):
        await ledger.batches.create(record(input_digest=other, generation=2))
    anns = record(input_digest=other, owner="ann")
    assert anns == await ledger.batches.create(anns)


async def test_two_that_race_for_a_name_with_other_inputs(ledger: Ledger) -> None:
    """One of them has it."""
    tries = [record(input_digest=digest_of(str(number))) for number in range(4)]
    found = await asyncio.gather(
        *(ledger.batches.create(each) for each in tries), return_exceptions=True
    )

    assert 3 == sum(isinstance(each, BatchTaken) for each in found)


async def test_batches_are_listed_newest_first(ledger: Ledger) -> None:
    """By pages, everybody's or one owner's."""
    made = [
        await ledger.batches.create(
            record(name=f"b{number}", owner="ann" if number % 2 else "", created_at=at)
        )
        for number, at in enumerate([NOON, NOON, LATER, LATER])
    ]
    newest = sorted(made, key=lambda each: (each.created_at, each.id), reverse=True)

    page = list(await ledger.batches.list(limit=3))
    rest = list(await ledger.batches.list(limit=3, after=page[-1].id))
    assert newest == page + rest
    anns = [each for each in newest if each.owner == "ann"]
    assert anns == list(await ledger.batches.list("ann"))
    with pytest.raises(BatchNotKnown):
        await ledger.batches.list("", after=anns[0].id)


async def test_an_end_is_written_only_when_nothing_is_unfinished(ledger: Ledger) -> None:
    """So none that looked too early ends a batch; and an end stands."""
    await begun(ledger, 1)
    early = await ledger.batches.set_status(BATCH, BatchStatus.COMPLETED, LATER)
    assert (BatchStatus.IN_PROGRESS, NOON, None) == (
        early.status, early.started_at, early.ended_at
    )  # fmt: skip
    await ledger.batch_items.fail_waiting(BATCH, ItemState.EXPIRED, LATER)

    ended = await ledger.batches.set_status(BATCH, BatchStatus.EXPIRED, LATER)
    again = await ledger.batches.set_status(BATCH, BatchStatus.IN_PROGRESS, LATER)

    assert (BatchStatus.EXPIRED, LATER) == (ended.status, ended.ended_at)
    assert ended == again == await ledger.batches.pause(BATCH, "late", "ann", LATER)


async def test_after_cancelling_only_an_end_counts(ledger: Ledger) -> None:
    """A look that began before the cancel doesn't take it back."""
    await begun(ledger, 1)
    await ledger.batches.set_status(BATCH, BatchStatus.CANCELLING, NOON)
    back = await ledger.batches.set_status(BATCH, BatchStatus.IN_PROGRESS, NOON)
    assert BatchStatus.CANCELLING == back.status

    await ledger.batch_items.fail_waiting(BATCH, ItemState.CANCELLED, NOON)
    ended = await ledger.batches.set_status(BATCH, BatchStatus.CANCELLED, NOON)
    assert BatchStatus.CANCELLED == ended.status


async def test_a_pause_stands_until_it_is_resumed(ledger: Ledger) -> None:
    """The first one, with who and why; the trail has each change once, and no repetition."""
    await begun(ledger)

    def event(what: str) -> Any:
        return trail.control(what=what, scope=f"batch {BATCH}", by="ann", reason=None, at=NOON)

    paused = await ledger.batches.pause(BATCH, "quota", "ann", NOON, [event("pause")])
    second = await ledger.batches.pause(BATCH, "other", "bob", LATER, [event("pause")])
    assert ("quota", "ann", NOON) == (paused.paused_reason, paused.paused_by, paused.paused_at)
    assert paused == second

    resumed = await ledger.batches.resume(BATCH, [event("resume")])
    assert resumed == await ledger.batches.resume(BATCH, [event("resume")])
    assert (None, None, None) == (resumed.paused_reason, resumed.paused_by, resumed.paused_at)
    assert ["pause", "resume"] == [
        json.loads(row.body)["facts"]["what"] for row in await ledger.audit.read(TRAIL)
    ]


async def test_counts_tell_where_items_stand_and_what_they_used(ledger: Ledger) -> None:
    """All states, the kinds of errors of what has ended, and tokens of tries that led nowhere."""
    await begun(ledger, 6)
    items = ledger.batch_items
    epoch = await items.take_lane(BATCH, 0, "first")
    await items.claim(BATCH, 0, epoch, 5, NOON)
    ends = [outcome(usage=usage(10)), outcome(ItemState.FAILED, error_kind="server_error")]
    assert [True, True] == await items.settle_many(BATCH, epoch, list(enumerate(ends)))
    assert await items.promote(BATCH, 2, epoch)
    assert await items.put_back(
        BATCH, 3, epoch, not_before=None, error_kind="rate_limit", tries=1, usage=usage(7)
    )

    counts = await ledger.batches.counts(BATCH)

    standing = {state: count for state, count in counts.by_state.items() if count}
    assert standing == {
        ItemState.COMPLETED: 1, ItemState.FAILED: 1, ItemState.PROMOTED: 1,
        ItemState.WAITING: 2, ItemState.BEGUN: 1,
    }  # fmt: skip
    assert {"server_error": 1} == counts.by_error_kind
    assert (2, 15, 17) == (
        counts.usage.prompt_tokens, counts.usage.completion_tokens, counts.usage.total_tokens
    )  # fmt: skip
    assert (6, 1, 1, 4) == (
        counts.total, counts.in_flight, counts.promoted, counts.unfinished
    )  # fmt: skip
    found = await ledger.batches.find(BATCH)
    assert found is not None
    assert 17 == found.tokens_used
    assert 0 == (await ledger.batches.counts(batch_id("", "none"))).total


async def test_a_budget_may_be_changed(ledger: Ledger) -> None:
    """To more and to less, each of the two; a pause is left as it is."""
    await begun(ledger, token_limit=5, options={"prices": "2.50,10"})
    await ledger.batches.pause(BATCH, "budget", "ann", NOON)

    for limit in (9, 3):
        changed = await ledger.batches.set_limits(BATCH, tokens=limit)
        assert (limit, None, NOON) == (changed.token_limit, changed.cost_limit, changed.paused_at)
    exact = Decimal("0.100000000001")
    assert exact == (await ledger.batches.set_limits(BATCH, cost=exact)).cost_limit
    found = await ledger.batches.find(BATCH)
    assert found is not None
    assert (3, exact, NOON) == (found.token_limit, found.cost_limit, found.paused_at)
    with pytest.raises(LedgerRefused, match="token_limit must be at least 1"):
        await ledger.batches.set_limits(BATCH, tokens=0)
    with pytest.raises(LedgerRefused, match="cost_limit must be above 0"):
        await ledger.batches.set_limits(BATCH, cost=Decimal(0))


async def test_a_budget_of_money_ends_what_is_given_out(ledger: Ledger) -> None:
    """To the last digit, by the tokens that were read and those that were written: 1 token read at
    2.50 a million and 16 written at 10 cost 0.0001625.
    """
    limit = Decimal("0.0001625")
    await begun(ledger, 3, options={"prices": "2.50,10"}, cost_limit=limit)
    epoch = await ledger.batch_items.take_lane(BATCH, 0, "a")
    claims = []
    for index in range(2):
        claims.append(await ledger.batch_items.claim(BATCH, 0, epoch, 1, NOON))
        ended = outcome(usage=usage(17 if index == 0 else 2))
        await ledger.batch_items.settle(BATCH, index, epoch, ended)
    found = await ledger.batches.find(BATCH)
    raised = await ledger.batches.set_limits(BATCH, cost=limit + Decimal("0.000000000001"))
    more = await ledger.batch_items.claim(BATCH, 0, epoch, 1, NOON)

    assert found is not None
    assert (limit, True) == (found.cost, found.is_spent)
    assert [(1, None), (0, Withheld.BUDGET)] == [(len(c.items), c.withheld) for c in claims]
    assert not raised.is_spent
    assert [1] == [each.index for each in more.items]


async def test_a_pause_for_a_budget_needs_one_that_is_used_up(ledger: Ledger) -> None:
    """It may have been raised since whoever pauses has looked."""
    await begun(ledger, token_limit=5)
    left = await ledger.batches.pause_spent(BATCH, "budget", "runlane", NOON)
    epoch = await ledger.batch_items.take_lane(BATCH, 0, "a")
    await ledger.batch_items.claim(BATCH, 0, epoch, 1, NOON)
    await ledger.batch_items.settle(BATCH, 0, epoch, outcome(usage=usage(5)))
    spent = await ledger.batches.pause_spent(BATCH, "budget", "runlane", NOON)

    assert (None, NOON) == (left.paused_at, spent.paused_at)


async def test_a_hold_stands_as_long_as_the_longest(ledger: Ledger) -> None:
    """Whoever was told a shorter one doesn't end it."""
    await begun(ledger)
    for until in (NOON, LATER, NOON):
        await ledger.batches.hold(BATCH, until)
    found = await ledger.batches.find(BATCH)

    assert found is not None
    assert LATER == found.held_until


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": ""}, "name"),
        ({"owner": "a\0b"}, "owner"),
        ({"generation": 0}, "generation"),
        ({"input_digest": "x"}, "input_digest"),
        ({"total": -1}, "total"),
        ({"token_limit": 0}, "token_limit"),
        ({"cost_limit": Decimal(1)}, "cost_limit"),
        ({"cost_limit": Decimal(0), "options": {"prices": "1,1"}}, "cost_limit"),
        ({"options": {"prices": "1"}}, "prices"),
        ({"deadline": datetime(2026, 1, 1)}, "deadline"),  # noqa: DTZ001 - that is the mistake
    ],
)
async def test_what_can_not_be_stored_is_refused(
    ledger: Ledger, fields: dict[str, Any], field: str
) -> None:
    """By the name of the field, and nothing is written."""
    with pytest.raises(LedgerRefused, match=f"^{field} "):
        await ledger.batches.create(record(**fields))

    assert [] == await ledger.batches.list()


async def test_a_batch_that_is_not_there(ledger: Ledger) -> None:
    """Is told by its id."""
    for call in (
        ledger.batches.set_status(BATCH, BatchStatus.FAILED, NOON),
        ledger.batches.pause(BATCH, "why", "ann", NOON),
        ledger.batches.resume(BATCH),
        ledger.batches.set_limits(BATCH, tokens=1),
        ledger.batch_items.take_lane(BATCH, 0, "x"),
        ledger.batch_items.retry_failed(BATCH),
    ):
        with pytest.raises(BatchNotKnown, match=BATCH):
            await call
