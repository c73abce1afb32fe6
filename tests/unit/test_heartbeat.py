"""Heartbeats: often enough to be missed soon, and no more, for each one is a write in Temporal."""

import asyncio
import secrets
from pathlib import Path
from typing import Any

from temporalio.testing import ActivityEnvironment

from activities.contract import CreateInput, RetrieveInput, Target, Upstream
from activities.heartbeat import HEARTBEAT_TIMEOUT, POLL_BEAT, heartbeating
from activities.runs import RunActivities
from runsapi import Assistants
from tests.ledgers import open_in
from tests.simulator_process import SimulatorProcess


async def beats_of(seconds: float, *, every: float) -> list[Any]:
    """Return the heartbeats of an activity that works for so long."""
    beats: list[Any] = []
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *details: beats.append(details)

    async def work() -> None:
        async with heartbeating({"age": 1.0}, every=every):
            await asyncio.sleep(seconds)

    await environment.run(work)
    return beats


async def test_what_is_over_before_its_beat_needs_none() -> None:
    """Temporal counts from the start: a first heartbeat at once would tell nothing."""
    assert await beats_of(0.05, every=5.0) == []


async def test_longer_work_goes_on_beating() -> None:
    """It beats again and again, with its details."""
    beats = await beats_of(1.0, every=0.1)

    assert len(beats) > 2
    assert ({"age": 1.0},) == beats[0]


def test_a_beat_of_a_poll_may_fail_to_come() -> None:
    """A worker that stalls for a few seconds has not died."""
    assert POLL_BEAT * 2 < HEARTBEAT_TIMEOUT.total_seconds()


async def test_a_look_that_brings_the_poll_back_is_not_told_by_heartbeat(
    simulator: SimulatorProcess, tmp_path: Path
) -> None:
    """Its result tells more; what an attached poll stays for is told (see `test_polling`)."""
    thread_id, assistant_id = f"thread_{secrets.token_hex(6)}", f"asst_{secrets.token_hex(6)}"
    beats: list[Any] = []
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *details: beats.append(details)
    async with Assistants(simulator.url) as upstream, await open_in(tmp_path) as ledger:
        activities = RunActivities(upstream, ledger)
        created = await environment.run(
            activities.create,
            CreateInput(
                run_id="run_1", attempt=1, thread_id=thread_id,
                params={"assistant_id": assistant_id}, age=0.0,
            ),
        )  # fmt: skip
        assert created.run is not None
        beats.clear()
        target = Target(
            upstream=Upstream(name=upstream.name, url=upstream.url),
            thread_id=thread_id,
            run_id=created.run.id,
        )
        observed = await environment.run(
            activities.retrieve, RetrieveInput(target=target, attach_for=0.0, leg_age=0.0)
        )

    assert observed.polls == 1
    assert beats == []
