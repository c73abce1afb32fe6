"""Temporal's Reset: a run begins again from an old moment, while upstream nothing is undone."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from temporalio.api.history.v1 import HistoryEvent

from tests.histories import history
from tests.lab import Lab, eventually
from tests.outsider import Outsider
from tests.resetting import reset

ASK = {"queued": 0.05, "in_progress": 0.05, "calls": [{"name": "pay"}]}
LAST = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}
ENDLESS = {"queued": 0.0, "ends": "never"}
SUBMIT = "runs.submit_tool_outputs"


def scheduling(run_events: list[HistoryEvent], activity: str) -> Callable[[HistoryEvent], bool]:
    """Choose the task that scheduled an activity."""
    task = next(
        event.activity_task_scheduled_event_attributes.workflow_task_completed_event_id
        for event in run_events
        if event.activity_task_scheduled_event_attributes.activity_type.name == activity
    )
    return lambda event: event.event_id == task


async def test_a_reset_to_the_beginning_adopts_the_upstream_run(lab: Lab) -> None:
    """Begun anew while its upstream run waits, a run finds it by its stamp and asks again."""
    await lab.scenario(rounds=[ASK, LAST])
    run = await lab.start(deadline=3600.0)
    before = await run.until_status("requires_action")

    run = await reset(lab, run)

    after = await run.until_status("requires_action")
    assert after.runlane.upstream_run_id == before.runlane.upstream_run_id
    assert after.runlane.attempt == 1
    assert after.runlane.pending[0].tool_call_id == before.runlane.pending[0].tool_call_id
    assert after.run.created_at == before.run.created_at
    assert after.runlane.deadline_at == before.runlane.deadline_at
    await run.answer_all()
    assert (await run.result()).run.status == "completed"
    assert await lab.received("runs.create") == 1
    assert await lab.received("runs.submit_tool_outputs") == 1


async def test_a_reset_to_the_beginning_after_the_submit(lab: Lab, outsider: Outsider) -> None:
    """Begun anew after its outputs were taken, a run doesn't submit a second time."""
    await lab.scenario(rounds=[ASK, ENDLESS])
    run = await lab.start()
    await run.answer_all("paid")
    await run.until(lambda view: [a.outcome for a in view.runlane.answers] == ["submitted"])

    run = await reset(lab, run)

    view = await run.until(lambda view: view.runlane.upstream_run_id is not None)
    assert view.runlane.upstream_run_id == outsider.runs()[0]["id"]
    await lab.force(str(view.runlane.upstream_run_id), "completed")
    result = await run.result()
    assert result.run.status == "completed"
    assert await lab.received("runs.create") == 1
    assert await lab.received("runs.submit_tool_outputs") == 1


async def test_a_reset_to_the_beginning_after_two_rounds(lab: Lab, outsider: Outsider) -> None:
    """Begun anew while its third round waits, a run takes the upstream as it stands: nothing that
    was submitted is submitted again, under whatever ids the calls come.
    """
    await lab.scenario(rounds=[ASK, ASK, ASK, LAST])
    run = await lab.start()
    for number in (1, 2):
        await run.until(lambda view, n=number: view.runlane.rounds == n)  # type: ignore[misc]
        await run.answer_all(f"paid {number}")
    before = await run.until(lambda view: view.runlane.rounds == 3)

    run = await reset(lab, run)

    after = await run.until_status("requires_action")
    assert after.runlane.upstream_run_id == before.runlane.upstream_run_id
    assert after.runlane.pending[0].tool_call_id == before.runlane.pending[0].tool_call_id
    await run.answer_all("paid 3")
    assert (await run.result()).run.status == "completed"
    sent = [body["tool_outputs"][0]["output"] for body in outsider.bodies(SUBMIT)]
    assert sent == ["paid 1", "paid 2", "paid 3"]
    assert await lab.received(SUBMIT) == 3
    assert await lab.received("runs.create") == 1


