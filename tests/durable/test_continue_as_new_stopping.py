"""A run that is stopped while its history is long ends, and crosses over to do so if it must."""

import asyncio

import pytest
from temporalio.client import Client

from tests.histories import chain_length
from tests.lab import Lab
from tests.restless import STATES, SUGGESTED_AT, Noise, gathering
from tests.simulator_process import SimulatorProcess


@pytest.fixture
def lab(restless_lab: Lab) -> Lab:
    """Let every test here run on the restless server."""
    return restless_lab


@pytest.mark.parametrize("state", STATES)
async def test_cancel_while_it_is_suggested(lab: Lab, state: str) -> None:
    """A cancel in the midst of signals that bring the suggestion is kept across, and done once."""
    run = await STATES[state](lab)
    noise = Noise(run)
    await noise.until_continued(lab)

    await asyncio.gather(
        *(noise.send() for _ in range(4)), run.cancel(), *(noise.send() for _ in range(4))
    )

    result = await run.result()
    assert result.run.status == "cancelled"
    assert result.runlane.uncertain is None
    assert await lab.accepted("runs.cancel") == (state != "parked")
    assert await lab.accepted("runs.create") == 1


async def test_temporals_own_cancel_while_it_is_suggested(lab: Lab) -> None:
    """So it is with Temporal's cancellation, which belongs to one execution only."""
    run = await gathering(lab)
    noise = Noise(run)
    await noise.until_continued(lab)

    await asyncio.gather(
        *(noise.send() for _ in range(4)), run.handle.cancel(), *(noise.send() for _ in range(4))
    )

    assert (await run.result()).run.status == "cancelled"
    assert await lab.accepted("runs.cancel") == 1


async def test_temporals_own_cancel_in_the_task_that_makes_the_history_long(
    restless: Client, simulator: SimulatorProcess
) -> None:
    """Messages and a cancellation that come in one task are all heeded."""
    lab = Lab(restless, simulator)
    async with lab.worker():
        run = await gathering(lab)
    noise = Noise(run)
    # Nobody is there to take them, so that they come together.
    for _ in range(SUGGESTED_AT):
        await noise.send()
    await run.handle.cancel()
    async with lab.worker():
        assert (await run.result()).run.status == "cancelled"

    assert await chain_length(lab.client, run) > 1
    assert await lab.accepted("runs.cancel") == 1
