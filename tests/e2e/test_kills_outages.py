"""What a run lives on is gone for a while: Temporal's server, or the upstream."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from activities.failures import LONGEST_BACKOFF
from runlane.embedded import EmbeddedTemporal
from runlane.temporal import connect
from tests.lab import QUICK, Lab, LabRun, eventually
from tests.processes import Plant
from tests.simulator_process import SimulatorProcess
from tests.temporal_server import encrypting

CALLS: list[dict[str, Any]] = [{"name": "lookup_order", "arguments": {"order_id": "A-1042"}}]
ASKS: dict[str, Any] = {"queued": 0.05, "in_progress": 0.1, "calls": CALLS}
POLLED: dict[str, Any] = {"polls": 6, "calls": CALLS}
WORKS_ON: dict[str, Any] = {"queued": 0.05, "in_progress": 600}

BACK_WITHIN = 15.0
"""Seconds from the end of an outage until a run has noticed."""


@dataclass
class _Going:
    """A run somewhere in its life."""

    lab: Lab
    run: LabRun

    async def ends_once(self, status: str = "completed", *, submits: int = 1) -> None:
        """Wait for the end, and hold that the upstream took everything once."""
        result = await self.run.result()

        assert status == result.run.status
        assert result.runlane.uncertain is None
        assert 1 == result.runlane.attempt
        assert 1 == await self.lab.accepted("runs.create")
        assert submits == await self.lab.accepted("runs.submit_tool_outputs")


async def _start(plant: Plant, *rounds: dict[str, Any], **options: Any) -> _Going:
    lab = plant.another_lab()
    await lab.scenario(rounds=list(rounds))
    return _Going(lab, await lab.start(**options))


async def _held(plant: Plant, operation: str, kind: str) -> tuple[_Going, str]:
    lab = plant.another_lab()
    await lab.scenario(rounds=[ASKS])
    fault = await lab.fault(operation, kind)
    run = await lab.start()
    if operation == "runs.submit_tool_outputs":
        await run.answer_all()
    await lab.held(fault)
    return _Going(lab, run), fault


async def _polled(going: _Going) -> None:
    await eventually(lambda: going.lab.received("runs.retrieve"), bool)


async def test_temporals_server_is_killed(
    simulator: SimulatorProcess,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Runs at every point of their life go on when the server is back on its file.

    Their worker lives on: it sees answers arrive that it can tell to nobody.
    """
    settings = encrypting(tmp_path)
    async with EmbeddedTemporal(tmp_path) as server:
        client = await connect(settings, environ={"TEMPORAL_ADDRESS": server.address})
        plant = Plant(server.address, client, simulator, tmp_path)
        try:
            await plant.worker()
            creating, create = await _held(plant, "runs.create", "hold_after")
            submitting, submit = await _held(plant, "runs.submit_tool_outputs", "hold_after")
            attached = await _start(plant, {"in_progress": 6, "calls": CALLS})
            on_timer = await _start(
                plant,
                POLLED,
                timing=QUICK.model_copy(update={"timer_from": 0.5, "poll_floor": 1.0}),
            )
            waiting = await _start(plant, ASKS)
            await asyncio.gather(_polled(attached), _polled(on_timer))
            await waiting.run.until_status("requires_action")

            os.kill(server.pid, signal.SIGKILL)
            assert -signal.SIGKILL == await server.wait()
            await creating.lab.release(create)
            await submitting.lab.release(submit)
            await asyncio.sleep(3)
            await server.stop()
            again = EmbeddedTemporal(
                tmp_path,
                port=int(server.address.rpartition(":")[2]),
                ui_port=int(server.ui_url.rpartition(":")[2]),
            )
            async with again:
                back_at = time.time()
                await asyncio.gather(
                    *(
                        plant.goes_on(back_at, going.lab)
                        for going in (creating, attached, on_timer, waiting)
                    )
                )
                asked = (creating, attached, on_timer, waiting)
                await asyncio.gather(*(going.run.answer_all() for going in asked))
                await asyncio.gather(*(going.ends_once() for going in (*asked, submitting)))
                assert 1 == await creating.lab.received("runs.create")
                assert 1 == await submitting.lab.received("runs.submit_tool_outputs")
                # While it can still say goodbye to the server.
                await plant.dispose()
        finally:
            await plant.dispose()
            record_property("went_on_after", plant.went_on_after)