@pytest.mark.parametrize("second", [ENDLESS, {**ASK, "calls": [{"name": "other"}]}])
async def test_a_reset_to_the_submit(lab: Lab, outsider: Outsider, second: dict[str, Any]) -> None:
    """Reset to the moment of its submit, a run reads that its outputs are in and goes on from
    there, also when the upstream asks for the next ones already.
    """
    await lab.scenario(rounds=[ASK, second, LAST])
    run = await lab.start()
    await run.answer_all("paid")
    await run.until(lambda view: [a.outcome for a in view.runlane.answers] == ["submitted"])
    if second is not ENDLESS:
        await run.until_status("requires_action")

    events = await history(run)
    run = await reset(lab, run, scheduling(events, "runs.submit_tool_outputs"))

    view = await run.until(lambda view: [a.outcome for a in view.runlane.answers] == ["submitted"])
    assert await lab.received("runs.submit_tool_outputs") == 1
    assert outsider.bodies("runs.submit_tool_outputs")[0]["tool_outputs"][0]["output"] == "paid"
    if second is ENDLESS:
        await lab.force(str(view.runlane.upstream_run_id), "completed")
    else:
        await run.answer_all("second")
    assert (await run.result()).run.status == "completed"
    assert await lab.accepted("runs.create") == 1


async def test_a_reset_while_the_create_is_under_way(lab: Lab, outsider: Outsider) -> None:
    """Reset in the midst of a create that was accepted: it is looked for, though the activity
    was scheduled before the reset, and though the upstream run has ended and locks nothing.
    """
    await lab.scenario(rounds=[LAST])
    fault = await lab.fault("runs.create", "hold_after")
    run = await lab.start()
    await lab.held(fault)
    # A task of its own, so that there is one to go back to after the create was scheduled.
    await run.signal(("call_early", "x"))
    await run.until(lambda view: view.runlane.early == ["call_early"])
    await eventually(lambda: _statuses(outsider), lambda statuses: statuses == ["completed"])
    scheduled = await history(run)
    first = scheduling(scheduled, "runs.create")

    run = await reset(lab, run, lambda event: not first(event))
    await lab.release(fault, answer=False)

    result = await run.result()
    assert result.run.status == "completed"
    assert await _statuses(outsider) == ["completed"]
    assert await lab.accepted("runs.create") == 1


async def _statuses(outsider: Outsider) -> list[str]:
    return [upstream["status"] for upstream in outsider.runs()]


async def test_a_reset_after_a_cancel(lab: Lab, outsider: Outsider) -> None:
    """A run that was cancelled and begun anew reports what became of its upstream run."""
    await lab.scenario(rounds=[ASK, LAST])
    run = await lab.start()
    await run.until_status("requires_action")
    await run.cancel()
    assert (await run.result()).run.status == "cancelled"

    run = await reset(lab, run)

    result = await run.result()
    assert result.run.status == "cancelled"
    assert await _statuses(outsider) == ["cancelled"]
    assert await lab.accepted("runs.create") == 1
    assert await lab.accepted("runs.cancel") == 1


@pytest.mark.parametrize("expired", [False, True])
async def test_a_reset_while_a_cancel_is_under_way(
    lab: Lab, outsider: Outsider, expired: bool
) -> None:
    """Temporal hands the cancel over once more, before the run begun anew has looked upstream:
    what it created before is found and cancelled all the same.
    """
    await lab.scenario(rounds=[ASK, ENDLESS if expired else LAST])
    run = await lab.start()
    view = await run.until_status("requires_action")
    if expired:
        await lab.force(str(view.runlane.upstream_run_id), "expired")
        await run.answer_all()
        await run.until(lambda view: view.runlane.attempt == 2)
    refused = await lab.fault("runs.cancel", "status", status=503, times=0)
    await run.cancel()
    await eventually(lambda: lab.received("runs.cancel"), lambda tries: tries >= 1)
    creates = [e for e in await history(run) if _schedules(e, "runs.create")]
    last = creates[-1].activity_task_scheduled_event_attributes.workflow_task_completed_event_id

    run = await reset(lab, run, lambda event: event.event_id == last)
    await asyncio.to_thread(lab.simulator.remove_fault, refused)

    result = await run.result()
    assert result.run.status == "cancelled"
    assert result.runlane.uncertain is None
    assert (await _statuses(outsider))[-1] == "cancelled"
    assert await lab.accepted("runs.create") == len(creates)


def _schedules(event: HistoryEvent, activity: str) -> bool:
    return event.activity_task_scheduled_event_attributes.activity_type.name == activity
