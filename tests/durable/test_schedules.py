"""Schedules on a real Temporal: each start is a run as any other, once, however it comes about."""

import asyncio
import secrets
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client

from runlane import Runlane
from runlane.errors import InvalidRequest, Refused, RunNotFound
from runlane.schedules import ScheduleNotFound, Schedules
from runlane.scheduling import Wanted
from runlane.settings import Settings
from runsapi import TERMINAL
from tests.lab import Lab, eventually
from tests.simulator_process import SimulatorProcess
from workflows.scheduled_contract import ID_PREFIX, scheduled_run_id

ENDLESS = {"queued": 0.0, "ends": "never"}
LAST = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}
NEVER = "0 0 31 2 *"
"""There is no 31st of February: only a trigger starts anything."""


def wanted(lab: Lab, **fields: Any) -> Wanted:
    """Return a schedule that nothing but a trigger starts, of a name that no other test has."""
    return Wanted(
        **{
            "name": f"nightly {secrets.token_hex(4)}",
            "cron": [NEVER],
            "params": {"assistant_id": lab.assistant_id, "metadata": {"night": "yes"}},
            "options": {"owner": "ann", "requested_by": "ben"},
            **fields,
        }
    )


def schedules(lab: Lab) -> Schedules:
    return Schedules(lab.client, lab.task_queue)


def runlane(lab: Lab) -> Runlane:
    return Runlane(lab.client, Settings(task_queue=lab.task_queue), lab.ledger)


async def upstream(lab: Lab) -> list[dict[str, Any]]:
    runs = await asyncio.to_thread(lab.simulator.runs)
    return [run for run in runs if run["assistant_id"] == lab.assistant_id]


async def test_a_trigger_starts_a_run_as_any_other(lab: Lab) -> None:
    """It has an id, owner, metadata and search attributes of Runlane's, and is on a new thread."""
    await lab.scenario(rounds=[LAST])
    known, client = schedules(lab), runlane(lab)
    made = await known.create(wanted(lab))

    first = await known.trigger(made.name)
    assert first.run_id is not None
    run = await client.runs.poll(first.run_id, timeout=30)
    await _idle(lab, made.name)
    await asyncio.sleep(_ONE_START)
    second = await known.trigger(made.name)
    assert second.run_id is not None
    other = await client.runs.poll(second.run_id, timeout=30)

    assert "completed" == run.status == other.status
    assert {"night": "yes"} == run.metadata
    assert run.thread_id != other.thread_id
    created = {each["metadata"]["runlane_run_id"] for each in await upstream(lab)}
    assert {run.id, other.id} == created
    page = await eventually(
        lambda: _listed(client, run.thread_id), lambda found: "completed" in found.values()
    )
    assert {run.id: "completed"} == page
    assert "ann" == (await client.runs.view(run.id)).runlane.owner
    shown = await known.find(made.name)
    assert [run.id, other.id] == [start.run_id for start in shown.recent]


async def test_a_run_on_the_given_thread(lab: Lab) -> None:
    """No thread is made where one is named."""
    await lab.scenario(rounds=[LAST])
    known = schedules(lab)
    made = await known.create(wanted(lab, thread_id=lab.thread_id))

    triggered = await known.trigger(made.name)

    run = await runlane(lab).runs.poll(str(triggered.run_id), timeout=30)
    assert (lab.thread_id, "completed") == (run.thread_id, run.status)
    assert 1 == await lab.accepted("runs.create")


async def test_the_clock_starts_runs_until_a_pause(lab: Lab) -> None:
    """Paused, it starts none; resumed, it does again; deleted, it is gone."""
    await lab.scenario(rounds=[LAST])
    known = schedules(lab)
    made = await known.create(wanted(lab, cron=["@every 1s"], overlap="allow-all"))

    await eventually(lambda: upstream(lab), lambda runs: len(runs) >= 2)
    paused = await known.pause(made.name, "holidays")
    await asyncio.sleep(1.5)
    stood = len(await upstream(lab))
    await asyncio.sleep(3.0)
    assert stood == len(await upstream(lab))
    await known.resume(made.name)
    await eventually(lambda: upstream(lab), lambda runs: len(runs) > stood)
    await known.delete(made.name)

    assert (True, "holidays") == (paused.paused, paused.note)
    with pytest.raises(ScheduleNotFound):
        await known.find(made.name)


async def test_a_start_is_skipped_while_a_run_goes_on(lab: Lab) -> None:
    """The overlap counts by the run, not by the moment that it takes to start it."""
    await lab.scenario(rounds=[ENDLESS])
    known = schedules(lab)
    made = await known.create(wanted(lab))
    first = await known.trigger(made.name)
    await eventually(lambda: upstream(lab), lambda runs: len(runs) == 1)

    second = await known.trigger(made.name)

    assert first.run_id is not None
    assert (None, True) == (second.run_id, second.skipped)
    assert 1 == (await known.find(made.name)).skipped
    await known.delete(made.name)
    run = await runlane(lab).runs.retrieve(first.run_id)
    assert run.status not in TERMINAL
    await runlane(lab).runs.cancel(first.run_id)
    assert "cancelled" == (await runlane(lab).runs.poll(first.run_id, timeout=30)).status
    assert 1 == len(await upstream(lab))


