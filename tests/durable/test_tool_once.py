"""What a tool changes is done once, whatever becomes of the upstream, Temporal, the ledger."""

import asyncio
import sqlite3
import threading
from dataclasses import replace
from typing import Any

import pytest
from temporalio.client import Client

from runlane.tools.context import ToolContext
from runlane.tools.functions import tool
from runlane.tools.registry import Registry
from runlane.tools.toolbox import RegisteredTools
from tests.histories import history, undisturbed
from tests.lab import QUICK, Lab, eventually
from tests.resetting import reset
from tests.simulator_process import SimulatorProcess

EVENTS = 46
"""Of a run with one round that a tool answers which changes something."""
ENDS = {"queued": 0.02, "in_progress": 0.02, "says": "Done."}


class Bank:
    """Tools that pay, and what they paid."""

    def __init__(self) -> None:
        self.paid: list[tuple[str, str]] = []
        """Notes and idempotency keys."""
        self.may_end = threading.Event()
        self.may_end.set()
        self.may_judge = threading.Event()
        self.may_judge.set()

        def judged(_: Any) -> str:
            self.may_judge.wait(60)
            return "auto"

        @tool(policy=judged)
        def refund(order_id: str, note: str, context: ToolContext) -> str:
            """Pay an order back."""
            self.paid.append((note, context.idempotency_key))
            self.may_end.wait(60)
            return f"{order_id} is paid back"

        @tool(policy="auto")
        def write_down(order_id: str, note: str) -> str:
            """Keep a note."""
            return "kept"

        @tool(policy="auto", at_most_once=True, timeout=0.3)
        def charge() -> str:
            """Charge; takes too long."""
            self.paid.append(("charge", ""))
            self.may_end.wait(60)
            return "charged"

        self.tools = RegisteredTools(Registry.of(refund, charge, write_down))

    async def begun(self, count: int = 1) -> None:
        """Wait until so many have been paid."""

        async def paid() -> int:
            return len(self.paid)

        await eventually(paid, lambda n: n >= count)


@pytest.fixture
def lab(client: Client, simulator: SimulatorProcess) -> Lab:
    """A lab that the test serves itself."""
    return Lab(client, simulator)


def refund(note: str, name: str = "refund") -> dict[str, Any]:
    call = {"name": name, "arguments": {"order_id": "A-1", "note": note}}
    return {"queued": 0.02, "in_progress": 0.02, "calls": [call]}


async def test_an_equal_call_is_run_with_a_key_of_its_own(lab: Lab) -> None:
    """The model may want it twice. The ledger has both, and the trail says what was done."""
    bank = Bank()
    await lab.scenario(rounds=[refund("one"), ENDS])
    async with lab.worker(tools=bank.tools):
        # A busy machine takes so long that the upstream would be looked at meanwhile.
        timing = QUICK.model_copy(update={"look_floor": 60.0})
        run = await lab.start(with_tools=True, timing=timing)
        await run.result()
        costs = len(undisturbed(await history(run)))
        await lab.scenario(rounds=[refund("one"), refund("one"), ENDS])
        twice = await lab.start(with_tools=True)
        result = await twice.result()
        intents = await lab.ledger.intents.of_run(twice.id)
        trail = await lab.ledger.audit.read(run.id)

    assert EVENTS == costs
    assert ["submitted"] * 2 == [answer.outcome for answer in result.runlane.answers]
    assert 3 == len({key for _, key in bank.paid})
    assert [(0, "finished"), (1, "finished")] == [(i.key.ordinal, i.state) for i in intents]
    said = " ".join(row.body for row in trail)
    for what in ('"call"', '"classification"', '"begun"', '"finished"'):
        assert what in said


async def test_a_refund_asked_for_with_other_words_waits_for_a_person(lab: Lab) -> None:
    """The upstream run expired before the submit; the model words its note otherwise.

    Another tool with the arguments of the first refund is another call.
    """
    bank = Bank()
    bank.may_end.clear()
    otherwise = [refund("sorry", "write_down"), refund("so sorry"), ENDS]
    await lab.scenario(rounds=[refund("sorry"), ENDS], attempts={"2": otherwise})
    async with lab.worker(tools=bank.tools):
        run = await lab.start(with_tools=True)
        await bank.begun()
        view = await run.view()
        await lab.force(str(view.runlane.upstream_run_id), "expired")
        await run.until(lambda view: view.runlane.parked, seconds=60)
        bank.may_end.set()
        view = await run.until(lambda view: bool(view.runlane.pending))
        await run.cancel()
        await run.result()

    (call,) = view.runlane.pending
    assert ("people", 2) == (call.handled_by, call.attempt)
    assert "with other arguments" in str(call.reason)
    (before,) = call.beside
    assert ("refund", "returned") == (before.name, before.outcome)
    assert '"sorry"' in before.arguments
    assert ["sorry"] == [note for note, _ in bank.paid]


