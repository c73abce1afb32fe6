"""What was said in the runs of a batch, in its lines: read once they have completed."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client

from activities import item_messages
from ledger.batch_item import Item, ItemState
from runlane.batches.outputs import line_of
from runlane.orchestrator import Runlane
from runlane.settings import Settings
from tests.batches import Batch, Line, new_threads
from tests.lab import Lab
from tests.simulator_process import SimulatorProcess

SAYS = {"queued": 0.02, "in_progress": 0.05, "says": "Refund, and sorry."}
ASKS = {"queued": 0.02, "in_progress": 0.05, "calls": [{"name": "lookup_order"}]}


@pytest_asyncio.fixture
async def own_lab(client: Client) -> AsyncIterator[Lab]:
    """A lab whose upstream is its own: these faults hit every thread."""
    with SimulatorProcess() as simulator:
        laboratory = Lab(client, simulator)
        async with laboratory.worker():
            await laboratory.scenario(rounds=[SAYS])
            yield laboratory


def told(item: Item) -> dict[str, Any]:
    """Return what the line has under our own key."""
    ours: dict[str, Any] = line_of(item)["runlane"]
    return ours


def texts(item: Item) -> list[str]:
    """Return the texts that the line's messages hold."""
    return [
        part["text"]["value"] for message in told(item)["messages"] for part in message["content"]
    ]


async def test_lines_hold_what_the_model_said(own_lab: Lab) -> None:
    """Each has its own run's messages, under our run's id and without those that people wrote;
    a line on a thread that has had other runs holds no word of theirs.
    """
    batch = Batch(own_lab)
    on_one: list[Line] = [(own_lab.thread_id, {}), (own_lab.thread_id, {})]
    status = await batch.run([*new_threads(3), *on_one], with_messages=True)
    results = await batch.results()

    assert "completed" == status
    assert [["Refund, and sorry."]] * 5 == [texts(each) for each in results]
    for each in results:
        [message] = told(each)["messages"]
        assert ("thread.message", "assistant") == (message["object"], message["role"])
        assert each.run_id == message["run_id"]


async def test_lines_hold_no_messages_unless_asked_to(own_lab: Lab) -> None:
    """Without the option the lists of messages are never asked for."""
    batch = Batch(own_lab)
    fault = own_lab.simulator.fault("messages.list", "status", status=400, times=0)
    await batch.run(new_threads(2))

    assert 0 == own_lab.simulator.fault_state(fault)["hits"]
    assert ["messages" in told(each) for each in await batch.results()] == [False, False]


async def test_promoted_items_hold_what_was_said_after_the_answer(own_lab: Lab) -> None:
    """A line that became a run of its own holds its messages as all others do."""
    await own_lab.scenario(rounds=[ASKS, SAYS])
    runs = Runlane(own_lab.client, Settings(task_queue=own_lab.task_queue)).runs
    batch = Batch(own_lab)
    await batch.upload(new_threads(2), with_messages=True)
    await batch.start()
    await batch.until(lambda counts: counts.promoted == 2)
    for item in await own_lab.ledger.batch_items.promoted(batch.id):
        run = await runs.retrieve(item.run_id or "")
        outputs = [{"tool_call_id": call.id, "output": "sent"} for call in run.tool_calls]
        await runs.submit_tool_outputs(run.id, tool_outputs=outputs)
    status = await batch.ended()
    results = await batch.results()

    assert "completed" == status
    assert [["Refund, and sorry."]] * 2 == [texts(each) for each in results]
    assert [each.run_id for each in results] == [
        told(each)["messages"][0]["run_id"] for each in results
    ]


async def test_answers_that_fail_are_asked_for_again(own_lab: Lab) -> None:
    """500, 429, no JSON, a connection that breaks: the lines hold their messages all the same."""
    faults = [
        own_lab.simulator.fault("messages.list", kind, times=1)
        for kind in ("server_error", "rate_limit", "garbage", "reset")
    ]
    batch = Batch(own_lab)
    status = await batch.run(new_threads(3), with_messages=True)
    results = await batch.results()

    assert "completed" == status
    assert [["Refund, and sorry."]] * 3 == [texts(each) for each in results]
    assert [1] * 4 == [own_lab.simulator.fault_state(each)["hits"] for each in faults]


async def test_a_run_has_completed_though_its_messages_can_not_be_had(
    own_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upstream refuses them for good: the line is completed, its run is in it, and it says
    why it holds no messages.
    """
    monkeypatch.setattr(item_messages, "TROUBLE_FOR", 0.5)
    own_lab.simulator.fault("messages.list", "status", status=400, times=0)
    batch = Batch(own_lab)
    status = await batch.run(new_threads(1), with_messages=True)
    [result] = await batch.results()

    assert "completed" == status
    assert (ItemState.COMPLETED, None) == (result.state, result.error)
    assert "completed" == json.loads(result.response or "{}")["status"]
    assert told(result)["messages"] is None
    assert "400" in told(result)["messages_error"]["message"]


async def test_messages_of_more_bytes_than_a_line_may_hold_are_left_where_they_are(
    own_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line says so, and names the limit."""
    monkeypatch.setattr(item_messages, "MAX_BYTES", 100)
    batch = Batch(own_lab)
    await batch.run(new_threads(1), with_messages=True)
    [result] = await batch.results()

    assert ItemState.COMPLETED == result.state
    assert "messages_too_large" == told(result)["messages_error"]["code"]
    assert "over 100 bytes" in told(result)["messages_error"]["message"]


async def test_erasing_a_run_takes_what_was_said_out_of_its_line(own_lab: Lab) -> None:
    """The line stays, and says that it was erased."""
    batch = Batch(own_lab)
    await batch.run(new_threads(2), with_messages=True)
    first, second = await batch.results()
    await own_lab.ledger.erase_run(first.run_id or "")
    erased, kept = await batch.results()

    assert [["Refund, and sorry."]] * 2 == [texts(first), texts(second)]
    assert "messages" not in told(erased)
    assert "erased" == line_of(erased)["error"]["code"]
    assert ["Refund, and sorry."] == texts(kept)