@pytest.mark.parametrize("overlap", ["cancel-other", "terminate-other"])
async def test_a_start_can_end_the_run_before_it(lab: Lab, overlap: str) -> None:
    """That one is cancelled upstream either way: none is left there alive."""
    await lab.scenario(rounds=[ENDLESS])
    known, client = schedules(lab), runlane(lab)
    made = await known.create(wanted(lab, overlap=overlap))
    first = await known.trigger(made.name)
    await eventually(lambda: upstream(lab), lambda runs: len(runs) == 1)
    await asyncio.sleep(1.0)

    second = await known.trigger(made.name)

    assert "cancelled" == (await client.runs.poll(str(first.run_id), timeout=30)).status
    runs = await eventually(lambda: upstream(lab), lambda runs: len(runs) == 2)
    assert {"cancelled", "in_progress"} == {run["status"] for run in runs}
    await client.runs.cancel(str(second.run_id))
    await client.runs.poll(str(second.run_id), timeout=30)


async def test_a_start_that_comes_twice_is_one_run(lab: Lab) -> None:
    """Its workflow reset to the beginning finds the run that it has started."""
    await lab.scenario(rounds=[LAST])
    known = schedules(lab)
    made = await known.create(wanted(lab, thread_id=lab.thread_id))
    triggered = await known.trigger(made.name)
    await runlane(lab).runs.poll(str(triggered.run_id), timeout=30)
    await _idle(lab, made.name)
    action = (await known.find(made.name)).recent[0]
    workflow_id = f"{ID_PREFIX}{made.name}-{action.scheduled_at:%Y-%m-%dT%H:%M:%SZ}"
    assert triggered.run_id == scheduled_run_id(made.name, workflow_id)

    again = await lab.client.start_workflow(
        "Scheduled",
        made.request,
        id=workflow_id,
        task_queue=lab.task_queue,
    )

    result = await asyncio.wait_for(again.result(), 30)
    assert triggered.run_id == result["run_id"]
    assert 1 == await lab.accepted("runs.create")


async def test_a_lost_answer_to_a_new_thread_starts_one_run(lab: Lab) -> None:
    """The thread is made again, and the first one stays empty."""
    await lab.scenario(rounds=[LAST])
    known = schedules(lab)
    made = await known.create(wanted(lab))
    before = await asyncio.to_thread(lambda: lab.simulator.requests()["counts"])
    await asyncio.to_thread(lambda: lab.simulator.fault("threads.create", "lost_answer", times=1))

    triggered = await known.trigger(made.name)

    run = await runlane(lab).runs.poll(str(triggered.run_id), timeout=40)
    assert "completed" == run.status
    after = await asyncio.to_thread(lambda: lab.simulator.requests()["counts"])
    assert 2 <= after["threads.create"] - before.get("threads.create", 0)
    assert [run.thread_id] == [each["thread_id"] for each in await upstream(lab)]


async def test_a_start_waits_for_a_worker(client: Client, simulator: SimulatorProcess) -> None:
    """What the clock starts while no worker is there begins as soon as one is."""
    lab = Lab(client, simulator)
    await lab.scenario(rounds=[LAST])
    known = schedules(lab)
    made = await known.create(wanted(lab))

    triggered = await known.trigger(made.name)
    assert triggered.run_id is not None
    assert not triggered.begun
    async with lab.worker():
        run = await eventually(
            lambda: _found(lab, triggered.run_id), lambda found: found is not None
        )
        assert run is not None
        assert "completed" == (await runlane(lab).runs.poll(run, timeout=30)).status

    assert 1 == len(await upstream(lab))


async def test_the_same_schedule_again_is_the_one_there_is(lab: Lab) -> None:
    """Another one of the name is refused, and so is what Temporal doesn't understand."""
    known, asked = schedules(lab), wanted(lab)
    made = await known.create(asked)

    assert made == await known.create(asked)
    with pytest.raises(Refused, match="another schedule"):
        await known.create(replace(asked, overlap="allow-all"))
    with pytest.raises(InvalidRequest, match="Temporal refuses"):
        await known.create(wanted(lab, cron=["every night"]))


async def test_a_schedule_is_shown_in_its_zone(lab: Lab) -> None:
    """The next times are those of its zone, as the list has them too."""
    known = schedules(lab)
    made = await known.create(
        wanted(
            lab,
            cron=["30 2 * * *"],
            timezone="Asia/Kathmandu",
            overlap="buffer-one",
            catchup_window=timedelta(hours=6),
        )
    )

    async def find() -> Any:
        return [each async for each in known.list() if each.name == made.name]

    [listed] = await eventually(find, lambda found: len(found) == 1 and bool(found[0].next))

    assert 10 == len(made.next)
    assert {"02:30 +0545"} == {f"{moment:%H:%M %z}" for moment in made.next}
    assert ("buffer-one", timedelta(hours=6)) == (made.overlap, made.catchup_window)
    assert (("30 2 * * *",), "Asia/Kathmandu") == (listed.cron, listed.timezone)
    assert made.next[0] == listed.next[0]
    await known.delete(made.name)


async def _listed(client: Runlane, thread_id: str) -> dict[str, str]:
    return {run.id: str(run.status) async for run in client.runs.list(thread_id, owner="ann")}


async def _found(lab: Lab, run_id: str | None) -> str | None:
    try:
        return (await runlane(lab).runs.retrieve(str(run_id))).id
    except RunNotFound:
        return None


_ONE_START = 1.0
"""Seconds within which two triggers may be one start: its id holds the time without fractions."""


async def _idle(lab: Lab, name: str) -> None:
    """Wait until the schedule knows that its last start has ended."""
    handle = lab.client.get_schedule_handle(name)

    async def running() -> int:
        return len((await handle.describe()).info.running_actions)

    await eventually(running, lambda count: count == 0)
