"""Erasing a run: what was written in it is gone wherever Runlane keeps it, and the proof stays."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from ledger import Ledger
from ledger.contents import digest_of
from runlane import client_ledger
from runlane.erasing import Erasing, RunsAlive, left_upstream
from runlane.errors import RunNotFound
from runlane.schedules import Schedules
from runlane.scheduling import Wanted
from runlane.settings import Settings
from tests.lab import Lab, eventually
from tests.lines import BATCH, NOON, begun, item, outcome

SECRET = "what the customer said in confidence"
LARGE = SECRET * 2_000
"""A payload file of its own."""
CALL = [{"type": "function", "function": {"name": "lookup_order", "parameters": {}}}]


@pytest.fixture
def erasing(lab: Lab, client: Client, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Erasing:
    """Erases in the lab's ledger, whose directory is another than that of the payloads."""

    @asynccontextmanager
    async def opened(self: client_ledger.ClientLedger) -> AsyncIterator[Ledger]:
        yield lab.ledger

    monkeypatch.setattr(client_ledger.ClientLedger, "opened", opened)
    return Erasing(client, Settings(data_dir=data_dir, task_queue=lab.task_queue))


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_what_was_written_is_gone_and_the_proof_stays(
    lab: Lab, client: Client, erasing: Erasing, data_dir: Path
) -> None:
    """Temporal takes half a minute to delete a workflow."""
    run = await lab.start(params={"tools": CALL, "instructions": LARGE})
    (call,) = (await run.until_status("requires_action")).runlane.pending
    with pytest.raises(RunsAlive, match=f"runlane cancel {run.id}"):
        await erasing.erase(run.id)
    await run.submit((call.tool_call_id, SECRET))
    view = await run.result()
    stored = data_dir / "payloads" / "default" / run.id
    assert list(stored.iterdir())

    async def seen() -> list[str]:
        return await erasing.find(thread_id=lab.thread_id)

    await eventually(seen, lambda found: found == [run.id])
    erased = await erasing.erase(run.id, by="anna")

    assert not erased.still_there
    assert erased.executions >= 1
    assert erased.contents >= 2
    assert erased.files >= 1
    assert not stored.exists()
    assert await lab.ledger.contents.read(run.id, digest_of(SECRET)) is None
    record = await lab.ledger.runs.find(run.id)
    assert record is not None
    assert ("completed", None) == (record.status, record.contents)
    last = json.loads((await lab.ledger.audit.read(run.id))[-1].body)
    assert ("erasure", "anna") == (last["kind"], last["facts"]["by"])
    (line,) = left_upstream([erased])
    assert lab.thread_id in line
    assert str(view.runlane.upstream_run_id) in line
    assert lab.simulator.url in line
    files = lab.ledger.location.file.parent.glob("ledger.db*")
    assert all(SECRET.encode() not in file.read_bytes() for file in files)

    # Again, when Temporal knows nothing of it any more.
    again = await erasing.erase(run.id, by="anna")
    assert (0, 0, 0, False) == (
        again.contents, again.executions, again.files, again.still_there
    )  # fmt: skip
    assert erased.upstream_runs == again.upstream_runs


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_scheduled_run_goes_with_what_started_it(
    lab: Lab, client: Client, erasing: Erasing
) -> None:
    """The schedule's start holds its run's result; the schedule itself stays."""
    await lab.scenario(rounds=[{"queued": 0.05, "in_progress": 0.05, "says": SECRET}])
    schedules = Schedules(client, lab.task_queue)
    name = f"nightly-{lab.thread_id}"
    asked = {"assistant_id": lab.assistant_id}
    await schedules.create(Wanted(name=name, cron=["0 0 31 2 *"], params=asked, options={}))
    run_id = (await schedules.trigger(name)).run_id
    assert run_id is not None
    start = (await client.get_workflow_handle(run_id).describe()).parent_id
    assert start is not None
    await client.get_workflow_handle(start).result()

    erased = await erasing.erase(run_id, by="anna")

    assert erased.executions >= 2

    async def there() -> bool:
        try:
            await client.get_workflow_handle(start).describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
        return True

    await eventually(there, lambda found: not found, within=timedelta(minutes=2))
    assert name == (await schedules.find(name)).name


async def test_one_that_is_alive_keeps_a_whole_thread(lab: Lab, erasing: Erasing) -> None:
    run = await lab.start(params={"tools": CALL})
    await run.until_status("requires_action")
    with pytest.raises(RunsAlive):
        await erasing.find(thread_id=lab.thread_id)
    for named in ({"run_id": "run_unknown"}, {"thread_id": "thread_unknown"}):
        with pytest.raises(RunNotFound):
            await erasing.find(**named)


async def test_an_item_of_a_batch_that_a_lane_has_driven(lab: Lab, erasing: Erasing) -> None:
    """Temporal never knew its run: it is erased all the same, and refused while it isn't ended."""
    await begun(lab.ledger, [item(0, thread_id="thread_A", body=f'"{SECRET}"')])
    epoch = await lab.ledger.batch_items.take_lane(BATCH, 0, "first")
    await lab.ledger.batch_items.claim(BATCH, 0, epoch, 1, NOON)
    await lab.ledger.batch_items.intend(BATCH, 0, epoch, "run_of_item", NOON)
    await lab.ledger.batch_items.made_run(BATCH, 0, epoch, "up_1")
    with pytest.raises(RunsAlive, match="by runlane batch cancel"):
        await erasing.erase("run_of_item")
    await lab.ledger.batch_items.settle(BATCH, 0, epoch, outcome(response=f'"{SECRET}"'))

    assert ["run_of_item"] == await erasing.find(thread_id="thread_A")
    erased = await erasing.erase("run_of_item", by="anna")

    assert (2, 0) == (erased.contents, erased.executions)
    assert ["thread thread_A with its messages, and its runs up_1"] == left_upstream([erased])
    (found,) = await lab.ledger.batch_items.results(BATCH)
    assert (None, digest_of(f'"{SECRET}"')) == (found.response, found.response_digest)
