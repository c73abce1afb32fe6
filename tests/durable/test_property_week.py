"""Weeks of waiting, on a server that skips time: the history stays within its budget."""

import asyncio
from pathlib import Path

import pytest

from tests.lab import Lab, LabRun
from tests.simulator_process import SimulatorProcess
from tests.skipping import SkippingServer, chain, skipping_server
from workflows.contract import Timing

_WEEK = 7 * 86_400
_STEP = 6 * 3600
MAX_EVENTS = 10_000

# Of an hour's attached polls nothing is skipped, so these begin as timers.
_TIMERS = Timing(timer_from=0.4)


async def _events_after_a_week(server: SkippingServer, lab: Lab, run: LabRun) -> int:
    for _ in range(_WEEK // _STEP):
        await server.sleep(_STEP, patience=60)
    first = run.handle.first_execution_run_id
    assert first is not None
    return sum(len(events) for events in await chain(lab.client, run.id, first))


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_week_long_leg_costs_under_ten_thousand_events(
    simulator: SimulatorProcess, tmp_path: Path
) -> None:
    """By the curve, a leg of a week is looked at some 800 times, and the run then ends."""
    async with skipping_server(tmp_path) as server:
        lab = Lab(server.client, simulator)
        async with lab.worker(workers=1):
            await lab.scenario(expires_after=0, rounds=[{"queued": 0, "ends": "never"}])
            run = await lab.start(timing=_TIMERS)
            events = await _events_after_a_week(server, lab, run)
            view = await run.view()

            print(f"{events} events, {view.runlane.polls} polls in a week")
            assert 750 < view.runlane.polls < 1_200
            assert events < MAX_EVENTS

            assert view.runlane.upstream_run_id is not None
            await lab.force(view.runlane.upstream_run_id, "completed")
            await server.sleep(1_000, patience=60)
            assert (await run.result()).run.status == "completed"


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_week_of_waiting_for_an_answer_costs_under_ten_thousand_events(
    simulator: SimulatorProcess, tmp_path: Path
) -> None:
    """A run that waits for a person looks at its upstream on the curve, and takes the answer."""
    async with skipping_server(tmp_path) as server:
        lab = Lab(server.client, simulator)
        async with lab.worker(workers=1):
            await lab.scenario(expires_after=0, polls=0, rounds=[{"calls": [{"name": "decide"}]}])
            run = await lab.start(timing=Timing())
            await run.until_status("requires_action")
            events = await _events_after_a_week(server, lab, run)

            print(f"{events} events in a week")
            assert 100 < events < MAX_EVENTS

            await run.answer_all()
            while (await run.view()).run.status != "completed":
                await asyncio.sleep(0.05)
