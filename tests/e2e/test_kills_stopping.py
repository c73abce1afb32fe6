"""Workers that are told to stop, and several workers on one queue."""

import asyncio
import operator
import time
from functools import partial
from typing import Any

from temporalio.api.enums.v1 import EventType

from tests.lab import QUICK, Lab, LabRun, eventually
from tests.processes import Plant

CALLS: list[dict[str, Any]] = [{"name": "lookup_order", "arguments": {"order_id": "A-1042"}}]
ASKS: dict[str, Any] = {"queued": 0.05, "in_progress": 0.1, "calls": CALLS}
POLLED_EVERY = 500
"""Milliseconds."""

HANDED_OVER_WITHIN = 2.0
"""Seconds from SIGTERM until another worker polls, its polling interval included."""
ENDS_WITHIN = 10.0
"""Seconds from SIGTERM until a worker has ended that had nothing but polls."""
GRACE = 15.0
"""Seconds for which a worker waits for requests under way before it gives them up."""


async def _completes_once(lab: Lab, run: LabRun) -> None:
    """Wait for the end, and hold that the upstream took one create and one submit."""
    result = await run.result()

    assert "completed" == result.run.status
    assert 1 == await lab.accepted("runs.create")
    assert 1 == await lab.accepted("runs.submit_tool_outputs")


async def _workers_of(run: LabRun) -> set[int]:
    """Return the process ids of the workers that did a run's activities."""
    history = await run.handle.fetch_history()
    return {
        int(event.activity_task_started_event_attributes.identity.partition("@")[0])
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED
    }


async def test_a_poll_is_handed_over_at_once(plant: Plant) -> None:
    """A worker told to stop hands its attached polls to another one, at no event, and ends.

    A poll between two requests and one whose request the upstream doesn't answer.
    """
    between, in_request = labs = (plant.lab, plant.another_lab())
    first = await plant.worker()
    runs = []
    for lab in labs:
        await lab.scenario(rounds=[{"in_progress": 600, "calls": CALLS}])
        runs.append(await lab.start(poll_interval_ms=POLLED_EVERY))
    held = await in_request.fault("runs.retrieve", "hold_before", after=2)
    await in_request.held(held)
    await eventually(lambda: between.received("runs.retrieve"), lambda polls: polls >= 2)
    await plant.worker()
    events = [await run.events() for run in runs]

    stopped_at = time.time()
    first.terminate()
    await asyncio.gather(
        *(plant.goes_on(stopped_at, lab, within=HANDED_OVER_WITHIN) for lab in labs)
    )
    assert 0 == await first.wait()
    assert time.time() - stopped_at <= ENDS_WITHIN
    for lab in labs:
        polls = await lab.received("runs.retrieve")
        await eventually(partial(lab.received, "runs.retrieve"), partial(operator.le, polls + 2))

    assert events == [await run.events() for run in runs]
    for lab, run in zip(labs, runs, strict=True):
        view = await run.view()
        await lab.force(view.runlane.upstream_run_id or "", "completed")
        result = await run.result()
        assert "completed" == result.run.status
        assert 1 == await lab.accepted("runs.create")


async def test_requests_under_way_get_their_grace(plant: Plant) -> None:
    """A worker told to stop records the answers that come in time, and ends all the same.

    What a create did whose answer came too late, another worker finds out.
    """
    in_time, too_late = labs = (plant.lab, plant.another_lab())
    first = await plant.worker()
    faults, runs = [], []
    for lab in labs:
        await lab.scenario(rounds=[ASKS])
        faults.append(await lab.fault("runs.create", "hold_after"))
        runs.append(await lab.start())
        await lab.held(faults[-1])
    await plant.worker()

    stopped_at = time.time()
    first.terminate()
    await asyncio.sleep(2)
    await in_time.release(faults[0])
    assert 0 == await first.wait()
    assert GRACE - 1 <= time.time() - stopped_at <= GRACE + 10
    await plant.goes_on(stopped_at, too_late, within=GRACE + 10)

    for lab, run in zip(labs, runs, strict=True):
        await run.answer_all()
        await _completes_once(lab, run)
        assert 1 == await lab.received("runs.create")
    assert 0 == await in_time.received("runs.list")


async def test_a_stop_in_every_wait(plant: Plant) -> None:
    """A deploy in a quiet moment, on a timer or among answers awaited, is not noticed."""
    waiting, on_timer = plant.lab, plant.another_lab()
    await waiting.scenario(rounds=[ASKS])
    await on_timer.scenario(rounds=[{"polls": 3, "calls": CALLS}])
    first = await plant.worker()
    timed = QUICK.model_copy(update={"timer_from": 1.0, "poll_floor": 2.0, "look_floor": 600.0})
    runs = [await waiting.start(timing=timed), await on_timer.start(timing=timed)]
    await runs[0].until_status("requires_action")
    await eventually(lambda: on_timer.received("runs.retrieve"), bool)

    first.terminate()
    assert 0 == await first.wait()
    await plant.worker()

    for lab, run in zip((waiting, on_timer), runs, strict=True):
        await run.answer_all()
        await _completes_once(lab, run)


async def test_workers_share_the_load(plant: Plant) -> None:
    """Of two workers both get work; when one dies under it, the other one ends every run."""
    first, second = await asyncio.gather(plant.worker(), plant.worker())
    labs = [plant.another_lab() for _ in range(12)]
    for lab in labs:
        await lab.scenario(rounds=[{"queued": 0.1, "in_progress": 1, "calls": CALLS}])
    runs = [await lab.start() for lab in labs]

    async def busy() -> set[int]:
        return set[int]().union(*[await _workers_of(run) for run in runs])

    await eventually(busy, lambda pids: pids == {first.pid, second.pid})
    await first.kill()

    await asyncio.gather(*(run.answer_all() for run in runs))
    await asyncio.gather(*(_completes_once(lab, run) for lab, run in zip(labs, runs, strict=True)))
