"""Temporal's database is set back to a copy, while upstream everything has gone on."""

import asyncio
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from runlane import Runlane
from runlane.embedded import EmbeddedTemporal
from runlane.ports import port_of
from runlane.settings import Settings
from runlane.temporal import connect
from tests.lab import QUICK, Lab, LabRun
from tests.outsider import Outsider
from tests.processes import Plant
from tests.shop_tools import done
from tests.simulator_process import SimulatorProcess
from workflows.contract import RunlaneView
from workflows.run import RunWorkflow

PAGE = Path(__file__).parents[2] / "docs" / "backup.md"
PROMPT_SECONDS = 10.0
"""After that a create is late, and looks first."""

ASK = {"queued": 0.05, "in_progress": 0.05, "calls": [{"name": "pay"}]}
LAST = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def copy_command(source: Path, copy: Path) -> list[str]:
    """Return the command that the page gives, with paths of ours."""
    (line,) = re.findall(r"^ *python3 -c .*temporal\.db .*$", PAGE.read_text(), re.MULTILINE)
    _, option, program, *_ = shlex.split(line.strip())
    return [sys.executable, option, program, str(source), str(copy)]


class Installation:
    """A Temporal with a database of its own, workers on it, and a copy to go back to."""

    def __init__(self, data_dir: Path, simulator: SimulatorProcess) -> None:
        self._data_dir = data_dir
        self._database = data_dir / "temporal.db"
        self._copy = data_dir / "copy.db"
        self._copied_at = 0.0
        self._simulator = simulator
        self._journal = data_dir / "journal"
        self._environ = {
            "RUNLANE_TOOLS": "tests.shop_tools",
            "SHOP_JOURNAL": str(self._journal),
            "SHOP_IS_QUICK": "yes",
        }
        self._server = EmbeddedTemporal(data_dir)
        self._plants: list[Plant] = []
        self.late: Plant
        """Its worker comes after the copy."""
        self.held: list[tuple[Lab, str]] = []
        """Requests that are on their way when the copy is made."""

    async def start(self) -> None:
        await self._server.start()
        self.client = await connect(
            Settings(data_dir=self._data_dir), environ={"TEMPORAL_ADDRESS": self._server.address}
        )
        self.plant, self.late = (
            Plant(self._server.address, self.client, self._simulator, self._data_dir)
            for _ in range(2)
        )
        self._plants = [self.plant, self.late]
        await self.plant.worker(**self._environ)

    def refunds(self) -> int:
        """Return how often the workers' tool has paid."""
        return sum(name == "refund" for name, _, _ in done(self._journal))

    def lab(self) -> Lab:
        """Return a lab with a thread of its own, served from the beginning."""
        return self.plant.another_lab()

    def copy(self) -> None:
        """Copy the database, with the server running."""
        subprocess.run(copy_command(self._database, self._copy), check=True)
        self._copied_at = time.monotonic()

    async def set_back(self) -> None:
        """Kill everything, put the copy into the database's place, and start all anew."""
        for plant in self._plants:
            await plant.dispose()
        address, ui = self._server.address, self._server.ui_url
        os.kill(self._server.pid, signal.SIGKILL)
        await self._server.wait()
        await self._server.stop()
        for leftover in self._data_dir.glob("temporal.db*"):
            leftover.unlink()
        shutil.copy(self._copy, self._database)
        # What a person does in between takes longer.
        await asyncio.sleep(max(0.0, self._copied_at + PROMPT_SECONDS + 1 - time.monotonic()))
        self._server = EmbeddedTemporal(self._data_dir, port=port_of(address), ui_port=port_of(ui))
        await self._server.start()
        await asyncio.gather(*(plant.worker(**self._environ) for plant in self._plants))

    async def stop(self) -> None:
        for plant in self._plants:
            await plant.dispose()
        await self._server.stop()


@pytest_asyncio.fixture
async def installation(tmp_path: Path, simulator: SimulatorProcess) -> AsyncIterator[Installation]:
    installation = Installation(tmp_path, simulator)
    try:
        await installation.start()
        yield installation
    finally:
        await installation.stop()


