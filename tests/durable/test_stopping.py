"""Cancel, Temporal's own cancellation and the deadline: all take one way to the truth."""

import asyncio

import pytest
from temporalio.client import WorkflowUpdateFailedError

from tests.lab import QUICK, Lab, eventually

ONE_CALL = [{"queued": 0.1, "in_progress": 0.1, "calls": [{"name": "pay", "arguments": {}}]}, {}]
ENDLESS = [{"queued": 0.0, "ends": "never"}]


async def test_cancel_while_answers_are_awaited(lab: Lab) -> None:
    """A waiting run is cancelled upstream and ends cancelled; answers are late from then on."""
    await lab.scenario(rounds=ONE_CALL, cancel_seconds=1.0)
    run = await lab.start()
    view = await run.until_status("requires_action")

    await run.cancel()

    assert await run.submit((view.runlane.pending[0].tool_call_id, "ok")) == ["late"]
    result = await run.result()
    assert (result.run.status, result.run.last_error) == ("cancelled", None)
    assert result.run.cancelled_at is not None
    assert await lab.accepted("runs.cancel") == 1
    assert await lab.accepted("runs.submit_tool_outputs") == 0


async def test_cancel_in_a_leg(lab: Lab) -> None:
    """An attached poll is given up at once for the cancel."""
    await lab.scenario(rounds=ENDLESS)
    run = await lab.start()
    await run.until_status("in_progress", "queued")
    await eventually(lambda: lab.received("runs.retrieve"), lambda polls: polls > 0)

    await run.cancel()

    result = await run.result()
    assert result.run.status == "cancelled"
    assert await lab.accepted("runs.cancel") == 1


async def test_a_cancel_that_loses(lab: Lab) -> None:
    """If the upstream completes first, the run completed, whatever was asked."""
    await lab.scenario(rounds=[{"queued": 0.1, "in_progress": 0.1}], cancel_loses=True)
    hold = await lab.fault("runs.retrieve", "hold_before")
    run = await lab.start()
    await lab.held(hold)
    await asyncio.sleep(0.5)

    await run.cancel()
    await lab.release(hold)

    result = await run.result()
    assert result.run.status == "completed"
    assert result.runlane.cancel_requested


@pytest.mark.parametrize("how", ["update", "temporal"])
@pytest.mark.parametrize("moment", ["before", "while", "after"])
async def test_cancel_around_a_create(lab: Lab, moment: str, how: str) -> None:
    """No upstream run outlives a run that was cancelled while it was created."""
    await lab.scenario(rounds=ENDLESS)
    kinds = {"before": "hold_before", "while": "hold_after", "after": "slow"}
    fault = await lab.fault("runs.create", kinds[moment], seconds=0.3)
    run = await lab.start()
    if moment != "after":
        await lab.held(fault)
    else:
        await eventually(lambda: lab.accepted("runs.create"), lambda creates: creates == 1)

    await (run.cancel() if how == "update" else run.handle.cancel())
    await asyncio.sleep(0.3)
    if moment != "after":
        await lab.release(fault)

    result = await run.result()
    assert result.run.status == "cancelled"
    assert result.runlane.uncertain is None
    assert await lab.accepted("runs.create") == 1
    assert await lab.accepted("runs.cancel") == 1


async def test_cancel_during_a_create_whose_answer_is_lost(lab: Lab) -> None:
    """The upstream run that nobody heard of is found by its stamp and cancelled."""
    await lab.scenario(rounds=ENDLESS)
    fault = await lab.fault("runs.create", "hold_after")
    run = await lab.start()
    await lab.held(fault)

    await run.handle.cancel()
    await asyncio.sleep(0.3)
    await lab.release(fault, answer=False)

    result = await run.result()
    assert result.run.status == "cancelled"
    assert result.runlane.upstream_run_id is not None
    assert await lab.accepted("runs.create") == 1
    assert await lab.accepted("runs.cancel") == 1


async def test_cancel_during_a_create_with_the_upstream_down(lab: Lab) -> None:
    """What can't be established in time is said to be uncertain."""
    fault = await lab.fault("*", "reset", times=0)
    timing = QUICK.model_copy(update={"cancel_for": 4.0})
    run = await lab.start(timing=timing)
    await eventually(lambda: lab.received("runs.create"), lambda creates: creates > 0)

    await run.handle.cancel()

    result = await run.result()
    assert result.run.status == "cancelled"
    assert result.runlane.uncertain is not None
    assert lab.thread_id in result.runlane.uncertain
    assert fault


async def test_an_upstream_that_never_ends_a_cancel(lab: Lab) -> None:
    """The truth is sought for as long as told, then the end is uncertain and names the run."""
    await lab.scenario(rounds=ENDLESS, cancel_seconds=60.0)
    run = await lab.start(timing=QUICK.model_copy(update={"cancel_for": 3.0}))
    view = await run.until(lambda view: view.runlane.upstream_run_id is not None)

    await run.cancel()

    result = await run.result()
    assert result.run.status == "cancelled"
    assert result.runlane.uncertain is not None
    assert str(view.runlane.upstream_run_id) in result.runlane.uncertain


