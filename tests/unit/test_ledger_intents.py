"""Intents: what an execution finds when it is about to run a call, on both kinds of ledger."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from activities import trail
from ledger import Ledger, LedgerRefused, Location, limits
from ledger.chain import Event, Kind
from ledger.contents import digest_of
from ledger.decisions import DecisionRecord
from ledger.errors import ApprovalSpent
from ledger.intent import Begin, Execution, Intent, IntentKey, State

ARGUMENTS = '{"amount":5,"note":"caf\u00e9 \ud83d"}'
KEY = IntentKey(run_id="run_A", tool="refund", arguments_digest=digest_of(ARGUMENTS), ordinal=0)
FIRST = Execution(id="e1", attempt=1, nonce="n1")
SECOND = Execution(id="e1", attempt=2, nonce="n2")
OTHER = Execution(id="e2", attempt=1, nonce="n3")


async def begin(
    ledger: Ledger, execution: Execution, key: IntentKey = KEY, events: tuple[Event, ...] = ()
) -> Begin:
    """Begin, and return what was found."""
    how, _ = await ledger.intents.begin(
        key, call_id="call_1", execution=execution, arguments=ARGUMENTS, events=events
    )
    return how


async def finish(ledger: Ledger, execution: Execution, result: str | None = "paid") -> Intent:
    """Finish the one call of these tests."""
    return await ledger.intents.finish(
        KEY, call_id="call_1", execution=execution, outcome="answered", result=result
    )


async def test_a_call_that_nobody_has_begun(ledger: Ledger) -> None:
    """It stands in the ledger with all that was given."""
    assert Begin.NEW is await begin(ledger, FIRST)

    found = await ledger.intents.find(KEY)
    assert found is not None
    assert (State.BEGUN, FIRST, "call_1", ARGUMENTS) == (
        found.state, found.execution, found.call_id, found.arguments
    )  # fmt: skip
    assert (None, None, None) == (found.outcome, found.result, found.ended_at)


async def test_a_begin_whose_answer_was_lost(ledger: Ledger) -> None:
    """The same attempt is told the same, as often as it asks."""
    assert [Begin.NEW] * 3 == [await begin(ledger, FIRST) for _ in range(3)]
    assert 1 == len(await ledger.intents.of_run("run_A"))


async def test_a_later_attempt_may_have_run_already(ledger: Ledger) -> None:
    """It is told so again when the answer to its own begin was lost."""
    await begin(ledger, FIRST)

    assert [Begin.MINE] * 2 == [await begin(ledger, SECOND) for _ in range(2)]


async def test_another_execution_meets_an_unfinished_call(ledger: Ledger) -> None:
    """Nobody knows whether it ran; it stays with the first."""
    await begin(ledger, FIRST)

    assert Begin.OTHERS is await begin(ledger, OTHER)
    assert Begin.MINE is await begin(ledger, SECOND)


@pytest.mark.parametrize("restored", [replace(FIRST, nonce="x"), replace(SECOND, nonce="x")])
async def test_an_attempt_that_comes_twice(ledger: Ledger, restored: Execution) -> None:
    """Temporal's state was restored from before it: the same ids, and it may have run."""
    await begin(ledger, FIRST)
    await begin(ledger, SECOND)

    assert Begin.OTHERS is await begin(ledger, restored)


@pytest.mark.parametrize("execution", [FIRST, SECOND, OTHER])
async def test_a_finished_call_gives_its_result(ledger: Ledger, execution: Execution) -> None:
    """To whoever asks; nothing is run again."""
    await begin(ledger, FIRST)
    await finish(ledger, FIRST, "ok \ud83d\0")

    how, intent = await ledger.intents.begin(KEY, call_id="call_9", execution=execution)
    assert Begin.FINISHED is how
    assert ("answered", "ok \ud83d\0", digest_of("ok \ud83d\0")) == (
        intent.outcome, intent.result, intent.result_digest
    )  # fmt: skip
    assert "call_1" == intent.call_id


async def test_the_first_result_stands(ledger: Ledger) -> None:
    """A finish whose answer was lost is the same again; another one changes nothing."""
    await begin(ledger, FIRST)
    stands = await finish(ledger, FIRST)

    assert stands == await finish(ledger, FIRST)
    assert stands == await finish(ledger, SECOND, "paid twice")
    assert stands == await finish(ledger, OTHER, None)


async def test_a_stranger_does_not_finish_what_another_has_begun(ledger: Ledger) -> None:
    """It is told what stands, and can see that it isn't its own."""
    await begin(ledger, FIRST)

    assert State.BEGUN is (await finish(ledger, OTHER)).state


async def test_a_ledger_that_forgot_the_beginning(ledger: Ledger) -> None:
    """A backup was restored while the call ran: the result stands all the same."""
    assert State.FINISHED is (await finish(ledger, FIRST)).state
    assert Begin.FINISHED is await begin(ledger, OTHER)


