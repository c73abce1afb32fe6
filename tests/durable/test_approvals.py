"""`client.approvals`: what waits for people, listed, shown and decided from Python."""

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest
from pydantic import Field
from temporalio.client import Client

from ledger.approval import Approval, ApprovalKey
from ledger.signing import Signer
from runlane import Runlane
from runlane.decisions import keys, signing
from runlane.errors import ApprovalNotFound, DecisionRefused, InvalidRequest, NoWorker
from runlane.settings import Settings
from runlane.tools.functions import tool
from runlane.tools.registry import Registry
from runlane.tools.toolbox import RegisteredTools
from runlane.waiting_calls import WaitingCall
from tests.lab import Lab, eventually
from tests.simulator_process import SimulatorProcess

DIGEST = "sha256:" + "0" * 64


class Till:
    """Tools that people must let run, and what they did."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.may_end = threading.Event()
        self.may_end.set()

        @tool(policy=lambda _: ("approve", "over 100"))
        def refund(order_id: str, amount: Annotated[int, Field(le=500)]) -> str:
            """Pay an order back."""
            self.did.append(f"refund {amount}")
            assert self.may_end.wait(60)
            return "paid"

        @tool(policy="approve", groups=["desk"], approvals=2, deadline="2h")
        async def pay(iban: str) -> str:
            """Pay an invoice."""
            self.did.append(f"pay {iban}")
            return "paid"

        self.registry = Registry.of(refund, pay)


class Counter:
    """A lab with workers, and a client beside it that has the key."""

    def __init__(self, lab: Lab, client: Runlane, till: Till) -> None:
        self.lab = lab
        self.client = client
        self.till = till

    async def start(self, *calls: dict[str, Any], then: Sequence[dict[str, Any]] = ()) -> str:
        """Start a run that asks for these calls, then for others one by one; return its id."""
        later = [{"calls": [call]} for call in then]
        await self.lab.scenario(rounds=[{"calls": list(calls)}, *later, {"says": "Done."}])
        run = await self.client.runs.create(
            self.lab.thread_id, assistant_id=self.lab.assistant_id, with_tools=self.till.registry
        )
        return run.id

    async def waiting(self, count: int = 1) -> list[WaitingCall]:
        """Wait until so many calls are listed."""

        async def listed() -> list[WaitingCall]:
            return list(await self.client.approvals.list())

        return await eventually(listed, lambda found: len(found) == count)


@asynccontextmanager
async def counter(
    client: Client, simulator: SimulatorProcess, *, verifies: bool = True
) -> AsyncIterator[Counter]:
    """Serve a lab whose workers know this client's key, or another one."""
    lab, till = Lab(client, simulator), Till()
    async with lab.open_ledger() as ledger:
        data_dir = ledger.location.file.parent
    keys.make(data_dir)
    settings = Settings(task_queue=lab.task_queue, data_dir=data_dir, person="ann")
    other = signing.Signatures([Signer.generate().public])
    verifier = keys.verifier(settings, data_dir) if verifies else other
    async with lab.worker(tools=RegisteredTools(till.registry), verifier=verifier):
        yield Counter(lab, Runlane(client, settings), till)


REFUND = {"name": "refund", "arguments": {"order_id": "A-1", "amount": 250}}
PAY = {"name": "pay", "arguments": {"iban": "DE1"}}


async def test_a_call_is_listed_shown_edited_and_approved(
    client: Client, simulator: SimulatorProcess
) -> None:
    """With all that decides it; it runs with what the person wrote, once; and is listed no more."""
    async with counter(client, simulator) as at:
        run_id = await at.start(REFUND)
        [listed] = await at.waiting()
        call_id = listed.call.tool_call_id
        shown = await at.client.approvals.retrieve(call_id)
        assert [] == await at.client.approvals.list(tool="pay")
        assert [] == await at.client.approvals.list(older_than=timedelta(hours=1))

        for wrong, field in (
            ({"order_id": "A-1", "amount": 501}, "amount: must fit maximum 500"),
            ({"order_id": "A-1", "amount": 1, "x": 1}, "x: there is no such parameter"),
            ("[]", "one JSON object"),
        ):
            with pytest.raises(InvalidRequest, match=field) as caught:
                await at.client.approvals.approve(call_id, arguments=wrong)
            assert "arguments" == caught.value.param
        assert [] == at.till.did

        decided = await at.client.approvals.approve(
            call_id, arguments={"order_id": "A-1", "amount": 100}, note="half"
        )
        run = await at.client.runs.poll(run_id, timeout=60)
        with pytest.raises(DecisionRefused, match="was approved by ann") as refused:
            await at.client.approvals.reject(call_id, reason="no", by="bob", run_id=run_id)
        left = await at.client.approvals.list()

    assert (run_id, "refund", "over 100") == (listed.run_id, listed.call.name, listed.call.reason)
    assert '{"amount":250,"order_id":"A-1"}' == listed.call.arguments
    assert listed.call.arguments_digest == shown.call.arguments_digest
    assert ("counted", "ann") == (decided.state, decided.decision.by)
    assert ["refund 100"] == at.till.did
    assert "completed" == run.status
    assert "already_decided" == refused.value.status
    assert [] == left


