"""A run with tools and people, its ledger a real PostgreSQL."""

import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from temporalio.client import Client

from activities.decisions import PERSON_ANSWERED
from ledger import Ledger, Location
from ledger.chain import Kind
from ledger.signing import Signer
from ledger.verifying import verify
from runlane.ledger_access import KeySealing
from runlane.tools.functions import tool
from runlane.tools.registry import Registry
from runlane.tools.toolbox import RegisteredTools
from tests.clerk import Clerk, counted, send, waiting
from tests.lab import Lab, eventually
from tests.resetting import reset
from tests.simulator_process import SimulatorProcess
from tests.till import submitted


class PostgresLab(Lab):
    """A lab whose ledger is a database."""

    def __init__(self, client: Client, simulator: SimulatorProcess, location: Location) -> None:
        super().__init__(client, simulator)
        self._location = location

    @asynccontextmanager
    async def open_ledger(self) -> AsyncIterator[Ledger]:
        """Open it; the first who does so makes its tables."""
        async with await Ledger.open(self._location, KeySealing(())) as self.ledger:
            yield self.ledger


@pytest.fixture
def lab(client: Client, simulator: SimulatorProcess, postgres_location: Location) -> Lab:
    return PostgresLab(client, simulator, postgres_location)


class Shop:
    """Tools that need nobody, a person, and one that may run once at most and hangs."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.may_end = threading.Event()

        @tool(policy="auto", read_only=True)
        def look_up(order_id: str) -> str:
            """Look an order up."""
            self.did.append("look_up")
            return f"{order_id} has shipped"

        @tool(policy="approve")
        def refund(order_id: str, amount: int) -> str:
            """Pay an order back."""
            self.did.append(f"refund {amount}")
            return f"{amount} paid for {order_id}"

        @tool(policy="auto", at_most_once=True)
        def charge(order_id: str) -> str:
            """Charge for an order."""
            self.did.append("charge")
            self.may_end.wait(60)
            return f"{order_id} is charged"

        self.tools = RegisteredTools(Registry.of(look_up, refund, charge))

    async def has_done(self, what: str) -> None:
        """Wait until a tool has begun."""

        async def done() -> bool:
            return what in self.did

        await eventually(done, bool)


def asked(name: str, **arguments: object) -> dict[str, object]:
    """Return a call that the upstream asks for."""
    return {"name": name, "arguments": {"order_id": "A-1", **arguments}}


def told(bodies: list[dict[str, Any]], kind: Kind, fact: str) -> list[Any]:
    """Return what the rows of a kind say."""
    return [body["facts"].get(fact) for body in bodies if body["kind"] == kind]


async def test_what_tools_and_people_did_stands_and_is_verified(lab: Lab) -> None:
    """A forgery counts for nothing, and an intent that another execution left is met again.

    The history is undone while a tool runs that may run once at most: a person says that it ran.
    """
    shop, clerk = Shop(), Clerk()
    rounds = [
        {"calls": [asked("look_up"), asked("refund", amount=5)]},
        {"calls": [asked("charge")]},
    ]
    await lab.scenario(rounds=[*rounds, {"says": "Done."}])
    async with lab.worker(tools=shop.tools, verifier=clerk.verifier):
        run = await lab.start(with_tools=True)
        call = await waiting(run)
        await run.until(lambda view: bool(view.runlane.answers))
        forged = Clerk().made("approve", run, call, "eve")
        assert "recorded" == await send(run, forged)
        assert ["refused"] == [each.state for each in (await counted(run)).runlane.decisions]
        edited = {"arguments": '{"amount":4,"order_id":"A-1"}', "note": "One was eaten."}
        assert "recorded" == await clerk.decide("approve", run, "ada", **edited)
        await shop.has_done("charge")

        run = await reset(lab, run)
        left = await waiting(run)
        assert "uncertain" == left.state
        assert "recorded" == await clerk.decide(
            "answer", run, "bob", output="charged, says the bank"
        )
        result = await run.result()

        intents = await lab.ledger.intents.of_run(run.id)
        approvals = await lab.ledger.approvals.of_run(run.id)
        decisions = await lab.ledger.decisions.of_run(run.id)
        bodies = [json.loads(row.body) for row in await lab.ledger.audit.read(run.id)]
        lines: list[str] = []
        signer = Signer.generate()
        await lab.ledger.export(lines.append, signer, run_id=run.id)
        # Not before: the execution that was undone writes down its end.
        shop.may_end.set()

    assert "completed" == result.run.status
    assert ["look_up", "refund 4", "charge"] == shop.did
    assert ["A-1 has shipped", "4 paid for A-1", "charged, says the bank"] == await submitted(lab)
    assert [
        ("refund", "finished", "returned", "4 paid for A-1", None),
        ("charge", "finished", PERSON_ANSWERED, "charged, says the bank", "bob"),
    ] == [
        (each.key.tool, each.state, each.outcome, each.result, each.settled_by) for each in intents
    ]
    assert [("refund", "decided", "approve", "ada"), ("charge", "decided", "answer", "bob")] == [
        (each.tool, each.state, each.outcome, each.decided_by) for each in approvals
    ]
    assert [("approve", "ada", edited["note"]), ("answer", "bob", None)] == [
        (each.kind, each.by, each.note) for each in decisions
    ]
    assert ["signature", None, None] == told(bodies, Kind.DECISION, "refused")
    assert ["finished", "begun", "finished", "begun", "uncertain"] == told(
        bodies, Kind.EXECUTION, "what"
    )
    verdict = verify(lines, signer.public)
    assert (None, len(bodies)) == (verdict.problem, verdict.rows)
