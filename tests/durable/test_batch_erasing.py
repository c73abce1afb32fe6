"""Erasing a batch: what was written in it is gone wherever Runlane keeps it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from temporalio.client import Client

from ledger import Ledger
from runlane import client_ledger
from runlane.batches.erasing import erase
from runlane.batches.outputs import line_of
from runlane.erasing import Erasing
from runlane.errors import Refused
from runlane.orchestrator import Runlane
from runlane.settings import Settings
from tests.api import serving
from tests.batches import Batch, new_threads
from tests.lab import Lab

SECRET = "what the customer said in confidence"
ASKS = {"queued": 0.02, "in_progress": 0.05, "calls": [{"name": "lookup_order"}]}
SAYS = {"queued": 0.02, "in_progress": 0.05, "says": SECRET}


@pytest.fixture
def erasing(lab: Lab, client: Client, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Erasing:
    """Erases in the lab's ledger, whose directory is another than that of the payloads."""

    @asynccontextmanager
    async def opened(self: client_ledger.ClientLedger) -> AsyncIterator[Ledger]:
        yield lab.ledger

    monkeypatch.setattr(client_ledger.ClientLedger, "opened", opened)
    return Erasing(client, Settings(data_dir=data_dir, task_queue=lab.task_queue))


async def test_a_batch_that_goes_on_is_left_as_it_is(lab: Lab, erasing: Erasing) -> None:
    """Its end must come first; nothing was erased, and the trail says nothing."""
    await lab.scenario(rounds=[{"queued": 0.05, "in_progress": 600}])
    batch = Batch(lab)
    await batch.upload(new_threads(1))
    await batch.start()
    await batch.until(lambda counts: counts.in_flight == 1)
    with pytest.raises(Refused, match="only what has ended"):
        await erase(lab.ledger, erasing, await batch.record(), "ann")
    await lab.scenario(rounds=[SAYS])
    await batch.cancel()
    await batch.ended()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_what_was_written_in_a_batch_is_gone(lab: Lab, erasing: Erasing) -> None:
    """Lines, results and messages, and the run that one of them became: out of the ledger and out
    of Temporal. Its lines still say how they ended.
    """
    other = f"{lab.assistant_id}_asks"
    await lab.scenario(rounds=[SAYS])
    await lab.scenario(assistant_id=other, rounds=[ASKS, SAYS])
    runs = Runlane(lab.client, Settings(task_queue=lab.task_queue)).runs
    batch = Batch(lab)
    lines = [*new_threads(2), *new_threads(1, assistant_id=other)]
    await batch.upload(lines, with_messages=True)
    await batch.start()
    await batch.until(lambda counts: counts.promoted == 1)
    [item] = await lab.ledger.batch_items.promoted(batch.id)
    run = await runs.retrieve(item.run_id or "")
    outputs = [{"tool_call_id": call.id, "output": SECRET} for call in run.tool_calls]
    await runs.submit_tool_outputs(run.id, tool_outputs=outputs)
    await batch.ended()
    told: list[str] = []
    erased = await erase(lab.ledger, erasing, await batch.record(), "ann", told.append)
    again = await erase(lab.ledger, erasing, await batch.record(), "ann")
    results = await batch.results()

    # Of each item its line, its run and its messages.
    assert (9, 0) == (erased.contents, again.contents)
    assert [run.id] == told == [each.run_id for each in erased.runs]
    assert erased.runs[0].executions >= 1
    assert ["erased"] * 3 == [line_of(each)["error"]["code"] for each in results]
    assert ["completed"] * 3 == [each.state for each in results]
    files = lab.ledger.location.file.parent.glob("ledger.db*")
    assert all(SECRET.encode() not in file.read_bytes() for file in files)


async def test_an_uploaded_input_goes_with_its_batch(lab: Lab, erasing: Erasing) -> None:
    """Though the batch failed for it: the file holds what people wrote."""
    async with serving(lab, local=None) as api:
        sdk = api.sdk(await api.token(person="ann"))
        file = await sdk.files.create(
            file=("in.jsonl", f'["{SECRET}"]\n'.encode()), purpose="batch"
        )
        made = await sdk.batches.create(
            input_file_id=file.id,
            endpoint="/v1/threads/runs",  # type: ignore[arg-type]
            completion_window="24h",
        )
        batch = Batch(lab)
        batch.id = made.id
        batch.handle = lab.client.get_workflow_handle(made.id)
        await batch.handle.result()
        erased = await erase(lab.ledger, erasing, await batch.record(), "ann")
        left = [each.id async for each in sdk.files.list()]

    assert file.id == erased.file_id
    assert file.id not in left
