"""An upstream that takes long for each answer: within the timeout, and beyond it."""

import asyncio

from tests.lab import QUICK, Lab, LabRun, eventually
from tests.processes import Plant

ASK = {"queued": 0.05, "in_progress": 0.05, "calls": [{"name": "look"}]}
DONE = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}
SLOW = 15
"""Runs on slow threads; each of them holds a request at all times."""


async def slow_threads(lab: Lab, seconds: float) -> tuple[list[str], list[str]]:
    threads = [f"{lab.thread_id}_slow_{number}" for number in range(SLOW)]
    faults = [
        await lab.fault("*", "slow", thread_id=thread, seconds=seconds, times=0)
        for thread in threads
    ]
    return threads, faults


async def answer(run: LabRun) -> None:
    view = await run.until(lambda view: bool(view.runlane.pending))
    await run.submit(*((call.tool_call_id, "ok") for call in view.runlane.pending))


async def happened(lab: Lab, thread: str) -> tuple[int, int]:
    """How many creates and submits took effect on a thread."""
    report = await asyncio.to_thread(lambda: lab.simulator.requests(thread_id=thread))
    accepted = report["accepted"]
    return accepted.get("runs.create", 0), accepted.get("runs.submit_tool_outputs", 0)


async def test_an_answer_that_takes_longer_than_an_update_may_be_tried(plant: Plant) -> None:
    """What is within the timeout is waited for, whatever else has a limit."""
    lab = plant.lab
    await plant.worker(RUNLANE_UPSTREAM_TIMEOUT="30s")
    await lab.scenario(rounds=[ASK, DONE])
    await lab.fault("*", "slow", seconds=2.5, times=0)
    run = await lab.start(timing=QUICK.model_copy(update={"effect_for": 1.0}))
    await answer(run)

    result = await run.result()

    assert result.run.status == "completed"
    assert await happened(lab, lab.thread_id) == (1, 1)
    assert await lab.received("runs.create") == 1
    assert await lab.received("runs.submit_tool_outputs") == 1


async def test_an_upstream_that_is_slower_than_the_timeout(plant: Plant) -> None:
    """Every answer comes too late. Nothing is done twice, other threads' runs are as quick as ever,
    a cancel is taken, and all go on when the upstream has recovered.
    """
    lab = plant.lab
    await plant.worker(RUNLANE_UPSTREAM_TIMEOUT="1.5s")
    await lab.scenario(rounds=[ASK, DONE])
    threads, faults = await slow_threads(lab, 2.5)
    runs = [await lab.start(thread_id=thread) for thread in threads]

    async def created() -> list[tuple[int, int]]:
        return [await happened(lab, thread) for thread in threads]

    await eventually(created, lambda counts: counts == [(1, 0)] * SLOW)
    quick = plant.another_lab()
    await quick.scenario(rounds=[ASK, DONE])
    run = await quick.start()
    await answer(run)
    assert (await run.result(seconds=20)).run.status == "completed"
    await runs[0].cancel()
    assert (await runs[0].view()).run.status in ("cancelling", "cancelled")

    for fault in faults:
        await asyncio.to_thread(lab.simulator.remove_fault, fault)
    await asyncio.gather(*(answer(run) for run in runs[1:]))
    results = await asyncio.gather(*(run.result() for run in runs))

    assert [result.run.status for result in results] == ["cancelled", *["completed"] * (SLOW - 1)]
    assert await created() == [(1, 0), *[(1, 1)] * (SLOW - 1)]


async def test_what_waits_for_its_turn_is_not_sent_once_the_run_is_stopped(plant: Plant) -> None:
    """The one place is taken, so the create of a second run hasn't left when it is cancelled: it
    is given up, nothing is uncertain, and no upstream run ever comes to be.
    """
    lab, other = plant.lab, plant.another_lab()
    await plant.worker(RUNLANE_UPSTREAM_MAX_CONCURRENCY="1")
    await lab.scenario(rounds=[DONE])
    held = await lab.fault("runs.create", "hold_before")
    first = await lab.start()
    await lab.held(held)
    waiting = await other.start()

    async def at_work() -> bool:
        described = await waiting.handle.describe()
        pending = described.raw_description.pending_activities
        return any(activity.HasField("last_heartbeat_time") for activity in pending)

    async def given_up() -> bool:
        return bool({"ACTIVITY_TASK_FAILED", "ACTIVITY_TASK_CANCELED"} & {*await waiting.events()})

    await eventually(at_work, bool)
    await waiting.cancel()
    await eventually(given_up, bool)
    await lab.release(held)
    result = await waiting.result()

    assert result.run.status == "cancelled"
    assert result.runlane.uncertain is None
    assert (await first.result()).run.status == "completed"
    assert await other.received("runs.create") == 0
