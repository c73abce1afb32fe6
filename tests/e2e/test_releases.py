"""Runs that one release's worker began are ended by another's, with nothing done twice."""

import asyncio
import shutil
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tests.lab import Lab, LabRun
from tests.processes import Plant
from workflows.run import RunWorkflow

ROOT = Path(__file__).parents[2]
CODE = ("worker.py", "runlane", "workflows", "activities", "runsapi")

ASK = {"queued": 0.05, "in_progress": 0.05, "calls": [{"name": "pay"}]}
LAST = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}
ENDLESS = {"queued": 0.0, "ends": "never"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def git(*arguments: str) -> bytes:
    """Return what git says of this checkout; nothing where there is none."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    except OSError:
        return b""
    return done.stdout if done.returncode == 0 else b""


def releases() -> list[str]:
    """Return the tags of all releases before this code, or its last commit where it has none.

    So the way from one to the other is gone each time, in a shallow checkout too.
    """
    tags = git("tag", "--list", "v*", "--merged", "HEAD", "--sort=version:refname").decode()
    return tags.split() or ["HEAD"]


def unpacked(release: str, directory: Path) -> Path:
    """Return a directory with a release's code."""
    archive = git("archive", "--format=tar", release, "--", *CODE)
    if archive:
        with tarfile.open(fileobj=BytesIO(archive)) as files:
            files.extractall(directory, filter="data")
        return directory
    for name in CODE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, directory / name)
    return directory


class Phases:
    """One run in each phase, on threads of their own."""

    def __init__(self, plant: Plant) -> None:
        names = ("leg", "timer", "waiting", "parked", "blocked", "ended")
        self.labs = {name: plant.another_lab() for name in names}
        self.runs: dict[str, LabRun] = {}
        self._fault = ""

    async def begin(self) -> None:
        """Bring each run into its phase."""
        labs = self.labs
        for name in ("leg", "timer"):
            await labs[name].scenario(rounds=[ENDLESS])
        for name in ("waiting", "parked", "blocked"):
            await labs[name].scenario(rounds=[ASK, LAST])
        await labs["ended"].scenario(rounds=[LAST])
        self._fault = await labs["blocked"].fault(
            "runs.submit_tool_outputs", "unauthorized", times=0
        )
        for name, lab in labs.items():
            options: dict[str, Any] = {"poll_interval_ms": 60_000} if name == "timer" else {}
            self.runs[name] = await lab.start(**options)
        await self.runs["blocked"].answer_all()
        await self.runs["blocked"].until(lambda view: view.runlane.blocked is not None)
        # Expired only once it has asked: on a slow machine a short life could end before.
        asked = await self.runs["parked"].until_status("requires_action")
        await labs["parked"].force(str(asked.runlane.upstream_run_id), "expired")
        await self.runs["parked"].until(lambda view: view.runlane.parked)
        await self.runs["waiting"].until_status("requires_action")
        for name in ("leg", "timer"):
            await self.runs[name].until(lambda view: view.runlane.attempt == 1)
        await self.runs["ended"].until_status("completed")

    async def end(self) -> None:
        """Bring each run to its end."""
        await asyncio.to_thread(self.labs["blocked"].simulator.remove_fault, self._fault)
        await self.runs["blocked"].handle.signal(RunWorkflow.nudge)
        for name in ("waiting", "parked"):
            await self.runs[name].answer_all()
        for name in ("leg", "timer"):
            view = await self.runs[name].view()
            await self.labs[name].force(str(view.runlane.upstream_run_id), "completed")
            await self.runs[name].handle.signal(RunWorkflow.nudge)
        results = [await run.result(seconds=60) for run in self.runs.values()]
        assert ["completed"] * len(results) == [result.run.status for result in results]

    async def effects(self) -> dict[str, tuple[int, int]]:
        """Return how many creates and submits the upstream took, by phase."""
        return {name: await taken(lab) for name, lab in self.labs.items()}


async def taken(lab: Lab) -> tuple[int, int]:
    """Return how many creates and submits the upstream took."""
    return await lab.accepted("runs.create"), await lab.accepted("runs.submit_tool_outputs")


async def hand_on(plant: Plant, first: Path, then: Path, *, by_kill: bool) -> None:
    """Begin runs with one code and end them with another."""
    phases = Phases(plant)
    worker = await plant.worker(first)
    await phases.begin()
    if by_kill:
        await worker.kill()
    else:
        worker.terminate()
        await worker.wait()
    await plant.worker(then)
    await phases.end()
    assert {
        "leg": (1, 0),
        "timer": (1, 0),
        "waiting": (1, 1),
        "parked": (2, 1),
        "blocked": (1, 1),
        "ended": (1, 0),
    } == await phases.effects()


@pytest.mark.parametrize("release", releases())
async def test_an_older_releases_runs_are_ended(plant: Plant, tmp_path: Path, release: str) -> None:
    """Whatever a run was about when the worker was upgraded, it goes on."""
    await hand_on(plant, unpacked(release, tmp_path), ROOT, by_kill=True)


async def test_runs_go_back_to_the_last_release(plant: Plant, tmp_path: Path) -> None:
    """A deploy that is taken back strands no run that the newer code has begun."""
    await hand_on(plant, ROOT, unpacked(releases()[-1], tmp_path), by_kill=False)
