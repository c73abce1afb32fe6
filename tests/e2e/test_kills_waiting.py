"""A worker is killed while a run waits: in a poll, on a timer, for answers, or continues as new."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

from runlane.embedded import EmbeddedTemporal
from runlane.messages import ALONE_AFTER
from runlane.orchestrator import Runlane
from runlane.settings import Settings
from runlane.temporal import connect
from tests.lab import QUICK, Lab, LabRun, eventually
from tests.processes import GOES_ON_WITHIN, Plant, WorkerProcess
from tests.simulator_process import SimulatorProcess
from tests.temporal_server import encrypting

CALLS: list[dict[str, Any]] = [{"name": "lookup_order", "arguments": {"order_id": "A-1042"}}]
ASKS: dict[str, Any] = {"queued": 0.05, "in_progress": 0.1, "calls": CALLS}

UNHURRIED = QUICK.model_copy(update={"look_floor": 600.0})
"""Nothing is asked of the upstream while answers are awaited."""


async def _completes_once(lab: Lab, run: LabRun) -> None:
    """Wait for the end, and hold that the upstream took one create and one submit."""
    result = await run.result()

    assert "completed" == result.run.status
    assert ["submitted"] == [answer.outcome for answer in result.runlane.answers]
    assert 1 == await lab.accepted("runs.create")
    assert 1 == await lab.accepted("runs.submit_tool_outputs")


async def _last_event(run: LabRun) -> HistoryEvent:
    history = await run.handle.fetch_history()
    return history.events[-1]


async def test_attached(plant: Plant) -> None:
    """A poll that dies attached is taken up by another worker, in a request or between two."""
    in_request, between = labs = (plant.lab, plant.another_lab())
    for lab in labs:
        await lab.scenario(rounds=[{"queued": 0.05, "in_progress": 600}])
    held = await in_request.fault("runs.retrieve", "hold_before", after=3)
    first = await plant.worker()
    runs = [await in_request.start(), await between.start(poll_interval_ms=1500)]
    await in_request.held(held)
    await eventually(lambda: between.received("runs.retrieve"), bool)
    await plant.worker()

    died_at = await first.kill()
    await in_request.release(held, answer=False)
    await asyncio.gather(*(plant.goes_on(died_at, lab) for lab in labs))

    for lab, run in zip(labs, runs, strict=True):
        view = await run.view()
        await lab.force(view.runlane.upstream_run_id or "", "completed")
        result = await run.result()
        assert "completed" == result.run.status
        assert 1 == await lab.accepted("runs.create")
        # The heartbeat's count has gone over to the other worker.
        assert 3 <= result.runlane.polls


async def test_on_a_timer(plant: Plant) -> None:
    """A timer outlives the worker that set it, and another one polls when it is due."""
    lab = plant.lab
    await lab.scenario(rounds=[{"polls": 1, "calls": CALLS}])
    first = await plant.worker()
    run = await lab.start(timing=QUICK.model_copy(update={"timer_from": 1.0, "poll_floor": 4.0}))
    await eventually(
        lambda: _last_event(run),
        lambda event: event.event_type == EventType.EVENT_TYPE_TIMER_STARTED,
    )
    await plant.worker()

    died_at = await first.kill()
    await plant.goes_on(died_at)

    assert "TIMER_FIRED" in await run.events()
    await run.answer_all()
    await _completes_once(lab, run)


async def test_waiting(plant: Plant) -> None:
    """An answer given right after the kill is taken by the next worker."""
    lab = plant.lab
    await lab.scenario(rounds=[ASKS])
    first = await plant.worker()
    run = await lab.start(timing=UNHURRIED)
    view = await run.until_status("requires_action")
    await plant.worker()

    died_at = await first.kill()
    assert ["accepted"] == await run.submit((view.runlane.pending[0].tool_call_id, "ok"))
    await plant.goes_on(died_at)

    await _completes_once(lab, run)


async def test_answered_while_no_worker_lives(plant: Plant) -> None:
    """Answers given while nobody serves the queue are used as soon as somebody does."""
    lab = plant.lab
    await lab.scenario(rounds=[ASKS])
    first = await plant.worker()
    run = await lab.start(timing=UNHURRIED)
    view = await run.until_status("requires_action")
    await first.kill()

    (call,) = view.runlane.pending
    await run.signal((call.tool_call_id, "ok"))
    await run.signal((call.tool_call_id, "another"), ("call_of_nobody", "?"))
    await plant.worker()
    await plant.goes_on(time.time())

    await _completes_once(lab, run)
    view = await run.result()
    assert [(call.tool_call_id, "conflict")] == [
        (answer.tool_call_id, answer.reason) for answer in view.runlane.rejected
    ]
    assert ["call_of_nobody"] == view.runlane.early


async def test_an_answer_waits_for_a_worker_that_is_behind(plant: Plant) -> None:
    """A worker that is there and slow is no missing one: the answer is given once, and taken."""
    lab = plant.lab
    await lab.scenario(rounds=[ASKS])
    worker = await plant.worker()
    run = await lab.start(timing=UNHURRIED)
    view = await run.until_status("requires_action")
    desk = Runlane(plant.client, Settings(task_queue=lab.task_queue))
    (call,) = view.runlane.pending
    answer = {"tool_call_id": call.tool_call_id, "output": "ok"}

    worker.pause()
    giving = asyncio.create_task(desk.runs.deliver(run.id, tool_outputs=[answer]))
    await asyncio.sleep(2 * ALONE_AFTER.total_seconds())
    worker.resume()

    given = await giving
    assert ["accepted"] == [receipt.status for receipt in given.receipts]
    await _completes_once(lab, run)
    assert 1 == await _updates(run)


async def _updates(run: LabRun) -> int:
    kind = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED
    history = await run.handle.fetch_history()
    return sum(event.event_type == kind for event in history.events)


@pytest_asyncio.fixture
async def short_histories(
    simulator: SimulatorProcess, tmp_path: Path, record_property: Callable[[str, object], None]
) -> AsyncIterator[Plant]:
    """A plant whose server suggests continuing as new after a few events."""
    config = {"limit.historyCount.suggestContinueAsNew": 30}
    async with EmbeddedTemporal(tmp_path, extra_dynamic_config=config) as server:
        client = await connect(encrypting(tmp_path), environ={"TEMPORAL_ADDRESS": server.address})
        plant = Plant(server.address, client, simulator, tmp_path)
        try:
            yield plant
        finally:
            await plant.dispose()
            record_property("went_on_after", plant.went_on_after)


async def _die_continuing_as_new(worker: WorkerProcess, run: LabRun) -> tuple[float, int]:
    """Kill the worker over the task in which the run would continue as new.

    Each turn delivers an early answer while the worker is paused, and looks at the task it gets.

    Returns:
        When it died, and how many early answers were delivered.
    """
    for turn in range(60):
        worker.pause()
        await run.signal((f"early_{turn}", "kept"))
        started = await eventually(
            lambda: _last_event(run),
            lambda event: event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED,
        )
        if started.workflow_task_started_event_attributes.suggest_continue_as_new:
            return await worker.kill(), turn + 1
        worker.resume()
        await eventually(
            lambda: _last_event(run),
            lambda event: event.event_type != EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED,
        )
    raise AssertionError("the server never suggested to continue as new")


@pytest.mark.parametrize("waits", ["attached", "for answers"])
async def test_continuing_as_new(short_histories: Plant, waits: str) -> None:
    """A run whose worker dies over its continuing as new continues, and has lost nothing."""
    plant, lab = short_histories, short_histories.lab
    await lab.scenario(
        rounds=[ASKS if waits == "for answers" else {"in_progress": 10, "calls": CALLS}]
    )
    first = await plant.worker()
    run = await lab.start(timing=UNHURRIED)
    if waits == "for answers":
        await run.until_status("requires_action")
    else:
        await eventually(lambda: lab.received("runs.retrieve"), bool)
    before = (await run.handle.describe()).run_id
    await plant.worker()

    died_at, delivered = await _die_continuing_as_new(first, run)
    following = await eventually(run.handle.describe, lambda now: now.run_id != before)
    took = following.start_time.timestamp() - died_at
    plant.went_on_after.append(round(took, 2))
    assert took <= GOES_ON_WITHIN

    view = await run.answer_all()
    assert {f"early_{turn}" for turn in range(delivered)} == set(view.runlane.early)
    await _completes_once(lab, run)


async def test_killed_again_and_again_while_continuing_as_new(short_histories: Plant) -> None:
    """Kills at any moment of a run that continues as new every few polls lose nothing."""
    plant, lab = short_histories, short_histories.lab
    await lab.scenario(rounds=[{"queued": 0.05, "in_progress": 600}])
    worker = await plant.worker()
    run = await lab.start(timing=QUICK.model_copy(update={"timer_from": 0.05}))
    generations = {(await run.handle.describe()).run_id}
    for turn in range(3):
        await run.signal((f"early_{turn}", "kept"))
        latest = await eventually(
            run.handle.describe,
            lambda now: now.run_id not in generations,
        )
        generations.add(latest.run_id)
        following = await plant.worker()
        died_at = await worker.kill()
        await plant.goes_on(died_at)
        worker = following

    view = await run.view()
    assert {f"early_{turn}" for turn in range(3)} == set(view.runlane.early)
    await lab.force(view.runlane.upstream_run_id or "", "completed")
    result = await run.result()
    assert "completed" == result.run.status
    assert 1 == await lab.accepted("runs.create")
