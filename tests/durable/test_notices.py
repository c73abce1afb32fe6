"""Notices of a run that waits for people, to receivers that answer, are away, or hang."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from activities.notify import NotifyActivities
from runlane.settings import Settings
from runlane.tools.functions import tool
from runlane.tools.registry import Registry
from runlane.tools.toolbox import RegisteredTools
from runlane.webhooks import receivers
from tests.histories import activities, chain_length, history
from tests.lab import Lab, LabRun, eventually
from tests.restless import Noise
from tests.simulator_process import SimulatorProcess
from tests.webhook_receiver import SECRET, WebhookReceiver, webhook_receiver
from workflows.contract import notices_workflow_id


@pytest.fixture
def lab(client: Client, simulator: SimulatorProcess) -> Lab:
    """A lab that the test serves itself."""
    return Lab(client, simulator)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """Somebody who listens."""
    with webhook_receiver() as each:
        yield each


@tool(policy="approve", groups=["desk"])
async def refund(order_id: str) -> str:
    """Pay an order back."""
    return f"{order_id} is paid back"


def serving(lab: Lab, *urls: str) -> AbstractAsyncContextManager[None]:
    """Serve the lab with the tool, and with these webhooks."""
    environ = {"RUNLANE_WEBHOOK_URL": ",".join(urls), "RUNLANE_WEBHOOK_SECRET": SECRET}
    webhooks = receivers(Settings.from_env(environ))
    return lab.worker(
        tools=RegisteredTools(Registry.of(refund), notifies=bool(webhooks)),
        notify=NotifyActivities(webhooks) if webhooks else None,
    )


async def asking(lab: Lab, order: str = "A-1") -> LabRun:
    """Start a run that asks for the tool."""
    calls = [{"name": "refund", "arguments": {"order_id": order}}]
    await lab.scenario(rounds=[{"calls": calls}, {"says": "Done."}])
    return await lab.start(with_tools=True)


async def taken(receiver: WebhookReceiver, count: int) -> list[dict[str, Any]]:
    """Wait until the receiver has taken so many notices; return them."""

    async def look() -> list[dict[str, Any]]:
        return receiver.taken()

    return await eventually(look, lambda found: len(found) >= count)


async def test_a_run_asks_for_people_and_takes_it_back(lab: Lab, receiver: WebhookReceiver) -> None:
    """A receiver that is away for a moment gets each notice once, also of a run that has ended."""
    receiver.status = 503
    async with serving(lab, receiver.url):
        run = await asking(lab)
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


async def test_a_notice_survives_continue_as_new(
    restless: Client, simulator: SimulatorProcess, receiver: WebhookReceiver
) -> None:
    """It goes on under the same id."""
    lab = Lab(restless, simulator)
    receiver.status = 503
    async with serving(lab, receiver.url):
        run = await asking(lab)
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


async def test_without_webhooks_there_are_no_notices(lab: Lab) -> None:
    """Not an event more than before."""
    async with serving(lab):
        run = await asking(lab)
        await run.until(lambda view: bool(view.runlane.pending))
        await run.cancel()
        await run.result()

    assert "notify.send" not in activities(await history(run))
