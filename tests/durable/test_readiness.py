"""Readiness: whoever asks a worker that has only just begun hears of it when it serves."""

import asyncio
import secrets
from pathlib import Path

import pytest
from temporalio.client import Client

from activities.runs import RunActivities
from runlane.monitoring import readiness
from runsapi import Assistants
from tests.ledgers import open_in
from tests.simulator_process import SimulatorProcess
from worker import build_workers, shut_down
from workflows.task_queues import poll_task_queue


async def test_a_worker_that_is_about_to_serve_is_waited_for(
    client: Client, simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An orchestrator that asks every ten seconds would else know ten seconds too late."""
    # Long enough for a machine that is busy with other tests.
    monkeypatch.setattr(readiness, "STARTS_WITHIN", 30.0)
    task_queue = f"tq-{secrets.token_hex(6)}"
    asked = readiness.Readiness()
    async with Assistants(simulator.url) as upstream, await open_in(tmp_path) as ledger:
        activities = RunActivities(upstream, ledger)
        workers = build_workers(client, activities, ledger=ledger, task_queue=task_queue)
        asked.watch(client, workers, [task_queue, poll_task_queue(task_queue)])
        answer = asyncio.create_task(asked.problem())
        await asyncio.sleep(0.3)
        assert not answer.done()

        serving = [asyncio.create_task(worker.run()) for worker in workers]
        try:
            assert await answer is None
        finally:
            await shut_down(workers, serving)


async def test_an_ending_worker_is_not_waited_for() -> None:
    """It says at once that it ends."""
    asked = readiness.Readiness()
    asked.end()

    assert "the worker is shutting down" == await asyncio.wait_for(asked.problem(), 10)
