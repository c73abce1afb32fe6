"""Blocked runs as a list, all woken at once, and a worker that wakes them by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from runlane import Runlane, blocked
from runlane.blocked import REMEDIES
from runlane.errors import InvalidRequest
from runlane.recovery import Recovery
from runlane.settings import Settings
from runsapi import Assistants, FileKey
from tests.lab import QUICK, Lab, LabRun, eventually
from tests.simulator_process import SimulatorProcess
from workflows.contract import BlockedKind, RunView

ASK = {"queued": 0.05, "in_progress": 0.05, "calls": [{"name": "ask"}]}
DONE = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}
LONG = {"queued": 0.05, "in_progress": 600.0}
RARELY = QUICK.model_copy(update={"blocked_floor": 600.0})
"""So that only a nudge lets a blocked run go on."""


@pytest.fixture
def runlane(lab: Lab) -> Runlane:
    """The product's client, on this lab's queue."""
    return Runlane(lab.client, Settings(task_queue=lab.task_queue))


def is_blocked(view: RunView) -> bool:
    """Tell whether the run is blocked."""
    return view.runlane.blocked is not None


async def blocked_by(lab: Lab, number: int, kind: str, **fields: Any) -> LabRun:
    """Return a run on a thread of its own that has been refused once, and tries again rarely."""
    thread = f"{lab.thread_id}_{number}"
    await lab.fault("runs.retrieve", kind, thread_id=thread, **fields)
    run = await lab.start(timing=RARELY, thread_id=thread)
    await run.until(is_blocked)
    return run


async def test_blocked_runs_are_listed_by_kind_and_woken_together(
    lab: Lab, runlane: Runlane
) -> None:
    """A list names them without a worker's help; a nudge of one kind leaves the others; twice is
    as good as once.
    """
    await lab.scenario(rounds=[DONE])
    refused = [await blocked_by(lab, number, "unauthorized") for number in range(3)]
    poor = await blocked_by(lab, 3, "quota")
    ours = {run.id for run in (*refused, poor)}

    async def listed(kind: bool | str) -> set[str]:
        return {run.id async for run in runlane.runs.list(blocked=kind, limit=100)} & ours

    await eventually(lambda: listed(True), lambda ids: ids == ours)
    assert await listed("credentials") == {run.id for run in refused}
    assert await listed("quota") == {poor.id}
    assert await listed("not_found") == set()
    page = await runlane.runs.list(blocked="quota", limit=100)
    (view,) = (view for view in page.views if view.run.id == poor.id)
    assert view.runlane.blocked is not None
    assert view.runlane.blocked.kind == "quota"

    assert await runlane.runs.nudge_blocked("credentials") >= 3
    await runlane.runs.nudge_blocked("credentials")
    for run in refused:
        assert (await run.result()).run.status == "completed"
    assert is_blocked(await poor.view())

    assert await runlane.runs.nudge_blocked() >= 1
    assert (await poor.result()).run.status == "completed"
    await eventually(lambda: listed(True), lambda ids: not ids)
    with pytest.raises(InvalidRequest, match="credentials, quota, not_found, other_upstream"):
        await runlane.runs.nudge_blocked("money")


@pytest.mark.parametrize("kind", BlockedKind)
def test_every_kind_has_its_remedy(kind: BlockedKind) -> None:
    """Nobody is told that something is to be mended, and not what."""
    assert REMEDIES[kind]


async def test_a_simulated_run_says_how_its_upstream_comes_back(
    client: Client, simulator: SimulatorProcess
) -> None:
    """Its upstream is a command, not a URL to be set."""
    lab = Lab(client, simulator)
    runlane = Runlane(client, Settings(task_queue=lab.task_queue))
    await lab.scenario(rounds=[ASK, DONE])
    async with lab.worker():
        run = await lab.start()
        await run.until_status("requires_action")
    async with lab.worker(upstream_url=simulator.url.replace("/v1", "/openai/v1")):
        await run.answer_all()
        await run.until(is_blocked)
        view = await runlane.runs.view(run.id)
    assert view.runlane.blocked is not None
    assert "runlane up --simulate" in view.runlane.blocked.message
    assert simulator.url in view.runlane.blocked.message
    assert "RUNLANE_UPSTREAM_URL" not in view.runlane.blocked.message
    async with lab.worker():
        assert (await run.result()).run.status == "completed"


@asynccontextmanager
async def watching(
    lab: Lab, *, upstream: Assistants | None = None, key_file: Path | None = None
) -> AsyncIterator[None]:
    """Have the lab's queue watched as by a worker, only quicker."""
    async with upstream or Assistants(lab.simulator.url, timeout=20) as connection:
        recovery = Recovery(
            lab.client,
            connection,
            task_queue=lab.task_queue,
            key_file=key_file,
            ask_seconds=0.2,
            look_seconds=0.2,
            # A later one would hide what is not noticed.
            passes=(0.0,),
        )
        task = asyncio.create_task(recovery.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def count_blocked(lab: Lab, kind: BlockedKind = BlockedKind.CREDENTIALS) -> int:
    """Return how many of the lab's runs Visibility shows as blocked."""
    return await blocked.count(lab.client, kind, task_queue=lab.task_queue)


async def test_a_worker_that_starts_wakes_what_waits_for_credentials(lab: Lab) -> None:
    """Who mended the key and restarted the worker needn't wait for the curve; other kinds are left
    as they are, for no look tells that they are mended.
    """
    await lab.scenario(rounds=[DONE])
    refused = await blocked_by(lab, 1, "unauthorized")
    poor = await blocked_by(lab, 2, "quota")
    await eventually(lambda: count_blocked(lab), lambda count: count == 1)

    async with watching(lab):
        assert (await refused.result()).run.status == "completed"
        assert is_blocked(await poor.view())
    await poor.handle.terminate()


async def test_runs_wait_until_the_upstream_takes_the_credentials(lab: Lab) -> None:
    """While it refuses them nobody is nudged; once it takes them, everybody is, by any worker."""
    await lab.scenario(rounds=[DONE])
    run = await blocked_by(lab, 1, "unauthorized")
    await eventually(lambda: count_blocked(lab), lambda count: count == 1)
    probes = await lab.fault(
        "runs.list", "unauthorized", thread_id="thread_runlane_doctor", times=0
    )

    async with watching(lab), watching(lab):
        await eventually(lambda: hits(lab, probes), lambda count: count >= 4)
        assert is_blocked(await run.view())
        await asyncio.to_thread(lab.simulator.remove_fault, probes)
        assert (await run.result()).run.status == "completed"


async def test_a_key_file_that_changes_wakes_though_the_old_key_could_look(
    lab: Lab, tmp_path: Path
) -> None:
    """A key may be allowed to look and not to submit: then only its file tells of the new one."""
    await lab.scenario(rounds=[ASK, DONE])
    file = tmp_path / "key"
    file.write_text("old")
    run = await lab.start(timing=RARELY)
    refusing = await lab.fault("runs.submit_tool_outputs", "status", status=403, times=0)
    await run.answer_all("yes")
    await run.until(is_blocked)
    await eventually(lambda: count_blocked(lab), lambda count: count == 1)
    upstream = Assistants(lab.simulator.url, credentials=FileKey(file), timeout=20)

    async with watching(lab, upstream=upstream, key_file=file):
        # The pass of the beginning, which helps nobody.
        await eventually(lambda: lab.received("runs.submit_tool_outputs"), lambda count: count >= 2)
        await run.until(is_blocked)
        await eventually(lambda: count_blocked(lab), lambda count: count == 1)
        await asyncio.to_thread(lab.simulator.remove_fault, refusing)
        file.write_text("newer")
        result = await run.result()

    assert result.run.status == "completed"
    assert await lab.accepted("runs.submit_tool_outputs") == 1


async def hits(lab: Lab, fault: str) -> int:
    """Return how many requests a fault has had."""
    return int((await asyncio.to_thread(lab.simulator.fault_state, fault))["hits"])
