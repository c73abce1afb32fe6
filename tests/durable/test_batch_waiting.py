"""Five hundred lines of a batch wait two days for people, on a server that skips time."""

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ledger.batch_item import Item, ItemState
from tests.batches import Batch, new_threads
from tests.lab import Lab, LabRun, eventually
from tests.simulator_process import SimulatorProcess
from tests.skipping import skipping_server
from workflows.batch_contract import BatchTiming
from workflows.run import RunWorkflow

ITEMS = int(os.environ.get("RUNLANE_WAITING_ITEMS", "1500"))
"""Besides those that wait; ten thousand of them take some minutes more."""
PEOPLE = 500
_DAYS = 2
_STEP = 3600
_LOOKS = 1800.0, 4 * 3600.0
"""Seconds between two looks of the batch at its promoted runs, at the least and at most. Otherwise
it looks five times as often, at as many events a look; each asks a small server 500 times here."""
_AT_ONCE = 5

ASKS = {"queued": 0.02, "in_progress": 0.02, "calls": [{"name": "refund"}]}
DONE = {"queued": 0.02, "in_progress": 0.02, "says": "Paid."}


async def _answer(lab: Lab, items: list[Item]) -> None:
    for item in items:
        run = LabRun(lab.client.get_workflow_handle_for(RunWorkflow.run, item.run_id or ""))
        await run.answer_all(item.custom_id)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_five_hundred_lines_wait_two_days_for_people(tmp_path: Path) -> None:
    """Their upstream runs expire long before. Answered, each is in the results once, with one
    upstream run more; the batch's own history stays small, and holds none of them.
    """
    with SimulatorProcess() as simulator:

        def live() -> list[dict[str, Any]]:
            return simulator.runs(live=True)

        async with skipping_server(tmp_path) as server:
            lab = Lab(server.client, simulator)
            asking = f"{lab.assistant_id}_asks"
            async with lab.worker(workers=1):
                await lab.scenario(rounds=[DONE])
                await lab.scenario(
                    assistant_id=asking, rounds=[ASKS, DONE], expires_after=20, polls=0
                )
                quick, people = new_threads(ITEMS), new_threads(PEOPLE, assistant_id=asking)
                every = ITEMS // PEOPLE
                lines = [
                    line
                    for number, person in enumerate(people)
                    for line in (*quick[number * every : (number + 1) * every], person)
                ]
                batch = Batch(lab)
                await batch.upload(lines)
                await batch.start(
                    window=64,
                    timing=BatchTiming(
                        poll_floor=0.1, look_floor=_LOOKS[0], poll_ceiling=_LOOKS[1]
                    ),
                )
                waiting = await batch.until(
                    lambda counts: counts.promoted == PEOPLE == counts.unfinished, seconds=300
                )
                await eventually(lambda: asyncio.to_thread(live), lambda runs: not runs)
                until = await server.now() + _DAYS * 86_400
                while await server.now() < until:
                    await server.sleep(_STEP, patience=120)
                still = await batch.counts()
                waited = Counter(await batch.events())

                items = list(await lab.ledger.batch_items.promoted(batch.id, limit=PEOPLE))
                shares = [items[share::_AT_ONCE] for share in range(_AT_ONCE)]
                await asyncio.gather(*(_answer(lab, share) for share in shares))
                status = await batch.ended(seconds=240)
                results = await batch.results()
                events = len(await batch.events())
        upstream = await asyncio.to_thread(simulator.runs)

    print(f"{events} events of the batch, {waited.total()} by the end of the wait: {waited}")
    assert waiting == still
    assert "completed" == status
    assert {ItemState.COMPLETED: len(lines)} == Counter(each.state for each in results)
    assert {f"item-{number}" for number in range(len(lines))} == {
        each.custom_id for each in results
    }
    created = Counter(run["metadata"]["runlane_run_id"] for run in upstream)
    assert {each.run_id for each in results} == set(created)
    assert {1: len(lines) - PEOPLE, 2: PEOPLE} == Counter(created.values())
    assert events < 1_000
