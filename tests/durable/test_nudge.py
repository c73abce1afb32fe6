"""`nudge`: somebody saw or mended something, so look now; where that brings nothing, it is free."""

import asyncio

from tests.histories import activities, history, kinds
from tests.lab import QUICK, Lab, LabRun, eventually

ENDLESS = {"queued": 0.0, "ends": "never"}
LAST = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}
ASK = {"queued": 0.05, "in_progress": 0.05, "calls": [{"name": "look"}]}


async def nudge(run: LabRun) -> None:
    """Send a nudge, and wait until it has been handled."""
    await run.handle.signal("nudge")
    await run.view()


async def test_a_nudge_wakes_a_timer(lab: Lab) -> None:
    """A poll that is minutes away is made at once."""
    await lab.scenario(rounds=[{"queued": 0.0, "polls": 0}], poll_after_ms=120_000)
    run = await lab.start()
    await run.until(lambda view: view.runlane.upstream_run_id is not None)
    assert await lab.received("runs.retrieve") == 0

    await nudge(run)

    result = await run.result(seconds=10)
    assert result.run.status == "completed"
    assert result.runlane.polls == 1


async def test_a_nudge_right_after_a_poll_is_ignored(lab: Lab) -> None:
    """Within two seconds of a poll a nudge brings nothing new, however many come."""
    await lab.scenario(rounds=[ENDLESS], poll_after_ms=120_000)
    run = await lab.start()
    await run.until(lambda view: view.runlane.upstream_run_id is not None)
    await nudge(run)
    await run.until(lambda view: view.runlane.polls == 1)

    await asyncio.gather(*(run.handle.signal("nudge") for _ in range(5)))

    await asyncio.sleep(0.5)
    assert await lab.received("runs.retrieve") == 1
    assert activities(await history(run)).count("runs.retrieve") == 1
    await asyncio.sleep(1.6)
    await nudge(run)
    await run.until(lambda view: view.runlane.polls == 2)
    await run.cancel()
    await run.result()


async def test_a_nudge_while_attached_at_short_intervals_is_ignored(lab: Lab) -> None:
    """An attached poll at two seconds or less is about to look: it is left alone.

    Nor is the nudge kept for later: once the run waits for answers, nothing more is polled.
    """
    await lab.scenario(rounds=[{**ASK, "in_progress": 3.0}, LAST], poll_after_ms=1500)
    run = await lab.start()
    await eventually(lambda: lab.received("runs.retrieve"), lambda polls: polls >= 1)

    await nudge(run)
    await run.until_status("requires_action")
    await asyncio.sleep(0.5)

    events = await history(run)
    assert activities(events).count("runs.retrieve") == 1
    assert kinds(events)["ACTIVITY_TASK_CANCEL_REQUESTED"] == 0
    await run.answer_all()
    assert (await run.result()).run.status == "completed"


async def test_a_nudge_while_attached_at_long_intervals(lab: Lab) -> None:
    """An attached poll that would look in nine seconds is given up for a look now."""
    await lab.scenario(rounds=[{"queued": 0.0, "polls": 0}], poll_after_ms=9000)
    run = await lab.start()
    await run.until(lambda view: view.runlane.upstream_run_id is not None)
    clock = asyncio.get_running_loop().time
    began = clock()

    await nudge(run)

    assert (await run.result(seconds=8.5)).run.status == "completed"
    assert clock() - began < 8.5


async def test_a_nudge_while_answers_are_awaited(lab: Lab) -> None:
    """Somebody answered past us: a nudge sees it at once, long before the next look."""
    await lab.scenario(rounds=[ASK, LAST])
    timing = QUICK.model_copy(update={"look_floor": 60.0})
    run = await lab.start(timing=timing)
    view = await run.until_status("requires_action")
    await lab.force(str(view.runlane.upstream_run_id), "completed")
    # The poll that saw the question was a moment ago.
    await asyncio.sleep(2.1)

    await nudge(run)

    result = await run.result(seconds=10)
    assert result.run.status == "completed"
    assert await lab.received("runs.submit_tool_outputs") == 0


async def test_a_nudge_wakes_a_blocked_run_at_once(lab: Lab) -> None:
    """Who mended the key says so, and the run goes on without waiting for its next try.

    Unlike after a poll that worked, a nudge within two seconds counts.
    """
    await lab.scenario(rounds=[ASK, LAST])
    fault = await lab.fault("runs.retrieve", "unauthorized", times=0)
    run = await lab.start(timing=QUICK.model_copy(update={"blocked_floor": 60.0}))
    view = await run.until(lambda view: view.runlane.blocked is not None)
    assert view.runlane.blocked is not None
    assert view.runlane.blocked.kind == "credentials"

    await nudge(run)
    await eventually(lambda: lab.received("runs.retrieve"), lambda tries: tries == 2)
    await run.until(lambda view: view.runlane.blocked is not None)
    await asyncio.to_thread(lab.simulator.remove_fault, fault)
    await nudge(run)

    await run.until_status("requires_action")
    await run.answer_all()
    result = await run.result()
    assert result.run.status == "completed"
    assert result.runlane.blocked is None


async def test_a_nudge_during_a_blocked_runs_try_counts(lab: Lab) -> None:
    """What is mended while a try is under way comes too late for it: there is one more."""
    await lab.scenario(rounds=[ENDLESS])
    await lab.fault("runs.retrieve", "unauthorized", times=0)
    run = await lab.start(timing=QUICK.model_copy(update={"blocked_floor": 60.0}))
    await run.until(lambda view: view.runlane.blocked is not None)

    await nudge(run)
    await nudge(run)

    await eventually(lambda: lab.received("runs.retrieve"), lambda tries: tries == 3)
    await run.cancel()


async def test_nudges_that_keep_coming_leave_a_slow_look_its_time(lab: Lab) -> None:
    """Each would else give up the look under way, and none would ever be answered."""
    await lab.scenario(rounds=[{"queued": 0.0, "polls": 0}], poll_after_ms=120_000)
    await lab.fault("runs.retrieve", "slow", seconds=5, times=0)
    run = await lab.start()
    await run.until(lambda view: view.runlane.upstream_run_id is not None)

    async def status() -> str:
        await nudge(run)
        await asyncio.sleep(2.1)
        return str((await run.view()).run.status)

    assert "completed" == await eventually(status, lambda status: status == "completed")