async def test_an_uncertain_call_waits_for_a_person(ledger: Ledger) -> None:
    """For every execution, its own included; a finished one can't become uncertain."""
    assert None is await ledger.intents.uncertain(KEY, reason="heartbeat")
    await begin(ledger, FIRST)
    for _ in range(2):
        stands = await ledger.intents.uncertain(KEY, reason="heartbeat")
        assert stands is not None
        assert (State.UNCERTAIN, "heartbeat") == (stands.state, stands.reason)

    assert {Begin.UNCERTAIN} == {await begin(ledger, who) for who in (FIRST, SECOND, OTHER)}
    await finish(ledger, SECOND)
    stands = await ledger.intents.uncertain(KEY, reason="heartbeat")
    assert stands is not None
    assert State.FINISHED is stands.state


@pytest.mark.parametrize("ran", [True, False])
async def test_a_person_says_what_happened(ledger: Ledger, ran: bool) -> None:
    """It ran: its result stands. It didn't: it may be begun anew. The first word stands."""
    await begin(ledger, FIRST)
    await ledger.intents.uncertain(KEY, reason="heartbeat")
    said = [
        await ledger.intents.settle(
            KEY, by=by, ran=ran, outcome="answered" if ran else None, result="paid" if ran else None
        )
        for by in ("ann", "bob")
    ]

    assert said[0] == said[1]
    assert said[0] is not None
    assert "ann" == said[0].settled_by
    assert (State.FINISHED if ran else State.VOID) is said[0].state
    assert (Begin.FINISHED if ran else Begin.NEW) is await begin(ledger, OTHER)
    assert (Begin.FINISHED if ran else Begin.OTHERS) is await begin(ledger, FIRST)


async def test_only_what_is_uncertain_is_settled(ledger: Ledger) -> None:
    """A person's word on a call that runs right now changes nothing."""
    await begin(ledger, FIRST)
    stands = await ledger.intents.settle(KEY, by="ann", ran=False)

    assert stands is not None
    assert State.BEGUN is stands.state


async def test_an_execution_withdraws_before_it_runs(ledger: Ledger) -> None:
    """Only the attempt that has begun it, and no later one after it, knows that it never ran."""
    await begin(ledger, FIRST)
    for stranger in (SECOND, OTHER):
        stands = await ledger.intents.withdraw(KEY, execution=stranger)
        assert stands is not None
        assert State.BEGUN is stands.state
    stands = await ledger.intents.withdraw(KEY, execution=FIRST)
    assert stands is not None
    assert State.VOID is stands.state

    assert Begin.NEW is await begin(ledger, OTHER)
    again = replace(OTHER, attempt=2, nonce="n4")
    assert Begin.MINE is await begin(ledger, again)
    stands = await ledger.intents.withdraw(KEY, execution=OTHER)
    assert stands is not None
    assert State.BEGUN is stands.state


async def test_the_truth_may_come_late(ledger: Ledger) -> None:
    """A worker that was given up reports its result after all: it stands."""
    await begin(ledger, FIRST)
    await ledger.intents.uncertain(KEY, reason="heartbeat")

    assert (State.FINISHED, "paid") == (
        (stands := await finish(ledger, FIRST)).state,
        stands.result,
    )


async def test_equal_calls_are_told_apart_by_their_ordinal(ledger: Ledger) -> None:
    """And others by run, tool and arguments; a run's are listed as they were begun."""
    keys = [
        KEY,
        replace(KEY, ordinal=1),
        replace(KEY, tool="pay"),
        replace(KEY, run_id="run_B"),
    ]
    assert [Begin.NEW] * 4 == [await begin(ledger, FIRST, key) for key in keys]
    assert keys[:3] == [intent.key for intent in await ledger.intents.of_run("run_A")]


async def test_twenty_executions_at_once(ledger: Ledger) -> None:
    """Exactly one of them runs the call."""
    found = await asyncio.gather(
        *(begin(ledger, Execution(id=f"e{n}", attempt=1, nonce=f"n{n}")) for n in range(20))
    )

    assert [Begin.NEW] + [Begin.OTHERS] * 19 == sorted(found, key=lambda how: how is not Begin.NEW)


async def test_two_ledgers_of_one_database(location: Location) -> None:
    """As two workers have it: one runs, one doesn't."""
    async with await Ledger.open(location) as one, await Ledger.open(location) as two:
        found = await asyncio.gather(begin(one, FIRST), begin(two, OTHER))
    assert {Begin.NEW, Begin.OTHERS} == set(found)


async def test_events_stand_with_the_intent_or_not_at_all(ledger: Ledger) -> None:
    """The trail's row and the intent are one write; a repeated one adds no row."""
    event = Event(key="x", kind=Kind.EXECUTION, at=datetime.now(UTC))
    for _ in range(2):
        await begin(ledger, FIRST, events=(event,))
    assert Begin.OTHERS is await begin(ledger, OTHER, events=(replace(event, key="y"),))
    assert 1 == len(await ledger.audit.read("run_A"))

    other = replace(KEY, ordinal=1)
    with pytest.raises(LedgerRefused):
        await begin(ledger, FIRST, other, events=(replace(event, facts={"changed": True}),))
    assert None is await ledger.intents.find(other)


