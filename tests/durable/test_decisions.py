"""Calls that wait for people: decided over the real update, verified, and carried out."""

import contextlib
import json
import sqlite3

import pytest
from temporalio.client import Client

from ledger.approval import ApprovalQuery
from runlane import Runlane
from runlane.settings import Settings
from tests.clerk import Clerk, counted, receipt, send, undecided, waiting
from tests.histories import history, kinds, undisturbed
from tests.lab import QUICK, Lab, eventually
from tests.restless import Noise
from tests.simulator_process import SimulatorProcess
from tests.till import Till, refund, started, submitted
from workflows.contract import RunView

EVENTS = 66
"""Of a run with one round: one tool that needs nobody, and one that one person approves."""


@pytest.fixture
def lab(client: Client, simulator: SimulatorProcess) -> Lab:
    """A lab that the test serves itself."""
    return Lab(client, simulator)


@pytest.fixture
def clerk() -> Clerk:
    return Clerk()


async def test_an_approved_call_runs_once(lab: Lab, clerk: Clerk) -> None:
    """It waits, shown to people; then it runs, and its output goes up with the others'.

    The events of a round with one tool that needs nobody and one that is approved are a budget.
    """
    till = Till()
    async with lab.worker(tools=till.tools, verifier=clerk.verifier):
        look_up = {"name": "look_up", "arguments": {"order_id": "A-1"}}
        # On a busy machine the upstream would be looked at meanwhile.
        timing = QUICK.model_copy(update={"look_floor": 60.0})
        run = await started(lab, look_up, refund(), timing=timing)
        call = await waiting(run)
        view = await run.until_status("requires_action")
        assert view.run.required_action is not None
        assert view.run.tool_calls == []
        assert (call.state, call.approvals and call.approvals.need) == ("waiting", 1)
        (listed,) = await eventually(lambda: waiting_runs(lab), lambda found: len(found) == 1)
        assert listed.run.tool_calls == []
        assert [each.handled_by for each in listed.runlane.pending] == ["people"]
        # Two things that come at once share a task of the workflow, or have one each.
        await run.until(lambda view: len(view.runlane.answers) == 1)
        assert till.paid == []

        approval = clerk.made("approve", run, call, "ada", note="Fine.")
        assert await send(run, approval) == "recorded"
        result = await run.result()

    assert result.run.status == "completed"
    assert till.paid == [("A-1", 5)]
    assert sorted(await submitted(lab)) == ["5 paid for A-1", "A-1 has shipped"]
    (decision,) = result.runlane.decisions
    assert (decision.state, decision.by, decision.note) == ("counted", "ada", "Fine.")
    async with lab.open_ledger() as ledger:
        found = await ledger.decisions.find(approval.id)
        rows = [json.loads(row.body) for row in await ledger.audit.read(run.id)]
    assert found is not None
    assert (found.by, found.signature) == ("ada", approval.signature)
    (row,) = [row for row in rows if row["kind"] == "decision"]
    assert row["facts"]["decision"] == approval.id
    events = undisturbed(await history(run))
    assert len(events) <= EVENTS, kinds(events)


async def waiting_runs(lab: Lab) -> list[RunView]:
    """List the lab's runs that wait for somebody, as Temporal's Visibility shows them."""
    runs = Runlane(lab.client, Settings(task_queue=lab.task_queue)).runs
    return list((await runs.list(lab.thread_id, status="requires_action")).views)


async def test_edited_arguments_run_instead(lab: Lab, clerk: Clerk) -> None:
    """Where they fit the tool; where they don't, the decision is refused and the call waits on."""
    till = Till()
    async with lab.worker(tools=till.tools, verifier=clerk.verifier):
        run = await started(lab)
        assert await clerk.decide("approve", run, arguments='{"amount": "much"}') == "recorded"
        view = await counted(run)
        assert view.runlane.decisions[0].state == "refused"
        assert "order_id" in (view.runlane.decisions[0].reason or "")
        edited = '{"order_id": "A-1", "amount": 3}'
        assert await clerk.decide("approve", run, arguments=edited) == "recorded"
        result = await run.result()

    assert till.paid == [("A-1", 3)]
    assert await submitted(lab) == ["3 paid for A-1"]
    assert [each.state for each in result.runlane.decisions] == ["refused", "counted"]


