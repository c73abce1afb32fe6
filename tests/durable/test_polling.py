"""When the upstream is looked at: attached while that is often, by timers where it is rare."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

import worker
from tests.histories import activities, history, kinds, undisturbed
from tests.lab import QUICK, Lab, LabRun, eventually
from tests.outsider import Outsider
from tests.simulator_process import SimulatorProcess
from worker import GRACE

ENDLESS = {"queued": 0.0, "ends": "never"}
LAST = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}
MAX_EVENTS = 40


async def polled(lab: Lab, times: int, *, seconds: float = 20.0) -> None:
    """Wait until the upstream has been polled so often."""
    await eventually(lambda: lab.received("runs.retrieve"), lambda polls: polls >= times)


async def at_work(run: LabRun) -> list[str]:
    """Return the activities that are scheduled or running now."""
    described = await run.handle.describe()
    return [a.activity_type.name for a in described.raw_description.pending_activities]


async def stop(run: LabRun) -> None:
    """End the run."""
    await run.cancel()
    await run.result()


async def test_the_latest_header_is_followed(lab: Lab, outsider: Outsider) -> None:
    """`openai-poll-after-ms` holds from the answer that carries it to the next one."""
    await lab.scenario(rounds=[ENDLESS], poll_after_ms=200)
    await lab.fault("runs.retrieve", "headers", headers={"openai-poll-after-ms": "4000"}, after=3)
    run = await lab.start()

    await polled(lab, 7)

    gaps = outsider.gaps("runs.retrieve")
    assert max(*gaps[:3], *gaps[4:6]) < 3.9
    assert gaps[3] >= 3.9
    await stop(run)


async def test_a_header_that_is_no_number_is_ignored(lab: Lab, outsider: Outsider) -> None:
    """Garbage, zero and less leave our own curve in force: no hot loop, no standstill."""
    await lab.scenario(rounds=[ENDLESS])
    for count, word in enumerate(["soon", "0", "-5", "NaN", ""]):
        await lab.fault(
            "runs.retrieve", "headers", headers={"openai-poll-after-ms": word}, after=count
        )
    run = await lab.start(timing=QUICK.model_copy(update={"poll_floor": 0.3}))

    await polled(lab, 7)

    gaps = outsider.gaps("runs.retrieve")
    assert min(gaps) >= 0.28
    assert max(gaps[:6]) < 10
    await stop(run)


async def test_the_callers_interval_beats_the_header(lab: Lab, outsider: Outsider) -> None:
    """What the caller fixed holds, whatever the upstream asks for."""
    await lab.scenario(rounds=[ENDLESS], poll_after_ms=30_000)
    run = await lab.start(poll_interval_ms=400)

    await polled(lab, 5)

    gaps = outsider.gaps("runs.retrieve")
    assert min(gaps) >= 0.38
    assert max(gaps) < 15
    await stop(run)


async def test_rare_polls_are_timers(lab: Lab, outsider: Outsider) -> None:
    """A long interval is a timer in the history, from the first on; no activity runs meanwhile."""
    await lab.scenario(rounds=[ENDLESS], poll_after_ms=1500)
    run = await lab.start(timing=QUICK.model_copy(update={"timer_from": 1.5}))
    await eventually(lambda: lab.accepted("runs.create"), lambda creates: creates == 1)
    await run.until_status("queued", "in_progress")

    seen: Counter[bool] = Counter()
    while await lab.received("runs.retrieve") < 3:
        seen[bool(await at_work(run))] += 1
        await asyncio.sleep(0.02)

    events = await history(run)
    # At work for a moment in a second and a half; an attached poll would be so all the time.
    assert seen[False] > seen[True]
    assert kinds(events)["TIMER_STARTED"] >= 3
    assert activities(events).count("runs.retrieve") == 3
    assert min(outsider.gaps("runs.retrieve")) >= 1.45
    await stop(run)


async def test_a_header_beyond_an_attached_poll(lab: Lab) -> None:
    """An interval longer than an activity may take is waited out, not begun again for ever.

    Ten minutes asked for at the create: a timer of that length, and nobody's slot is held.
    """
    await lab.scenario(rounds=[ENDLESS], poll_after_ms=600_000)
    run = await lab.start()
    await run.until(lambda view: view.runlane.upstream_run_id is not None)

    async def timers() -> list[float]:
        return [
            event.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta().total_seconds()
            for event in await history(run)
            if event.event_type == EventType.EVENT_TYPE_TIMER_STARTED
        ]

    (timer,) = await eventually(timers, bool)
    assert 595 < timer <= 600
    assert await at_work(run) == []
    assert await lab.received("runs.retrieve") == 0
    await stop(run)


@pytest.mark.parametrize("who", ["upstream", "caller"])
async def test_the_end_of_a_cancel_is_sought_sooner(lab: Lab, who: str) -> None:
    """An interval meant for a long leg doesn't hold for a cancel, which takes moments.

    Obeyed, it would outlast the search for the truth, and the end would be called uncertain.
    """
    await lab.scenario(
        rounds=[ENDLESS], poll_after_ms=3_600_000 if who == "upstream" else None, cancel_seconds=1.0
    )
    run = await lab.start(poll_interval_ms=3_600_000 if who == "caller" else None)
    await run.until(lambda view: view.runlane.upstream_run_id is not None)

    await run.cancel()

    result = await run.result(seconds=15)
    assert result.run.status == "cancelled"
    assert result.runlane.uncertain is None


async def test_frequent_polls_stay_attached(lab: Lab) -> None:
    """Below the limit one activity makes all polls, and the history doesn't grow."""
    await lab.scenario(rounds=[ENDLESS], poll_after_ms=1400)
    run = await lab.start(timing=QUICK.model_copy(update={"timer_from": 1.5}))

    await polled(lab, 1)
    before = await run.events()
    await polled(lab, 3)

    assert await run.events() == before
    assert await at_work(run) == ["runs.retrieve"]
    assert "TIMER_STARTED" not in before
    await stop(run)