async def test_nothing_is_paid_while_nobody_asks(lab: Lab) -> None:
    """Not begun when the upstream run expired, it runs when another one asks for it."""
    bank = Bank()
    bank.may_judge.clear()
    await lab.scenario(rounds=[refund("sorry"), ENDS])
    async with lab.worker(tools=bank.tools):
        run = await lab.start(with_tools=True)
        view = await run.until(lambda view: view.runlane.rounds == 1)
        await lab.force(str(view.runlane.upstream_run_id), "expired")
        await run.until(lambda view: view.runlane.parked, seconds=60)
        bank.may_judge.set()
        result = await run.result()

    assert ("completed", 2) == (result.run.status, result.runlane.attempt)
    assert 1 == len(bank.paid)
    assert [2] == [answer.attempt for answer in result.runlane.answers]


async def test_a_refund_asked_for_again_has_its_answer(lab: Lab) -> None:
    """In the same words it is the same call: what was paid is the answer."""
    bank = Bank()
    bank.may_end.clear()
    await lab.scenario(rounds=[refund("sorry"), ENDS])
    async with lab.worker(tools=bank.tools):
        run = await lab.start(with_tools=True)
        await bank.begun()
        view = await run.view()
        await lab.force(str(view.runlane.upstream_run_id), "expired")
        await run.until(lambda view: view.runlane.parked, seconds=60)
        bank.may_end.set()
        result = await run.result()

    assert ("completed", 2) == (result.run.status, result.runlane.attempt)
    assert 1 == len(bank.paid)
    assert ["submitted"] == [answer.outcome for answer in result.runlane.answers]


async def test_a_history_that_was_undone_does_not_pay_again(lab: Lab) -> None:
    """After a Reset nobody knows what became of what was at work, so a person must say."""
    bank = Bank()
    bank.may_end.clear()
    await lab.scenario(rounds=[refund("one"), ENDS])
    async with lab.worker(tools=bank.tools):
        run = await lab.start(with_tools=True)
        await bank.begun()
        again = await reset(lab, run)
        view = await again.until(lambda view: bool(view.runlane.pending))
        bank.may_end.set()
        await again.cancel()
        await again.result()

    assert 1 == len(bank.paid)
    assert ("people", "uncertain") == (
        view.runlane.pending[0].handled_by,
        view.runlane.pending[0].state,
    )


async def test_of_what_gave_no_answer_in_time_people_say_what_happened(lab: Lab) -> None:
    """Where it may run once at most; the model would be told that nobody knows."""
    bank = Bank()
    bank.may_end.clear()
    call = {"queued": 0.02, "in_progress": 0.02, "calls": [{"name": "charge", "arguments": {}}]}
    await lab.scenario(rounds=[call])
    async with lab.worker(tools=bank.tools):
        run = await lab.start(with_tools=True)
        view = await run.until(lambda view: bool(view.runlane.pending))
        (listed,) = await lab.ledger.approvals.of_run(run.id)
        bank.may_end.set()
        await run.cancel()
        result = await run.result()

    assert ("waiting", "it gave no answer in time") == (listed.state, listed.reason)
    assert ("uncertain", "it gave no answer in time") == (
        view.runlane.pending[0].state,
        view.runlane.pending[0].reason,
    )
    assert "charge did for the call" in str(result.runlane.uncertain)


async def test_an_attempt_that_was_taken_for_dead_tries_no_more(lab: Lab) -> None:
    """Its worker stood still between two tries, and another one has run the tool meanwhile."""
    tries: list[str] = []
    may_fail = threading.Event()

    @tool(policy="auto", retries=3)
    def refund() -> str:
        """Pay back."""
        tries.append("paid")
        may_fail.wait(60)
        raise ConnectionError

    await lab.scenario(rounds=[{"calls": [{"name": "refund", "arguments": {}}]}, ENDS])
    async with lab.worker(tools=RegisteredTools(Registry.of(refund))):
        run = await lab.start(with_tools=True)
        await run.until(lambda _: bool(tries))
        (began,) = await lab.ledger.intents.of_run(run.id)
        other = replace(began.execution, attempt=2, nonce="of another worker")
        intents, key, call_id = lab.ledger.intents, began.key, began.call_id
        await intents.begin(key, call_id=call_id, execution=other)
        await intents.finish(
            key, call_id=call_id, execution=other, outcome="returned", result="paid"
        )
        may_fail.set()
        result = await run.result()

    assert "completed" == result.run.status
    assert 1 == len(tries)


async def test_a_ledger_that_is_down_delays_a_tool(lab: Lab) -> None:
    """Nothing runs before its intent stands, and what has run is told once its end stands."""
    bank = Bank()
    bank.may_end.clear()
    await lab.scenario(rounds=[refund("one"), ENDS])
    async with lab.worker(tools=bank.tools):
        file = lab.ledger.location.file
        with sqlite3.connect(file, isolation_level=None) as other:
            other.execute("BEGIN EXCLUSIVE")
            run = await lab.start(with_tools=True)
            await asyncio.sleep(1)
            assert [] == bank.paid
            other.execute("COMMIT")
            await bank.begun()
            other.execute("BEGIN EXCLUSIVE")
            bank.may_end.set()
            await asyncio.sleep(1)
            view = await run.view()
            other.execute("COMMIT")
        result = await run.result()
        other.close()

    assert [] == view.runlane.answers
    assert "completed" == result.run.status
    assert 1 == len(bank.paid)
