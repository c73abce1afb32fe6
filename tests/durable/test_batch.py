"""Batches of quick items, driven by lanes on a real Temporal against a real upstream."""

import json

from ledger.batch_item import ItemState
from tests.batches import Batch, new_threads
from tests.lab import Lab

DONE = {"queued": 0.02, "in_progress": 0.05, "says": "On its way."}


async def test_each_item_is_run_once_and_has_its_result(lab: Lab) -> None:
    """Fifty lines give fifty results in the ledger, each with the run by our id, unstamped."""
    await lab.scenario(rounds=[DONE])
    batch = Batch(lab)
    status = await batch.run(new_threads(50, metadata={"ticket": "7"}))
    results = await batch.results()
    bodies = [json.loads(each.response or "null") for each in results]
    upstream = await batch.upstream_runs()
    record = await batch.record()
    assert "completed" == status == record.status
    assert {f"item-{number}" for number in range(50)} == {each.custom_id for each in results}
    assert 50 == len(results) == len(upstream)
    assert {ItemState.COMPLETED} == {each.state for each in results}
    assert list(range(1, 51)) == [each.seq for each in results]
    assert {each.run_id for each in results} == {body["id"] for body in bodies}
    assert [{"ticket": "7"}] * 50 == [body["metadata"] for body in bodies]
    assert {each["metadata"]["runlane_run_id"] for each in upstream} == {
        body["id"] for body in bodies
    }
    assert 50 * 150 == (await batch.counts()).usage.total_tokens


async def test_an_item_costs_less_than_half_an_event(lab: Lab) -> None:
    """Two hundred lines stand in no history: what Temporal keeps of them is a few dozen events."""
    await lab.scenario(rounds=[DONE])
    batch = Batch(lab)
    status = await batch.run(new_threads(200))
    events = await batch.events()

    assert "completed" == status
    assert 200 == len(await batch.results())
    assert len(events) < 0.5 * 200