async def test_an_interval_that_grows_leaves_the_attached_poll(lab: Lab) -> None:
    """When the upstream asks for rarer polls midway, timers take over; and the other way round."""
    await lab.scenario(rounds=[ENDLESS], poll_after_ms=200)
    await lab.fault("runs.retrieve", "headers", headers={"openai-poll-after-ms": "1500"}, after=2)
    run = await lab.start(timing=QUICK.model_copy(update={"timer_from": 1.0}))

    await polled(lab, 8)

    events = await history(run)
    assert kinds(events)["TIMER_STARTED"] == 1
    assert activities(events).count("runs.retrieve") == 3
    await stop(run)


async def test_an_attached_poll_comes_back_and_is_continued(lab: Lab) -> None:
    """After `attach_for` an attached poll returns, and another one takes its place."""
    await lab.scenario(rounds=[{"queued": 0.0, "in_progress": 5.0}])
    run = await lab.start(timing=QUICK.model_copy(update={"attach_for": 1.0, "poll_floor": 0.4}))

    result = await run.result()

    assert result.run.status == "completed"
    events = await history(run)
    # Five seconds hold twelve polls, and an activity of a second a few of them.
    assert 2 <= activities(events).count("runs.retrieve") <= 7
    assert result.runlane.polls == await lab.received("runs.retrieve")


async def test_a_shutdown_hands_an_attached_poll_over_without_an_event(
    client: Client, simulator: SimulatorProcess
) -> None:
    """A worker that ends gives its polls to another one at once, and the history shows nothing."""
    lab = Lab(client, simulator)
    await lab.scenario(rounds=[{"queued": 0.0, "polls": 20}])
    clock = asyncio.get_running_loop().time
    async with lab.worker():
        run = await lab.start(timing=QUICK.model_copy(update={"poll_floor": 0.3}))
        await polled(lab, 2)
        before = await run.events()
        told_at = clock()
    assert clock() - told_at < GRACE.total_seconds()
    seen = await lab.received("runs.retrieve")
    assert seen < 18
    async with lab.worker():
        await polled(lab, seen + 1)
        assert await run.events() == before
        result = await run.result()

    assert result.run.status == "completed"
    assert activities(await history(run)).count("runs.retrieve") == 1
    # Those of the first worker count too: heartbeats carried them over. One may have been on its
    # way when it was told to end.
    assert await lab.received("runs.retrieve") - result.runlane.polls in (0, 1)


