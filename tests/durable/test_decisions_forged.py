"""Forged decisions: whoever reaches Temporal can send what he likes, and can't sign."""

import asyncio
import json
import sysconfig
import time
from pathlib import Path

import pytest
from temporalio.client import Client

from activities.decision import Decision
from activities.tools import Call
from runlane.temporal import failure_message
from runsapi import Run
from tests.clerk import Clerk, counted, send, undecided, waiting
from tests.lab import Lab, LabRun, eventually
from tests.simulator_process import SimulatorProcess
from tests.till import Till, refund, started
from workflows.approval import Approval
from workflows.contract import DECIDE_UPDATE, RunRequest
from workflows.run import RunWorkflow
from workflows.state import KnownCall, OpenCall, RunInput, RunState

TEMPORAL = Path(sysconfig.get_path("scripts")) / "temporal"


@pytest.fixture
def lab(client: Client, simulator: SimulatorProcess) -> Lab:
    """A lab that the test serves itself."""
    return Lab(client, simulator)


@pytest.fixture
def clerk() -> Clerk:
    return Clerk()


async def test_temporal_alone_approves_nothing(lab: Lab, clerk: Clerk) -> None:
    """Whatever is made up or copied is refused and kept with its reason; the true one counts."""
    till = Till()
    async with lab.worker(tools=till.tools, verifier=clerk.verifier):
        run = await started(lab, refund("A-1"), refund("A-2"))
        view = await run.until(lambda view: len(undecided(view)) == 2)
        one, two = undecided(view)
        true = clerk.made("approve", run, one, "ada")
        on_another_run = true.model_copy(update={"run_id": "run_other"})
        forged = {
            "unsigned": true.model_copy(update={"signature": ""}),
            "another key's": Clerk().made("approve", run, one, "ada"),
            "another run's": clerk.made("approve", run, one, "ada", run_id="run_other").model_copy(
                update={"run_id": run.id}
            ),
            "another call's": true.model_copy(
                update={
                    "tool_call_id": two.tool_call_id,
                    "arguments_digest": two.arguments_digest,
                }
            ),
            "another tool's": clerk.made(
                "approve", run, one, "ada", tool_digest="sha256:" + "0" * 64
            ).model_copy(update={"tool_digest": one.tool_digest}),
            "other arguments": true.model_copy(
                update={"arguments": '{"order_id": "A-1", "amount": 99}'}
            ),
        }
        assert await send(run, on_another_run) == "unknown"
        for decision in forged.values():
            assert await send(run, decision) == "recorded"
        view = await run.until(lambda view: len(view.runlane.decisions) == len(forged))
        view = await counted(run)
        assert {each.state for each in view.runlane.decisions} == {"refused"}
        assert all(each.reason for each in view.runlane.decisions)
        assert till.paid == []

        assert await send(run, true) == "recorded"
        await run.until(lambda view: len(undecided(view)) == 1)
        assert await clerk.decide("reject", run) == "recorded"
        result = await run.result()
        rows = [json.loads(row.body) for row in await lab.ledger.audit.read(run.id)]

    assert till.paid == [("A-1", 5)]
    assert [each.state for each in result.runlane.decisions][-2:] == ["counted"] * 2
    refused = [row["facts"].get("refused") for row in rows if row["kind"] == "decision"]
    assert refused.count("signature") == len(forged)
    assert len(refused) == len(forged) + 2


async def test_temporals_command_line_approves_nothing(lab: Lab, clerk: Clerk) -> None:
    """What it sends unsigned, or signed by a key of one's own, is refused; the true one counts.

    It needs no key that encrypts: a run reads what comes in the clear, too.
    """
    till = Till()
    async with lab.worker(tools=till.tools, verifier=clerk.verifier):
        run = await started(lab)
        call = await waiting(run)
        true = clerk.made("approve", run, call, "ada")
        signed_by_another = Clerk().made("approve", run, call, "ada")
        assert "ValidationError" in await decide_by_command(lab, run, '{"kind": "approve"}')
        for forged in (true.model_copy(update={"signature": ""}), signed_by_another):
            assert await decide_by_command(lab, run, forged.model_dump_json()) == ""
        await run.until(lambda view: len(view.runlane.decisions) == 2)
        refused = await counted(run)
        assert [each.state for each in refused.runlane.decisions] == ["refused"] * 2
        unsigned, another = (each.reason or "" for each in refused.runlane.decisions)
        assert "not signed" in unsigned
        assert "signed with a key that the worker doesn't know" in another
        assert [each.tool_call_id for each in undecided(refused)] == [call.tool_call_id]
        assert till.paid == []

        assert await send(run, true) == "recorded"
        result = await run.result()

    assert till.paid == [("A-1", 5)]
    assert result.run.status == "completed"