@pytest_asyncio.fixture
async def outage(plant: Plant) -> AsyncIterator[Plant]:
    """A plant whose upstream is up again after the test, whatever happens in it."""
    try:
        yield plant
    finally:
        await asyncio.to_thread(plant.simulator.up)


async def _next_try(run: LabRun) -> float:
    """Return in how many seconds the run's failed request is tried again."""

    async def waits() -> list[float]:
        described = await run.handle.describe()
        return [
            (pending.scheduled_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
            for pending in described.raw_description.pending_activities
            if pending.attempt > 1 and pending.HasField("last_failure")
        ]

    return max(await eventually(waits, bool))


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_the_upstream_is_down_for_a_minute(outage: Plant) -> None:
    """Runs at every point of their life wait it out, and go on within 15 s of its end."""
    plant = outage
    await plant.worker()
    attached = await _start(plant, {"in_progress": 1, "calls": CALLS})
    waiting = await _start(plant, ASKS)
    cancelled = await _start(plant, WORKS_ON)
    await asyncio.gather(_polled(attached), _polled(cancelled))
    view = await waiting.run.until_status("requires_action")

    await asyncio.to_thread(plant.simulator.down)
    down_at = time.time()
    created = await _start(plant, ASKS)
    (call,) = view.runlane.pending
    assert ["accepted"] == await waiting.run.submit((call.tool_call_id, "ok"))
    await cancelled.run.cancel()
    everybody = (attached, waiting, cancelled, created)
    while time.time() < down_at + 60:
        for going in everybody:
            assert LONGEST_BACKOFF.total_seconds() >= await _next_try(going.run)
        await asyncio.sleep(5)
    await asyncio.to_thread(plant.simulator.up)
    up_at = time.time()
    await asyncio.gather(
        *(plant.goes_on(up_at, going.lab, within=BACK_WITHIN) for going in everybody)
    )

    asked = (attached, created)
    await asyncio.gather(*(going.run.answer_all() for going in asked))
    await asyncio.gather(
        *(going.ends_once() for going in (*asked, waiting)),
        cancelled.ends_once("cancelled", submits=0),
    )
    assert 1 == await cancelled.lab.accepted("runs.cancel")


async def test_killed_while_the_upstream_is_down(outage: Plant) -> None:
    """A worker that dies in an outage takes nothing with it: another one waits it out."""
    plant = outage
    first = await plant.worker()
    attached = await _start(plant, {"in_progress": 1, "calls": CALLS})
    waiting = await _start(plant, ASKS)
    await _polled(attached)
    view = await waiting.run.until_status("requires_action")

    await asyncio.to_thread(plant.simulator.down)
    created = await _start(plant, ASKS)
    (call,) = view.runlane.pending
    assert ["accepted"] == await waiting.run.submit((call.tool_call_id, "ok"))
    everybody = (attached, waiting, created)
    for going in everybody:
        await _next_try(going.run)
    died_at = await first.kill()
    await plant.worker()
    await asyncio.gather(*(plant.goes_on(died_at, going.lab) for going in everybody))
    await asyncio.to_thread(plant.simulator.up)
    up_at = time.time()
    await asyncio.gather(
        *(plant.goes_on(up_at, going.lab, within=BACK_WITHIN) for going in everybody)
    )

    await asyncio.gather(*(going.run.answer_all() for going in (attached, created)))
    await asyncio.gather(*(going.ends_once() for going in everybody))


async def test_killed_after_many_tries(plant: Plant) -> None:
    """However often a request has failed before, a dead worker is replaced within 15 s."""
    first = await plant.worker()
    tried: list[tuple[_Going, str]] = []
    for operation in ("runs.create", "runs.retrieve"):
        lab = plant.another_lab()
        await lab.scenario(rounds=[ASKS])
        await lab.fault(operation, "server_error", times=7, headers={"retry-after-ms": "10"})
        held = await lab.fault(operation, "hold_before")
        tried.append((_Going(lab, await lab.start()), held))
        await lab.held(held)
    await plant.worker()

    died_at = await first.kill()
    for going, held in tried:
        await going.lab.release(held, answer=False)
    await asyncio.gather(*(plant.goes_on(died_at, going.lab) for going, _ in tried))

    for going, _ in tried:
        await going.run.answer_all()
        await going.ends_once()