async def test_a_poll_without_a_slot_becomes_a_timer(
    client: Client, simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all slots are taken by attached polls, a run waits by timers, and gets its turn."""
    monkeypatch.setattr(worker, "MAX_POLLS", 1)
    lab = Lab(client, simulator)
    timing = QUICK.model_copy(update={"slot_within": 1.0, "timer_from": 1.0, "poll_floor": 0.2})
    async with lab.worker(workers=1):
        await lab.scenario(rounds=[ENDLESS])
        first = await lab.start(timing=timing)
        await polled(lab, 2)
        await lab.scenario(rounds=[LAST])
        second = await lab.start(timing=timing, thread_id=f"{lab.thread_id}_2")

        async def timed_out() -> Counter[str]:
            return kinds(await history(second))

        found = await eventually(timed_out, lambda found: found["TIMER_STARTED"] >= 1)
        assert found["ACTIVITY_TASK_TIMED_OUT"] >= 1
        assert (await second.view()).run.status in ("queued", "in_progress")
        await stop(first)

        assert (await second.result()).run.status == "completed"


async def test_heartbeats_carry_the_status(lab: Lab) -> None:
    """What an attached poll sees can be read from outside, and costs no event."""
    await lab.scenario(rounds=[ENDLESS])
    run = await lab.start()

    async def heartbeat() -> dict[str, Any]:
        described = await run.handle.describe()
        for activity in described.raw_description.pending_activities:
            if activity.HasField("heartbeat_details"):
                payloads = activity.heartbeat_details.payloads
                [found] = await described.data_converter.decode(payloads, [dict])
                return dict(found)
        return {}

    found = await eventually(heartbeat, lambda found: found.get("polls", 0) > 3)

    assert found["status"] == "in_progress"
    assert found["age"] > 0
    await stop(run)


async def a_round_with_legs_of(lab: Lab, seconds: float) -> list[Any]:
    leg = {"queued": 1.0, "in_progress": seconds - 1.0}
    await lab.scenario(rounds=[{**leg, "calls": [{"name": "look"}]}, leg])
    run = await lab.start()
    view = await run.until_status("requires_action", seconds=seconds + 20)
    assert await run.submit((view.runlane.pending[0].tool_call_id, "ok")) == ["accepted"]
    assert (await run.result(seconds=seconds + 20)).run.status == "completed"
    return await history(run)


async def test_the_event_budget_of_a_round(lab: Lab) -> None:
    """One tool round with legs of some seconds: at most 40 events, and it takes 40."""
    events = await a_round_with_legs_of(lab, 4.0)

    assert len(undisturbed(events)) <= MAX_EVENTS, kinds(events)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_the_event_budget_with_legs_of_a_minute(lab: Lab) -> None:
    """The same with real legs of a minute: the length of a leg costs no event."""
    events = await a_round_with_legs_of(lab, 60.0)

    assert len(undisturbed(events)) <= MAX_EVENTS, kinds(events)


async def test_the_event_budget_of_two_rounds(lab: Lab) -> None:
    """A second round costs 22 events more."""
    ask = {"queued": 0.1, "in_progress": 0.5, "calls": [{"name": "look"}]}
    await lab.scenario(rounds=[ask, ask, LAST])
    run = await lab.start()
    await run.answer_all()
    await run.until(lambda view: view.runlane.rounds == 2)
    await run.answer_all()
    assert (await run.result()).run.status == "completed"

    events = await history(run)
    assert len(undisturbed(events)) <= 62, kinds(events)