async def test_people_reject_and_answer(lab: Lab, clerk: Clerk) -> None:
    """What they say goes to the model; a receipt says what became of each word, and why.

    Nothing that the caller submits stands for their word.
    """
    till = Till()
    async with lab.worker(tools=till.tools, verifier=clerk.verifier):
        run = await started(lab, refund("A-1"), refund("A-2"))
        view = await run.until(lambda view: len(undecided(view)) == 2)
        one, _ = undecided(view)
        other = "sha256:" + "0" * 64
        assert await run.submit((one.tool_call_id, "mine")) == ["held"]
        stale = clerk.made("approve", run, one, "ada", arguments_digest=other)
        assert await send(run, stale) == "other_digest"
        changed = clerk.made("approve", run, one, "ada", tool_digest=other)
        assert await send(run, changed) == "other_digest"
        nobodys = clerk.made("approve", run, one, "ada", tool_call_id="call_of_nobody")
        assert await send(run, nobodys) == "unknown"
        claim = clerk.made("claim", run, one, "ada")
        assert await send(run, claim) == "recorded"
        view = await run.until(lambda view: undecided(view)[0].claimed_by == "ada")
        assert await send(run, clerk.made("approve", run, one, "bob")) == "claimed"
        rejection = clerk.made("reject", run, one, "ada", note="Already paid.")
        assert await send(run, rejection) == "recorded"
        await run.until(lambda view: len(undecided(view)) == 1)
        assert await send(run, rejection) == "duplicate"
        second = await receipt(run, clerk.made("approve", run, one, "bob"))
        assert (second.status, "rejected by ada" in second.message) == ("already_decided", True)
        assert await clerk.decide("answer", run, by="bob", output="Paid by hand.") == "recorded"
        result = await run.result()

    assert till.paid == []
    rejected, answered = await submitted(lab)
    assert "Already paid." in rejected
    assert answered == "Paid by hand."
    assert [each.by for each in result.runlane.answers] == ["person:ada", "person:bob"]


async def test_two_people_approve_and_who_asked_is_none_of_them(lab: Lab, clerk: Clerk) -> None:
    """Nobody counts twice; the second person's word lets the call run, once."""
    till = Till(approvals=2, groups=["finance"])
    async with lab.worker(tools=till.tools, verifier=clerk.verifier):
        run = await started(lab, requested_by="eve")
        finance = {"groups": ["finance"]}
        assert await clerk.decide("approve", run, "eve", **finance) == "not_allowed"
        assert await clerk.decide("approve", run, "ada", groups=["sales"]) == "not_allowed"
        assert await clerk.decide("approve", run, "ada", **finance) == "recorded"
        await run.until(lambda view: undecided(view)[0].approved_by == ["ada"])
        assert await clerk.decide("approve", run, "Ada", **finance) == "not_allowed"
        assert till.paid == []
        assert await clerk.decide("approve", run, "bob", **finance) == "recorded"
        await run.result()

    assert till.paid == [("A-1", 5)]


async def test_the_rest_of_the_run_is_approved(lab: Lab, clerk: Clerk) -> None:
    """Until somebody revokes it."""
    till = Till()
    rounds = [{"calls": [refund(f"A-{number}")]} for number in (1, 2)]
    await lab.scenario(rounds=[*rounds, {"calls": [refund("A-3")]}, {"says": "Done."}])
    async with lab.worker(tools=till.tools, verifier=clerk.verifier):
        run = await lab.start(with_tools=True)
        first = await waiting(run)
        approval = clerk.made("approve", run, first, "ada", for_rest_of_run=True)
        fault = await lab.fault("runs.submit_tool_outputs", "hold_before", after=1)
        assert await send(run, approval) == "recorded"
        await lab.held(fault)
        assert till.paid == [("A-1", 5), ("A-2", 5)]
        assert await send(run, clerk.made("revoke", run, first, "bob")) == "recorded"
        await run.until(lambda view: len(view.runlane.decisions) == 2)
        await counted(run)
        await lab.release(fault)
        third = await waiting(run)
        assert await send(run, clerk.made("reject", run, third, "ada")) == "recorded"
        result = await run.result()

    assert len(till.paid) == 2
    assert [each.kind for each in result.runlane.decisions] == ["approve", "revoke", "reject"]


async def test_silence_asks_the_next_group_and_then_rejects(lab: Lab, clerk: Clerk) -> None:
    """It never approves. Lists and the trail know who was asked, and until when."""
    till = Till(deadline="1s", outcome="escalate", groups=["support", "managers"])
    async with lab.worker(tools=till.tools, verifier=clerk.verifier):
        run = await started(lab)
        result = await run.result()
        rows = [json.loads(row.body) for row in await lab.ledger.audit.read(run.id)]
        listed = ApprovalQuery(run_id=run.id, group="managers", state=None)
        (approval,) = (await lab.ledger.approvals.list(listed)).data

    assert result.run.status == "completed"
    assert till.paid == []
    assert "in time" in (await submitted(lab))[0]
    assert [each.by for each in result.runlane.answers] == ["deadline"]
    lapses = [row["facts"] for row in rows if row["facts"].get("what") == "lapse"]
    assert [(each["outcome"], each["groups"]) for each in lapses] == [
        ("escalate", ["managers"]),
        ("reject", ["managers"]),
    ]
    assert (approval.state, approval.decided_by) == ("decided", None)