async def test_an_upstream_run_that_expires_while_it_is_cancelled(lab: Lab) -> None:
    """It is not created anew: the run was to end."""
    await lab.scenario(rounds=ENDLESS, cancel_seconds=60.0)
    run = await lab.start()
    view = await run.until(lambda view: view.runlane.upstream_run_id is not None)

    await run.cancel()
    await eventually(lambda: lab.accepted("runs.cancel"), lambda cancels: cancels == 1)
    await lab.force(str(view.runlane.upstream_run_id), "expired")

    result = await run.result()
    assert result.run.status == "cancelled"
    assert await lab.accepted("runs.create") == 1


async def test_cancel_while_parked(lab: Lab) -> None:
    """With no upstream run alive, the end needs no request."""
    await lab.scenario(rounds=ONE_CALL, expires_after=1)
    run = await lab.start()
    await run.until(lambda view: view.runlane.parked)

    await run.cancel()

    result = await run.result(seconds=20)
    assert result.run.status == "cancelled"
    assert await lab.received("runs.cancel") == 0


async def test_the_deadline(lab: Lab) -> None:
    """At its deadline a waiting run is cancelled upstream and ends expired, with the reason."""
    await lab.scenario(rounds=ONE_CALL)
    run = await lab.start(deadline=8.0)

    result = await run.result()

    assert result.run.status == "expired"
    assert result.run.last_error is not None
    assert "deadline" in result.run.last_error.message
    assert not result.runlane.cancel_requested
    assert await lab.accepted("runs.cancel") == 1


async def test_a_near_deadline_leaves_time_for_a_request(lab: Lab) -> None:
    """With a second or two left, a create is still sent and its answer waited for."""
    await lab.scenario(rounds=ENDLESS)
    slow = await lab.fault("runs.create", "slow", seconds=0.5)
    run = await lab.start(deadline=4.0)

    result = await run.result()

    assert slow
    assert result.run.status == "expired"
    assert await lab.accepted("runs.create") == 1
    assert result.runlane.attempts[0].attempt == 1


async def test_the_deadline_in_a_leg(lab: Lab) -> None:
    """A leg without end is cut by the deadline."""
    await lab.scenario(rounds=ENDLESS)
    run = await lab.start(deadline=8.0)

    result = await run.result()

    assert result.run.status == "expired"
    assert await lab.accepted("runs.cancel") == 1


async def test_the_deadline_while_parked(lab: Lab) -> None:
    """A parked run whose time is up ends expired, and nothing is sent for it."""
    await lab.scenario(rounds=ONE_CALL, expires_after=1)
    run = await lab.start(deadline=8.0)
    await run.until(lambda view: view.runlane.parked)

    result = await run.result()

    assert result.run.status == "expired"
    assert await lab.received("runs.cancel") == 0


async def test_the_deadline_while_the_thread_is_taken(lab: Lab) -> None:
    """A run that never got its thread ends expired; the other's run is left alone."""
    await lab.scenario(rounds=ENDLESS)
    first = await lab.start()
    await first.until(lambda view: view.runlane.upstream_run_id is not None)
    second = await lab.start(deadline=8.0, timing=QUICK.model_copy(update={"settle_for": 0.5}))

    result = await second.result()

    assert result.run.status == "expired"
    assert result.runlane.uncertain is None
    assert await lab.accepted("runs.create") == 1
    assert (await first.view()).run.status in ("queued", "in_progress")
    await first.cancel()
    await first.result()


async def test_cancel_twice_and_after_the_end(lab: Lab) -> None:
    """A second cancel changes nothing, and one after the end is refused."""
    await lab.scenario(rounds=ENDLESS, cancel_seconds=0.5)
    run = await lab.start()
    await run.until(lambda view: view.runlane.upstream_run_id is not None)

    await run.cancel()
    await run.cancel()

    assert (await run.result()).run.status == "cancelled"
    assert await lab.accepted("runs.cancel") == 1
    with pytest.raises(Exception, match=r"completed|not found") as refused:
        await run.cancel()
    assert not isinstance(refused.value, WorkflowUpdateFailedError)


@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_stopped_while_blocked_before_a_create(lab: Lab, how: str) -> None:
    """Table, blocked before create: a cancel ends it `cancelled`, the deadline `expired`; with no
    upstream run alive nothing is sent for it.
    """
    await lab.scenario(rounds=ONE_CALL, expires_after=1)
    run = await lab.start(
        deadline=8.0 if how == "deadline" else 600.0,
        timing=QUICK.model_copy(update={"blocked_floor": 60.0}),
    )
    await run.until(lambda view: view.runlane.parked)
    await lab.fault("runs.create", "unauthorized", times=0)
    await run.answer_all()
    view = await run.until(lambda view: view.runlane.blocked is not None)
    assert view.runlane.blocked is not None
    assert view.runlane.blocked.kind == "credentials"

    if how == "cancel":
        await run.cancel()

    result = await run.result()
    assert result.run.status == ("cancelled" if how == "cancel" else "expired")
    assert result.runlane.uncertain is None
    assert [answer.outcome for answer in result.runlane.answers] == ["unused"]
    assert await lab.received("runs.cancel") == 0
    assert await lab.accepted("runs.create") == 1