async def test_nothing_is_done_again(installation: Installation) -> None:
    """A run of before the copy finds out what it did after it, whatever it was about just then.

    One of after it, which Temporal has forgotten, is found when its create is repeated with its
    key, be it over or not.
    """
    before = await runs_of_before(installation)
    paying = installation.lab()
    submit = await paying.fault("runs.submit_tool_outputs", "hold_before")
    paid = await start_to_pay(paying)
    installation.copy()
    await all_go_on(installation, before)
    await paying.held(submit)
    after = (installation.lab(), installation.lab())
    forgotten = await runs_of_after(installation, *after)
    labs = [*before, *after]
    took = [await effects(lab) for lab in labs]
    assert [(1, 1), (1, 1), (1, 1), (2, 1), (1, 0), (1, 1), (1, 0), (1, 0), (1, 0)] == took

    await installation.set_back()

    # Of their answers Temporal knows nothing any more; two of them are given again.
    _, _, answered, parked, *_ = before
    for lab in (answered, parked):
        await before[lab].answer_all("another")
    views = {lab: await ended(run) for lab, run in before.items()}
    assert [a.outcome for a in views[answered].answers] == ["overtaken"]
    assert [a.status for a in views[parked].attempts] == ["expired", "completed"]
    # What its tool gave stands in the ledger, and nowhere else.
    assert ["submitted"] == [a.outcome for a in (await ended(paid)).answers]
    assert 1 == installation.refunds()
    await ended(await keyed(installation, after[0]))
    found = await keyed(installation, after[1])
    view = await found.until_status("requires_action")
    assert forgotten == view.runlane.upstream_run_id
    assert took == [await effects(lab) for lab in labs]
    await found.answer_all()
    await ended(found)
    assert (1, 1) == await effects(after[1])


async def runs_of_before(installation: Installation) -> dict[Lab, LabRun]:
    """Bring runs to where a copy may find them; the last one has no worker yet."""
    leg, asked, answered, parked, creating, submitting = (installation.lab() for _ in range(6))
    late = installation.late.lab
    for lab in (asked, answered, parked, submitting):
        await lab.scenario(rounds=[ASK, LAST])
    await leg.scenario(rounds=[{**ASK, "in_progress": 4.0}, LAST])
    for lab in (creating, late):
        await lab.scenario(rounds=[LAST])
    held_create = await creating.fault("runs.create", "hold_after")
    held_submit = await submitting.fault("runs.submit_tool_outputs", "hold_before")
    installation.held = [(creating, held_create), (submitting, held_submit)]
    labs = (leg, asked, answered, parked, creating, submitting, late)
    # By itself this one finds out nothing before its answer comes again.
    seldom = QUICK.model_copy(update={"look_floor": 3600.0})
    runs = {lab: await lab.start(timing=seldom if lab is answered else QUICK) for lab in labs}
    await creating.held(held_create)
    for lab in (asked, answered):
        await runs[lab].until_status("requires_action")
    await runs[submitting].answer_all()
    await submitting.held(held_submit)
    # Expired only once it has asked: on a slow machine a short life could end before.
    expiring = await runs[parked].until_status("requires_action")
    await parked.force(str(expiring.runlane.upstream_run_id), "expired")
    await runs[parked].until(lambda view: view.runlane.parked)
    await runs[leg].until(lambda view: view.runlane.attempt == 1)
    return runs


async def start_to_pay(lab: Lab) -> LabRun:
    """Start a run whose tool pays after the copy is made."""
    call = {"name": "refund", "arguments": {"order_id": "A-1"}}
    await lab.scenario(rounds=[{**ASK, "in_progress": 4.0, "calls": [call]}, LAST])
    run = await lab.start(with_tools=True)
    await run.until(lambda view: view.runlane.attempt == 1)
    return run


async def all_go_on(installation: Installation, runs: dict[Lab, LabRun]) -> None:
    """Let them all come to their ends."""
    for lab, fault in installation.held:
        await lab.release(fault)
    await installation.late.worker()
    leg, asked, answered, parked, *_ = runs
    for lab in (asked, answered, parked, leg):
        await runs[lab].answer_all()
    for run in runs.values():
        await ended(run)


async def runs_of_after(installation: Installation, over: Lab, waiting: Lab) -> str | None:
    """Start two runs with keys; return the upstream run's id of the one that waits."""
    await over.scenario(rounds=[LAST])
    await waiting.scenario(rounds=[ASK, LAST])
    await ended(await keyed(installation, over))
    run = await keyed(installation, waiting)
    view = await run.until_status("requires_action")
    # Made long enough before, no slack of clocks hides how old they are.
    for lab in (over, waiting):
        outsider = Outsider(lab)
        outsider.force(outsider.runs()[0]["id"], created_at=int(time.time()) - 3600)
        outsider.close()
    return view.runlane.upstream_run_id


async def keyed(installation: Installation, lab: Lab) -> LabRun:
    """Create a run with the lab's key, as a program does."""
    client = Runlane(installation.client, Settings(task_queue=lab.task_queue))
    run = await client.runs.create(
        lab.thread_id, assistant_id=lab.assistant_id, idempotency_key=lab.thread_id
    )
    return LabRun(installation.client.get_workflow_handle_for(RunWorkflow.run, run.id))


async def effects(lab: Lab) -> tuple[int, int]:
    """Return how many creates and submits the upstream took."""
    return await lab.accepted("runs.create"), await lab.accepted("runs.submit_tool_outputs")


async def ended(run: LabRun) -> RunlaneView:
    """Wait for the run's end, whichever history it is in."""
    return (await run.until_status("completed", seconds=60)).runlane