async def test_silence_can_fail_the_run(lab: Lab, clerk: Clerk) -> None:
    """Its last error names the call; the upstream run is not left alive."""
    till = Till(deadline="0.5s", outcome="fail")
    async with lab.worker(tools=till.tools, verifier=clerk.verifier):
        run = await started(lab)
        result = await run.result()

    assert result.run.status == "failed"
    assert result.run.last_error is not None
    assert "refund" in result.run.last_error.message
    assert await lab.accepted("runs.cancel") == 1
    assert till.paid == []


async def test_what_is_approved_while_parked_waits_for_the_upstream(lab: Lab, clerk: Clerk) -> None:
    """It runs when another upstream run asks for it, once, though that one asks for it twice."""
    till = Till()
    await lab.scenario(
        rounds=[{"calls": [refund()]}],
        attempts={"2": [{"calls": [refund()]}, {"calls": [refund()]}]},
    )
    async with lab.worker(tools=till.tools, verifier=clerk.verifier):
        run = await lab.start(with_tools=True)
        call = await waiting(run)
        upstream_run = str((await run.view()).runlane.upstream_run_id)
        await lab.force(upstream_run, "expired")
        await run.until(lambda view: view.runlane.parked)
        fault = await lab.fault("runs.create", "hold_before")
        assert await send(run, clerk.made("approve", run, call, "ada")) == "recorded"
        await lab.held(fault)
        assert till.paid == []
        await lab.release(fault)
        again = await run.until(
            lambda view: len(undecided(view)) == 1 and view.runlane.rounds == 3, seconds=30
        )
        assert till.paid == [("A-1", 5)]
        assert await clerk.decide("reject", run) == "recorded"
        await run.result()

    assert till.paid == [("A-1", 5)]
    assert undecided(again)[0].tool_call_id != call.tool_call_id


async def test_of_an_uncertain_call_a_person_says_what_happened(lab: Lab, clerk: Clerk) -> None:
    """It did not run: then it runs. It ran: then the person's word is its output. Or neither."""
    till = Till(at_most_once=True, timeout="2s")
    till.hangs = 3
    async with lab.worker(tools=till.tools, verifier=clerk.verifier):
        run = await started(lab, refund("A-1"), refund("A-2"), refund("A-3"))
        view = await run.until(lambda view: len(undecided(view)) == 3)
        for call in undecided(view):
            assert await send(run, clerk.made("approve", run, call, "ada")) == "recorded"
        view = await run.until(
            lambda view: [each.state for each in undecided(view)] == ["uncertain"] * 3
        )
        one, two, three = undecided(view)
        assert (one.reason, one.approved_by) == ("it gave no answer in time", [])
        assert await send(run, clerk.made("approve", run, one, "bob")) == "recorded"
        ran = clerk.made("answer", run, two, "bob", output="Paid, says the bank.")
        assert await send(run, ran) == "recorded"
        assert await send(run, clerk.made("reject", run, three, "bob", note="No idea.")) == (
            "recorded"
        )
        await run.result()
        intents = await lab.ledger.intents.of_run(run.id)

    assert sorted(till.paid) == [("A-1", 5), ("A-1", 5), ("A-2", 5), ("A-3", 5)]
    outputs = await submitted(lab)
    assert outputs[:2] == ["5 paid for A-1", "Paid, says the bank."]
    assert "not known" in outputs[2]
    stands = {each.call_id: (each.state.value, each.settled_by) for each in intents}
    assert stands == {
        one.tool_call_id: ("finished", None),
        two.tool_call_id: ("finished", "bob"),
        three.tool_call_id: ("uncertain", None),
    }


async def test_a_ledger_that_is_down_delays_a_decision_and_loses_none(
    restless: Client, simulator: SimulatorProcess, clerk: Clerk
) -> None:
    """It doesn't count before it is written, and is kept over any continue-as-new meanwhile.

    So are half a quorum and everything that was said; the second half lets the call run, once.
    """
    lab, till = Lab(restless, simulator), Till(approvals=2)
    async with lab.worker(tools=till.tools, verifier=clerk.verifier):
        run = await started(lab, timing=QUICK.model_copy(update={"look_floor": 60.0}))
        approval = clerk.made("approve", run, await waiting(run), "ada")
        with contextlib.closing(sqlite3.connect(lab.ledger.location.file)) as elsewhere:
            elsewhere.execute("BEGIN EXCLUSIVE")
            assert await send(run, approval) == "recorded"
            await Noise(run).until_continued(lab)
            view = await run.view()
            assert [each.state for each in view.runlane.decisions] == ["checking"]
            assert undecided(view)[0].checking
            elsewhere.rollback()
        before = (await counted(run)).runlane
        assert undecided(await run.view())[0].approved_by == ["ada"]
        await Noise(run).until_continued(lab)
        after = (await run.view()).runlane
        assert (after.pending, after.decisions) == (before.pending, before.decisions)
        assert await send(run, approval) == "duplicate"
        assert till.paid == []
        assert await clerk.decide("approve", run, "bob") == "recorded"
        await run.result()

    assert till.paid == [("A-1", 5)]