async def test_two_of_a_group_must_approve(client: Client, simulator: SimulatorProcess) -> None:
    """Who isn't asked, who asked for the run, who has said it already is refused; each is told."""
    async with counter(client, simulator) as at:
        run_id = await at.start(PAY)
        [listed] = await at.waiting()
        call_id, approvals = listed.call.tool_call_id, at.client.approvals
        desk = ["desk"]
        assert [listed] == list(await approvals.list(group="desk"))

        for by, groups, told in (
            ("bob", [], "none of those who may decide now: the group desk"),
            ("ann", desk, "ann asked for this run"),
        ):
            with pytest.raises(DecisionRefused, match=told) as refused:
                await approvals.approve(call_id, by=by, groups=groups)
            assert "not_allowed" == refused.value.status
        await approvals.claim(call_id, by="bob", groups=desk)
        with pytest.raises(DecisionRefused, match="bob looks after the call") as refused:
            await approvals.approve(call_id, by="cid", groups=desk)
        assert "claimed" == refused.value.status
        await approvals.release(call_id, by="bob", groups=desk)
        first = await approvals.approve(call_id, by="bob", groups=desk)
        assert [] == at.till.did
        second = await approvals.approve(call_id, by="cid", groups=desk)
        run = await at.client.runs.poll(run_id, timeout=60)

    assert first.call is not None
    assert (1, 2) == (first.call.approvals.have, first.call.approvals.need)  # type: ignore[union-attr]  # people decide it
    assert listed.call.deadline_at is not None
    assert "counted" == second.state
    assert ["pay DE1"] == at.till.did
    assert "completed" == run.status


async def test_the_rest_of_a_run_is_approved_and_taken_back(
    client: Client, simulator: SimulatorProcess
) -> None:
    """A revoked approval lets nothing more run; what it has let run goes on to its end."""
    rounds = [{**REFUND, "arguments": {"order_id": "A-1", "amount": n}} for n in (1, 2)]
    async with counter(client, simulator) as at:
        run_id = await at.start(*rounds[:1], then=rounds[1:])
        [first] = await at.waiting()
        given = first.call.tool_call_id
        # The second isn't asked for before the first has ended.
        at.till.may_end.clear()
        await at.client.approvals.approve(given, for_rest_of_run=True)
        revoked = await at.client.approvals.revoke(given)
        at.till.may_end.set()
        [second] = await at.waiting()
        with pytest.raises(ApprovalNotFound, match="Nothing was approved for the rest"):
            await at.client.approvals.revoke(second.call.tool_call_id)
        await at.client.approvals.answer(second.call.tool_call_id, output="paid by hand")
        done = await at.client.runs.poll(run_id, timeout=60)

    assert given != second.call.tool_call_id
    assert "counted" == revoked.state
    assert ["refund 1"] == at.till.did
    assert "completed" == done.status


async def test_a_worker_that_knows_another_key_lets_nothing_count(
    client: Client, simulator: SimulatorProcess
) -> None:
    """The person is told so at once; and without a key here, nothing is sent."""
    async with counter(client, simulator, verifies=False) as at:
        run_id = await at.start(REFUND)
        [listed] = await at.waiting()
        call_id = listed.call.tool_call_id
        with pytest.raises(DecisionRefused, match="a key that the worker doesn't know"):
            await at.client.approvals.approve(call_id)
        keys_dir = at.lab.ledger.location.file.parent
        (keys_dir / keys.FILE).rename(keys_dir / "elsewhere")
        with pytest.raises(InvalidRequest, match="no key to sign decisions with") as caught:
            await at.client.approvals.approve(call_id)
        assert "no_decision_key" == caught.value.code
        (keys_dir / "elsewhere").rename(keys_dir / keys.FILE)

        assert [] == at.till.did
        await at.client.runs.cancel(run_id)


async def test_nobody_decides_what_no_worker_shows(
    client: Client, simulator: SimulatorProcess
) -> None:
    """A decision is made on what the run knows; nothing is sent before that is read."""
    lab = Lab(client, simulator)
    async with lab.open_ledger() as ledger:
        data_dir = ledger.location.file.parent
    keys.make(data_dir)
    alone = Runlane(client, Settings(task_queue=lab.task_queue, data_dir=data_dir))
    run = await lab.start(with_tools=True)

    with pytest.raises(NoWorker, match=f"No worker on queue {lab.task_queue}"):
        await alone.approvals.approve("call_1", run_id=run.id)
    await run.handle.terminate()


async def test_a_call_id_that_several_runs_have_needs_the_run(
    client: Client, simulator: SimulatorProcess
) -> None:
    """Upstreams number calls as they like; nobody decides another one than was meant."""
    lab = Lab(client, simulator)
    async with lab.open_ledger() as ledger:
        for run_id in ("run_1", "run_2"):
            key = ApprovalKey(run_id=run_id, attempt=1, round=1, call_id="call_0")
            since = datetime.now(UTC)
            row = Approval(key=key, tool="refund", arguments_digest=DIGEST, since=since)
            await ledger.approvals.record(run_id, [row])
        approvals = Runlane(client, Settings(data_dir=ledger.location.file.parent)).approvals

        with pytest.raises(InvalidRequest, match="run_1, run_2") as caught:
            await approvals.retrieve("call_0")
        assert ("ambiguous_call", "run_id") == (caught.value.code, caught.value.param)
        with pytest.raises(ApprovalNotFound, match="No call call_9"):
            await approvals.retrieve("call_9")
