"""What the upstream does wrong while a batch runs: no line is lost, none is run twice."""

import json
from collections import Counter
from collections.abc import AsyncIterator

import pytest_asyncio
from temporalio.client import Client

from ledger.batch_item import ItemState, NewItem
from tests.batches import Batch, new_threads
from tests.lab import Lab
from tests.simulator_process import SimulatorProcess

DONE = {"queued": 0.02, "in_progress": 0.05, "says": "On its way."}
OFTEN = 0.02
"""The part of all requests that each fault hits."""


@pytest_asyncio.fixture
async def own_lab(client: Client) -> AsyncIterator[Lab]:
    """A lab whose upstream is its own: these faults hit every thread."""
    with SimulatorProcess() as simulator:
        laboratory = Lab(client, simulator)
        async with laboratory.worker():
            await laboratory.scenario(rounds=[DONE])
            yield laboratory


async def test_faults_of_every_kind_lose_and_repeat_nothing(own_lab: Lab) -> None:
    """A fiftieth of the requests of each kind goes wrong in each way: lost answers of both creates,
    429 with and without `retry-after`, 500, closed connections, slow answers.
    """
    for number, operation in enumerate(
        ("threads.create", "runs.create", "runs.retrieve", "runs.list")
    ):
        for kind, fields in {
            "lost_answer": {},
            "rate_limit": {"retry_after": 0.1},
            "server_error": {},
            "reset": {},
            "slow": {"seconds": 0.5},
        }.items():
            own_lab.simulator.fault(
                operation, kind, times=0, probability=OFTEN, seed=number, **fields
            )
    batch = Batch(own_lab)
    status = await batch.run(new_threads(150), tries=10)
    results = await batch.results()
    upstream = await batch.upstream_runs()

    assert "completed" == status
    assert 150 == len(results)
    assert {ItemState.COMPLETED: 150} == Counter(each.state for each in results)
    assert {each.run_id for each in results} == {
        each["metadata"]["runlane_run_id"] for each in upstream
    }
    assert 150 == len(upstream)


async def test_a_poisoned_item_stops_no_other(own_lab: Lab) -> None:
    """One line's thread answers every create with 500: after its tries it has failed, and says
    so; the line after it on the same thread, and all others, go on.
    """
    poisoned = own_lab.thread_id
    fault = await own_lab.fault("runs.create", "server_error", times=0)
    batch = Batch(own_lab)
    await batch.upload([(poisoned, {}), *new_threads(8), (poisoned, {})], tries=3)
    await batch.start()
    await batch.until(lambda counts: counts.by_state[ItemState.FAILED] == 1)
    own_lab.simulator.remove_fault(fault)
    status = await batch.ended()
    results = {each.custom_id: each for each in await batch.results()}
    error = json.loads(results["item-0"].error or "{}")
    report = own_lab.simulator.requests(thread_id=poisoned, operation="runs.create")
    sent = [each["body"]["metadata"]["runlane_run_id"] for each in report["data"]]

    assert "completed" == status
    assert 3 == sent.count(results["item-0"].run_id)
    assert ItemState.FAILED == results["item-0"].state
    assert ("unavailable", None) == (error["code"], results["item-0"].response)
    assert {ItemState.COMPLETED} == {
        each.state for custom_id, each in results.items() if custom_id != "item-0"
    }
    assert 9 == len(await batch.upstream_runs())


async def test_what_the_upstream_refuses_is_the_lines_own_failure(own_lab: Lab) -> None:
    """A 400 ends the line with the upstream's status and words, at once."""
    body = {"error": {"message": "No such model.", "code": "model_not_found", "type": "x"}}
    await own_lab.fault("runs.create", "status", status=400, body=body)
    batch = Batch(own_lab)
    status = await batch.run([(own_lab.thread_id, {}), *new_threads(2)])
    results = {each.custom_id: each for each in await batch.results()}
    refused = results["item-0"]

    assert "completed" == status
    assert (ItemState.FAILED, 400) == (refused.state, refused.status_code)
    assert "No such model" in json.loads(refused.error or "{}")["message"]
    assert 2 == len(await batch.upstream_runs())