async def test_an_erased_run_keeps_digests_alone(ledger: Ledger) -> None:
    """Of what stood there, and of what a late writer still brings."""
    await begin(ledger, FIRST)
    assert 1 == await ledger.erase_run("run_A")
    stands = await finish(ledger, FIRST)

    assert (None, None) == (stands.arguments, stands.result)
    assert digest_of("paid") == stands.result_digest
    assert 0 == await ledger.erase_run("run_A")


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"run_id": ""}, "run_id must not be empty"),
        ({"tool": "x" * 256}, "tool must have at most 255 characters, got 256"),
        ({"tool": "a\0b"}, "tool holds a character"),
        ({"arguments_digest": "sha256:x"}, "arguments_digest must be sha256:"),
        ({"arguments_digest": digest_of("{}")}, "arguments have another digest"),
        ({"ordinal": -1}, "ordinal must be at least 0"),
    ],
)
async def test_what_cannot_be_stored_is_named(
    ledger: Ledger, changed: dict[str, object], text: str
) -> None:
    """The field and its limit; on both kinds alike, and nothing is written."""
    with pytest.raises(LedgerRefused, match=text):
        await begin(ledger, FIRST, replace(KEY, **changed))  # type: ignore[arg-type] # one at a time


async def test_an_approval_lets_one_call_run(ledger: Ledger) -> None:
    """The same call again, in another attempt too; no second one, whatever a workflow says."""
    told = {"what": "begun", "tool": KEY.tool, "ordinal": KEY.ordinal, "decisions": ["dec_1"]}
    event = Event(key="begun", kind=Kind.EXECUTION, at=datetime.now(UTC), facts=told)

    async def approved(execution: Execution, key: IntentKey = KEY) -> Begin:
        how, _ = await ledger.intents.begin(
            key, call_id="call_1", execution=execution, decisions=["dec_1"], events=[event]
        )
        return how

    assert [Begin.NEW, Begin.MINE] == [await approved(FIRST), await approved(SECOND)]
    with pytest.raises(ApprovalSpent, match="another call"):
        await approved(OTHER, replace(KEY, ordinal=1))
    assert [KEY] == [each.key for each in await ledger.intents.of_run(KEY.run_id)]


async def test_of_two_workers_one_spends_an_approval(location: Location) -> None:
    """Over connections of their own, at the same moment, for two calls that are alike."""

    async def spend(ledger: Ledger, ordinal: int, decision: str) -> str:
        told = {"tool": KEY.tool, "ordinal": ordinal, "decisions": [decision]}
        who = Execution(id=f"{decision}/{ordinal}", attempt=1, nonce=f"{decision}/{ordinal}")
        key = replace(KEY, run_id=f"run_{decision}", ordinal=ordinal)
        event = Event(key=who.id, kind=Kind.EXECUTION, at=datetime.now(UTC), facts=told)
        try:
            how, _ = await ledger.intents.begin(
                key, call_id=f"call_{ordinal}", execution=who, decisions=[decision], events=[event]
            )
        except ApprovalSpent:
            return "spent"
        return how.value

    async with await Ledger.open(location) as one, await Ledger.open(location) as two:
        for number in range(20):
            decision = f"dec_{number}"
            found = await asyncio.gather(spend(one, 0, decision), spend(two, 1, decision))
            assert ["new", "spent"] == sorted(found)
            assert 1 == len(await one.intents.of_run(f"run_{decision}"))


async def test_a_revoked_approval_lets_nothing_run(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the order in which the trail has them: the clocks of two workers may differ.

    Where a history was undone, the call may be approved anew; what was revoked stays so.
    """
    run_id = KEY.run_id
    clock = datetime.now(UTC)

    async def say(kind: str, decision: str, slow: timedelta) -> None:
        monkeypatch.setattr(limits, "now", lambda: clock - slow)
        lasts = kind == "approve"
        record = DecisionRecord(
            id=decision, run_id=run_id, call_id="call_1", kind=kind, by="ann", at=clock,
            for_rest_of_run=lasts, key_id="key", signature="c2ln",
        )  # fmt: skip
        event = trail.decision(
            decision_id=decision, call_id="call_1", kind=kind, by="ann", at=clock,
            tool_schema=None, arguments_digest=None, facts={"for_rest_of_run": lasts or None},
        )  # fmt: skip
        await ledger.decisions.record(record, events=[event])

    async def may_run(decision: str, ordinal: int) -> bool:
        try:
            await ledger.decisions.check_unrevoked([decision])
            await ledger.intents.begin(
                replace(KEY, ordinal=ordinal), call_id="call_2", execution=FIRST,
                decisions=[decision],
            )  # fmt: skip
        except ApprovalSpent:
            return False
        return True

    await say("approve", "dec_1", timedelta(0))
    assert await may_run("dec_1", 0)
    await say("revoke", "dec_2", timedelta(hours=1))
    assert not await may_run("dec_1", 1)
    await say("approve", "dec_3", timedelta(hours=2))
    assert [False, True] == [await may_run(each, 1) for each in ("dec_1", "dec_3")]
