"""A batch whose ledger is a PostgreSQL, which crashes, and workers that are killed beside it."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ledger import LedgerUnavailable
from ledger.batch_item import ItemState
from tests.lab import eventually
from tests.scattered import Scattered, result_lines, scattered

ITEMS, PEOPLE = 360, 6
NAME = "in.jsonl"
SLOW = {"queued": 0.1, "in_progress": 1.5, "says": "On its way."}
ASKS = {"queued": 0.05, "in_progress": 0.1, "calls": [{"name": "refund"}]}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest_asyncio.fixture
async def pieces(tmp_path: Path) -> AsyncIterator[Scattered]:
    """An installation whose parts share no directory, with a file of lines to run."""
    async with scattered(tmp_path) as installation:
        with (installation.place("run") / NAME).open("w") as file:
            for number in range(ITEMS):
                asks = number % (ITEMS // PEOPLE) == 0
                body = {"assistant_id": "asks" if asks else "slow"}
                line = {"method": "POST", "url": "/v1/threads/runs", "body": body}
                file.write(json.dumps({"custom_id": f"line-{number}", **line}) + "\n")
        installation.simulator.scenario(assistant_id="slow", rounds=[SLOW])
        installation.simulator.scenario(assistant_id="asks", rounds=[ASKS, SLOW])
        yield installation


async def until(pieces: Scattered, state: ItemState, count: int) -> str:
    """Wait until so many items stand there; return the batch's id."""

    async def found() -> tuple[str, int]:
        try:
            batch = await pieces.ledger.batches.by_name("", NAME)
            counts = None if batch is None else await pieces.ledger.batches.counts(batch.id)
        except LedgerUnavailable:
            return "", 0
        return ("", 0) if batch is None or counts is None else (batch.id, counts.by_state[state])

    return (await eventually(found, lambda seen: seen[1] >= count))[0]


async def crash(pieces: Scattered, *, seconds: float) -> None:
    """Let PostgreSQL end with all its connections, and come back."""
    await asyncio.to_thread(pieces.postgres.stop)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(pieces.postgres.start)


async def test_a_database_that_crashes_loses_and_repeats_nothing(pieces: Scattered) -> None:
    """It is away for seconds while lanes are full, while a killed worker's are taken over, and
    while people's runs write their results. Each line has one run and one result.
    """
    first = await pieces.worker("worker-1")
    await pieces.worker("worker-2")
    words = ("batch", "run", NAME, "-o", "out.jsonl", "--wait-for-people", "--max-in-flight", "48")
    run = pieces.command("run", *words)
    running = asyncio.create_task(run())

    await until(pieces, ItemState.COMPLETED, ITEMS // 10)
    await crash(pieces, seconds=3)
    await until(pieces, ItemState.COMPLETED, ITEMS // 3)
    await first.kill()
    await crash(pieces, seconds=1)
    await first.start()
    batch_id = await until(pieces, ItemState.COMPLETED, ITEMS - PEOPLE)
    await until(pieces, ItemState.PROMOTED, PEOPLE)
    for item in await pieces.ledger.batch_items.promoted(batch_id):
        asked = await asyncio.to_thread(pieces.simulator.runs, stamp=item.run_id)
        [call] = asked[0]["required_action"]["submit_tool_outputs"]["tool_calls"]
        await pieces.command("person", "submit", str(item.run_id), f"{call['id']}=yes")()
        if item.index == 0:
            await crash(pieces, seconds=1)
    said = await asyncio.wait_for(running, 120)
    results = result_lines(pieces.place("run") / "out.jsonl")
    upstream: list[dict[str, Any]] = await asyncio.to_thread(pieces.simulator.runs)

    assert 0 == said.code, said
    assert sorted(f"line-{number}" for number in range(ITEMS)) == sorted(
        line["custom_id"] for line in results
    )
    assert {"completed"} == {line["runlane"]["state"] for line in results}
    created = Counter(each["metadata"]["runlane_run_id"] for each in upstream)
    assert Counter(line["runlane"]["run_id"] for line in results) == created
    assert {1} == set(created.values())