async def test_an_upstream_that_is_away_costs_no_item_its_tries(own_lab: Lab) -> None:
    """Connections are dropped for longer than all tries take; all lines complete afterwards."""
    batch = Batch(own_lab)
    own_lab.simulator.down(6.0)
    status = await batch.run(new_threads(6), tries=1)

    assert "completed" == status
    assert {ItemState.COMPLETED} == {each.state for each in await batch.results()}
    assert 6 == len(await batch.upstream_runs())


async def test_quota_and_credentials_pause_the_batch_with_words(own_lab: Lab) -> None:
    """No line fails of them; mended and resumed, all complete."""
    batch = Batch(own_lab)
    unauthorized = own_lab.simulator.fault("threads.create", "unauthorized", times=0)
    quota = own_lab.simulator.fault("runs.create", "quota", times=0)
    await batch.upload(new_threads(4))
    await batch.start()
    no_key = await batch.until_paused()
    own_lab.simulator.remove_fault(unauthorized)
    await batch.resume()
    await batch.until_resumed()
    out_of_quota = await batch.until_paused()
    own_lab.simulator.remove_fault(quota)
    await batch.resume()
    status = await batch.ended()

    assert out_of_quota.startswith("quota: The upstream answered 429")
    assert "Raise the upstream account's quota" in out_of_quota
    assert no_key.startswith("credentials: The upstream answered 401")
    assert "Check RUNLANE_UPSTREAM_API_KEY" in no_key
    assert "completed" == status
    assert {ItemState.COMPLETED} == {each.state for each in await batch.results()}
    assert 4 == len(await batch.upstream_runs())


async def test_a_run_that_expires_is_created_anew(own_lab: Lab) -> None:
    """The same line, by the same id: it completes with its second upstream run."""
    own_lab.simulator.scenario(
        assistant_id=own_lab.assistant_id,
        rounds=[{"queued": 0.05, "in_progress": 600}],
    )
    batch = Batch(own_lab)
    await batch.upload([(own_lab.thread_id, {})])
    await batch.start()
    await batch.until_upstream(1)
    [first] = await batch.upstream_runs()
    await own_lab.scenario(rounds=[DONE])
    own_lab.simulator.force(first["id"], "expired")
    status = await batch.ended()
    [result] = await batch.results()
    upstream = await batch.upstream_runs()

    assert "completed" == status
    assert ItemState.COMPLETED == result.state
    assert ["1", "2"] == [each["metadata"]["runlane_attempt"] for each in upstream]
    assert {result.run_id} == {each["metadata"]["runlane_run_id"] for each in upstream}


async def test_a_line_that_can_not_be_sent_fails_alone(own_lab: Lab) -> None:
    """One that got past all checks, with a parameter that nobody takes, is refused here."""
    batch = Batch(own_lab)
    lines = [*new_threads(1, temperature=7), *new_threads(3)]
    status = await batch.run(lines)
    results = {each.custom_id: each for each in await batch.results()}

    assert "completed" == status
    assert "invalid_prompt" == results["item-0"].error_kind
    assert "temperature" in (results["item-0"].error or "")
    assert 3 == len(await batch.upstream_runs())


async def test_a_line_on_which_a_worker_fails_stops_no_other(own_lab: Lab) -> None:
    """Its body is no JSON, which nobody expects: it is given up after some tries."""
    batch = Batch(own_lab)
    await batch.upload(new_threads(3))
    broken = NewItem(index=3, custom_id="item-3", digest="sha256:" + "0" * 64, body="{")
    await own_lab.ledger.batch_items.add(batch.id, [broken])
    await batch.start()
    status = await batch.ended()
    results = {each.custom_id: each for each in await batch.results()}

    assert "completed" == status
    assert (ItemState.FAILED, "internal_error") == (
        results["item-3"].state,
        results["item-3"].error_kind,
    )
    assert 3 == len(await batch.upstream_runs())
