"""Workers of several versions side by side, by Temporal's worker deployments."""

import asyncio
import secrets
import sysconfig
from pathlib import Path

import pytest
from temporalio.api.history.v1 import HistoryEvent

from runlane.doctor import Finding
from runlane.doctor.installation import check_temporal
from runlane.settings import Settings
from tests.histories import history
from tests.lab import LabRun, eventually
from tests.processes import Plant, WorkerProcess

TEMPORAL = Path(sysconfig.get_path("scripts")) / "temporal"
ASK = {"queued": 0.05, "in_progress": 0.05, "calls": [{"name": "pay"}]}
LAST = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


class Deployment:
    """A deployment of the test's own on the plant's queue."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self.name = f"runlane-{secrets.token_hex(4)}"

    async def worker(self, build_id: str) -> WorkerProcess:
        """Start a worker of a version."""
        return await self._plant.worker(
            RUNLANE_DEPLOYMENT_NAME=self.name, RUNLANE_BUILD_ID=build_id
        )

    async def make_current(self, *version: str) -> None:
        """Do what the page says: `--build-id N`, or `--unversioned`."""

        async def asked() -> str:
            # Temporal gets to know a version's queues only as its workers ask them for work.
            return await self.command("set-current-version", *version, "--yes")

        await eventually(asked, lambda said: said == "")

    async def command(self, name: str, *options: str) -> str:
        """Run a command of Temporal's on the deployment; return its complaint."""
        process = await asyncio.create_subprocess_exec(
            *(str(TEMPORAL), "worker", "deployment", name, "--deployment-name", self.name),
            *("--address", self._plant.client.service_client.config.target_host, *options),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        return said.decode() if process.returncode else ""


async def start(plant: Plant, *rounds: dict[str, object]) -> LabRun:
    """Start a run on a thread of its own."""
    lab = plant.another_lab()
    await lab.scenario(rounds=list(rounds))
    return await lab.start()


def doers(events: list[HistoryEvent]) -> list[int]:
    """Return the process ids of the workers that did the run's tasks and activities, in order."""
    identities = [
        event.workflow_task_completed_event_attributes.identity
        or event.activity_task_completed_event_attributes.identity
        for event in events
    ]
    return [int(identity.partition("@")[0]) for identity in identities if identity]


async def findings(plant: Plant) -> list[Finding]:
    """Return what `doctor` says of the plant's workers."""
    settings = Settings(task_queue=plant.lab.task_queue)
    found = [finding async for finding in check_temporal(plant.client, settings)]
    return [finding for finding in found if finding.check.startswith("workers")]


async def test_a_run_goes_on_with_the_version_that_is_current(plant: Plant) -> None:
    """A run moves from no version to one and to the next, with its polls, and others back again.

    Workers that Temporal doesn't ask are there for nothing, and `doctor` says so.
    """
    deployment = Deployment(plant)
    first, second = await asyncio.gather(deployment.worker("1"), deployment.worker("2"))
    there = f"{deployment.name}:1, {deployment.name}:2"
    found = await eventually(
        lambda: findings(plant), lambda found: all(there in each.message for each in found)
    )
    assert ["problem"] * 3 == [finding.level for finding in found]
    assert f"--deployment-name {deployment.name} --build-id 2" in found[1].remedy

    unversioned = await plant.worker()
    await eventually(
        lambda: findings(plant),
        lambda found: all(
            each.level == "ok" and f"{there} get nothing" in each.message for each in found
        ),
    )
    moved = await start(plant, ASK, ASK, LAST)
    await moved.until_status("requires_action")
    assert {unversioned.pid} == set(doers(await history(moved)))

    await deployment.make_current("--build-id", "1")
    before = len(await history(moved))
    await moved.answer_all()
    await moved.until(lambda view: view.runlane.rounds == 2 and bool(view.runlane.pending))
    # A look at the upstream may have been under way with the worker before.
    assert first.pid == doers((await history(moved))[before:])[-1]
    leg = await start(plant, {"queued": 0.0, "ends": "never"})
    polled = (await leg.until(lambda view: view.runlane.attempt == 1)).runlane.upstream_run_id

    await deployment.make_current("--build-id", "2")
    # Its poll is handed over to the version that is current now.
    first.terminate()
    await first.wait()
    before = len(await history(moved))
    await moved.answer_all()
    assert (await moved.result()).run.status == "completed"
    assert second.pid == doers((await history(moved))[before:])[-1]
    await plant.lab.force(str(polled), "completed")
    assert (await leg.result()).run.status == "completed"
    assert second.pid == doers(await history(leg))[-1]
    now = (await findings(plant))[0]
    assert f"of version {deployment.name}:2" in now.message

    await deployment.make_current("--unversioned")
    back = await start(plant, LAST)
    assert (await back.result()).run.status == "completed"
    assert {unversioned.pid} == set(doers(await history(back)))
