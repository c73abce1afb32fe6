"""Notices of a run that waits for people, to receivers that answer, are away, or hang."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from activities.notify import NotifyActivities
from runlane.settings import Settings
from runlane.tools.functions import tool
from runlane.tools.registry import Registry
from runlane.tools.toolbox import RegisteredTools
from runlane.webhooks import receivers
from tests.clerk import Clerk, waiting
from tests.histories import activities, chain_length, history
from tests.lab import QUICK, Lab, LabRun, eventually
from tests.restless import Noise
from tests.simulator_process import SimulatorProcess
from tests.webhook_receiver import HANG, SECRET, WebhookReceiver, webhook_receiver
from workflows.contract import Timing, notices_workflow_id


@pytest.fixture
def lab(client: Client, simulator: SimulatorProcess) -> Lab:
    """A lab that the test serves itself."""
    return Lab(client, simulator)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """Somebody who listens."""
    with webhook_receiver() as each:
        yield each


@tool(policy="approve", groups=["desk"], reminders=[timedelta(seconds=3)])
async def refund(order_id: str) -> str:
    """Pay an order back."""
    return f"{order_id} is paid back"


@tool(
    policy="approve",
    groups=["desk", "board"],
    deadline=timedelta(seconds=1),
    outcome="escalate",
)
async def pay(order_id: str) -> str:
    """Pay an order."""
    return f"{order_id} is paid"


def serving(lab: Lab, *urls: str, clerk: Clerk | None = None) -> AbstractAsyncContextManager[None]:
    """Serve the lab with the tools, and with these webhooks."""
    environ = {"RUNLANE_WEBHOOK_URL": ",".join(urls), "RUNLANE_WEBHOOK_SECRET": SECRET}
    webhooks = receivers(Settings.from_env(environ))
    return lab.worker(
        tools=RegisteredTools(Registry.of(refund, pay), notifies=bool(webhooks)),
        notify=NotifyActivities(webhooks) if webhooks else None,
        verifier=None if clerk is None else clerk.verifier,
    )


async def asking(lab: Lab, *names: str, timing: Timing = QUICK) -> LabRun:
    """Start a run that asks for tools."""
    calls = [{"name": name, "arguments": {"order_id": "A-1"}} for name in names]
    await lab.scenario(rounds=[{"calls": calls}, {"says": "Done."}])
    return await lab.start(with_tools=True, timing=timing)


async def taken(receiver: WebhookReceiver, count: int) -> list[dict[str, Any]]:
    """Wait until the receiver has taken so many notices; return them."""

    async def look() -> list[dict[str, Any]]:
        return receiver.taken()

    return await eventually(look, lambda found: len(found) >= count)


async def test_a_run_asks_for_people_and_takes_it_back(lab: Lab, receiver: WebhookReceiver) -> None:
    """A receiver that is away for a moment gets each notice once, also of a run that has ended."""
    receiver.status = 503
    async with serving(lab, receiver.url):
        run = await asking(lab, "refund")
        await eventually(lambda: _count(receiver), bool)
        await run.cancel()
        result = await run.result()
        assert "cancelled" == result.run.status
        # Nobody waited for it, and what the run left is on its way.
        left = lab.client.get_workflow_handle(notices_workflow_id(run.id))
        assert WorkflowExecutionStatus.RUNNING == (await left.describe()).status
        receiver.status = 204
        decided, requested = sorted(await taken(receiver, 2), key=lambda each: each["type"])
        await asyncio.wait_for(left.result(), 40)

    assert ("approval.requested", ["desk"]) == (requested["type"], requested["data"]["groups"])
    assert ("approval.decided", "closed") == (decided["type"], decided["data"]["outcome"])
    assert {run.id} == {each["data"]["run_id"] for each in (requested, decided)}
    assert "A-1" not in str(receiver.got)
    # Tried until taken, under one id, and never again after.
    assert 2 == len(receiver.taken()) == len({got.id for got in receiver.got})


async def _count(receiver: WebhookReceiver) -> int:
    return len(receiver.got)


async def test_reminders_and_the_next_group(lab: Lab, receiver: WebhookReceiver) -> None:
    """Whoever is asked is reminded; the next group is asked when the first has been silent."""
    async with serving(lab, receiver.url):
        # Nothing else happens when the reminder is due: no deadline, no look at the upstream.
        timing = QUICK.model_copy(update={"look_floor": 300.0})
        run = await asking(lab, "refund", "pay", timing=timing)

        async def told() -> set[tuple[str, str, str]]:
            each = [(got["type"], got["data"]) for got in receiver.taken()]
            return {(event, data["tool"], data["groups"][0]) for event, data in each}

        wanted = {
            ("approval.requested", "refund", "desk"),
            ("approval.requested", "pay", "desk"),
            ("approval.reminder", "refund", "desk"),
            ("approval.escalated", "pay", "board"),
        }
        await eventually(told, lambda found: wanted <= found)
        await run.cancel()
        await run.result()


async def test_a_receiver_that_hangs_holds_no_decision_up(
    client: Client, simulator: SimulatorProcess, receiver: WebhookReceiver
) -> None:
    """From a decision until the upstream has the tool's output it takes as long as without any."""
    receiver.status = HANG
    clerk = Clerk()

    async def seconds(*urls: str) -> float:
        lab = Lab(client, simulator)
        async with serving(lab, *urls, clerk=clerk):
            run = await asking(lab, "refund")
            await waiting(run)
            began = time.time()
            assert "recorded" == await clerk.decide("approve", run, groups=["desk"])
            await run.result()
            assert bool(urls) == ("notify.send" in activities(await history(run)))
            return await submitted_at(lab) - began

    without = await seconds()
    hanging = await seconds(receiver.url, "http://127.0.0.1:9/nobody-listens")

    assert ["approval.requested"] == [each.verified()["type"] for each in receiver.got[:1]]
    # One try that hangs lasts ten seconds.
    assert hanging < without + 8


async def submitted_at(lab: Lab) -> float:
    """Return when the upstream got the outputs, in unix seconds."""
    report = await asyncio.to_thread(lambda: lab.simulator.requests(thread_id=lab.thread_id))
    (at,) = [e["at"] for e in report["data"] if e["operation"] == "runs.submit_tool_outputs"]
    return float(at)


async def test_a_notice_survives_continue_as_new(
    restless: Client, simulator: SimulatorProcess, receiver: WebhookReceiver
) -> None:
    """It goes on under the same id."""
    lab = Lab(restless, simulator)
    receiver.status = 503
    async with serving(lab, receiver.url):
        run = await asking(lab, "refund")
        await eventually(lambda: _count(receiver), bool)
        noise = Noise(run)
        while await chain_length(restless, run) < 3:
            await noise.send()
        receiver.status = 204
        await taken(receiver, 1)
        await run.cancel()
        await run.result()
        await taken(receiver, 2)

    requests = [got for got in receiver.got if got.verified()["type"] == "approval.requested"]
    assert 1 == len({got.id for got in requests})
