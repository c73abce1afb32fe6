"""A Temporal that suggests to continue as new all the time, and runs in every state on it."""

from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client

from runlane.embedded import EmbeddedTemporal
from runlane.temporal import connect
from tests.histories import chain_length
from tests.lab import QUICK, Lab, LabRun, eventually
from tests.simulator_process import SimulatorProcess
from tests.temporal_server import encrypting

SUGGESTED_AT = 15
"""Events from which on the server suggests to continue as new."""

LAST = {"queued": 0.02, "in_progress": 0.02, "says": "Done."}
ENDLESS = {"queued": 0.0, "ends": "never"}


def asking(*names: str) -> dict[str, Any]:
    """Return a round that asks for these calls."""
    return {"queued": 0.02, "in_progress": 0.02, "calls": [{"name": name} for name in names]}


@pytest_asyncio.fixture(scope="session")
async def restless(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """A client of a server that suggests to continue as new all the time."""
    data_dir = tmp_path_factory.mktemp("restless")
    config = {"limit.historyCount.suggestContinueAsNew": SUGGESTED_AT}
    async with EmbeddedTemporal(data_dir, extra_dynamic_config=config) as server:
        yield await connect(encrypting(data_dir), environ={"TEMPORAL_ADDRESS": server.address})


@pytest_asyncio.fixture
async def restless_lab(restless: Client, simulator: SimulatorProcess) -> AsyncIterator[Lab]:
    """A lab on the restless server."""
    laboratory = Lab(restless, simulator)
    async with laboratory.worker():
        yield laboratory


class Noise:
    """Signals for calls nobody will ask for: each costs events, and each must be kept."""

    def __init__(self, run: LabRun) -> None:
        self._run = run
        self._names = (f"noise_{number}" for number in count())
        self.sent: list[str] = []

    async def send(self) -> None:
        """Send one signal."""
        name = next(self._names)
        await self._run.signal((name, "x"))
        self.sent.append(name)

    async def until_continued(self, lab: Lab, times: int = 1) -> None:
        """Send signals, each in a task of its own, until the run has continued so often."""
        goal = await chain_length(lab.client, self._run) + times
        while await chain_length(lab.client, self._run) < goal:
            await self.send()
            await self._run.view()


async def parked(lab: Lab) -> LabRun:
    await lab.scenario(rounds=[asking("a")], attempts={"2": [asking("a"), LAST]}, expires_after=1)
    run = await lab.start()
    await run.until(lambda view: view.runlane.parked)
    await lab.scenario(rounds=[asking("a"), LAST])
    return run


async def blocked(lab: Lab) -> LabRun:
    await lab.scenario(rounds=[asking("a"), LAST])
    await lab.fault("runs.retrieve", "unauthorized")
    run = await lab.start(timing=QUICK.model_copy(update={"blocked_floor": 60.0}))
    await run.until(lambda view: view.runlane.blocked is not None)
    return run


async def gathering(lab: Lab) -> LabRun:
    await lab.scenario(rounds=[asking("a"), LAST])
    run = await lab.start(timing=QUICK.model_copy(update={"look_floor": 60.0}))
    await run.until_status("requires_action")
    return run


async def on_a_timer(lab: Lab) -> LabRun:
    await lab.scenario(rounds=[{**asking("a"), "queued": 0.0, "polls": 0}], poll_after_ms=120_000)
    run = await lab.start()
    await run.until(lambda view: view.runlane.upstream_run_id is not None)
    return run


async def attached(lab: Lab) -> LabRun:
    await lab.scenario(rounds=[ENDLESS])
    run = await lab.start()
    await eventually(lambda: lab.received("runs.retrieve"), lambda polls: polls > 1)
    # Until a poll has come back, only its heartbeats know that it is in progress.
    await run.until(lambda view: view.runlane.upstream_run_id is not None)
    return run


STATES = {
    "gathering": gathering,
    "parked": parked,
    "blocked": blocked,
    "timer": on_a_timer,
    "attached": attached,
}