async def decide_by_command(lab: Lab, run: LabRun, decision: str) -> str:
    """Send JSON as a decision, as whoever has Temporal's own program may; return its complaint."""
    process = await asyncio.create_subprocess_exec(
        *(str(TEMPORAL), "workflow", "update", "start", "--wait-for-stage", "accepted"),
        *("--address", lab.client.service_client.config.target_host, "--workflow-id", run.id),
        *("--name", DECIDE_UPDATE, "--input", decision),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    return said.decode() if process.returncode else ""


async def test_a_workflow_with_made_up_approvals_runs_nothing(lab: Lab, clerk: Clerk) -> None:
    """Its state is whatever somebody started it with; the worker asks for signatures itself."""
    till = Till()
    async with lab.worker(tools=till.tools, verifier=clerk.verifier):
        run = await started(lab)
        copied = clerk.made("approve", run, await waiting(run), "ada")
        handle = await lab.client.start_workflow(
            RunWorkflow.run,
            await as_if_approved(run, till, copied),
            id=f"{run.id}_forged",
            task_queue=lab.task_queue,
        )

        async def hindrance() -> str:
            described = (await handle.describe()).raw_description
            failures = [
                await failure_message(lab.client.data_converter, each.last_failure)
                for each in described.pending_activities
                if each.activity_type.name == "tools.call"
            ]
            return " ".join(failures)

        await eventually(hindrance, lambda text: "about something else" in text)
        await handle.terminate()
        await run.cancel()
        await run.result()

    assert till.paid == []


async def as_if_approved(run: LabRun, till: Till, decision: Decision) -> RunInput:
    """Return what another workflow would be given if the run's call were approved in it."""
    view = await run.view()
    (call,) = view.runlane.pending
    asked = {"name": call.name, "arguments": call.arguments}
    calls = [{"id": call.tool_call_id, "type": "function", "function": asked}]
    action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": calls}}
    upstream_run = view.run.model_copy(update={"id": view.runlane.upstream_run_id}).model_dump()
    judged = await till.tools.handling(
        Call(id=call.tool_call_id, name=call.name, arguments=call.arguments), time.time()
    )
    opened = OpenCall(
        id=call.tool_call_id,
        name=call.name,
        arguments=call.arguments,
        key="key",
        since_at=time.time(),
        handled_by="worker",
        rule=judged.rule,
        timeout=judged.timeout,
        approval=Approval(approvals=[decision], decided=decision.kind),
    )
    state = RunState(
        deadline_at=time.time() + 600,
        attempt=1,
        rounds=1,
        upstream=view.runlane.upstream,
        run=Run.model_validate({**upstream_run, "required_action": action}),
        seen_at=time.time(),
        next_look_at=time.time() + 60,
        calls=[opened],
        known={call.tool_call_id: KnownCall(attempt=1, round=1)},
    )
    request = RunRequest(thread_id=view.run.thread_id, params={}, created_at=time.time())
    return RunInput(request=request, state=state)


async def test_a_worker_without_a_public_key_lets_nothing_count(lab: Lab, clerk: Clerk) -> None:
    """The run says what is missing; once it is there, the same decision counts."""
    till = Till()
    async with lab.worker(tools=till.tools):
        run = await started(lab)
        call = await waiting(run)
        approval = clerk.made("approve", run, call, "ada")
        assert await send(run, approval) == "recorded"
        view = await counted(run)
        assert "RUNLANE_DECISION_PUBLIC_KEYS" in (view.runlane.decisions[0].reason or "")
    async with lab.worker(tools=till.tools, verifier=clerk.verifier):
        assert await send(run, approval) == "recorded"
        await run.result()

    assert till.paid == [("A-1", 5)]
