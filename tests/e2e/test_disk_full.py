"""Temporal's server can write nothing more, and then can again."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from temporalio.service import RPCError, RPCStatusCode

from runlane import Runlane, RunlaneError, starting
from runlane.doctor.installation import check_room
from runlane.embedded import EmbeddedTemporal
from runlane.errors import StartUncertain
from runlane.settings import Settings
from runlane.temporal import connect
from tests.lab import LabRun, eventually
from tests.processes import Plant
from tests.simulator_process import SimulatorProcess
from workflows.contract import RunView

ASK = {"queued": 0.05, "in_progress": 0.05, "calls": [{"name": "pay"}, {"name": "ship"}]}
LAST = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}
ENDLESS = {"queued": 0.0, "ends": "never"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedTemporal]:
    """A server of the test's own."""
    async with EmbeddedTemporal(tmp_path) as server:
        yield server


def let_write(server: EmbeddedTemporal, size: int) -> None:
    """Let every write beyond that many bytes of a file fail, as each does on a full disk.

    A file system of a test's own needs rights that not every machine gives; the server's errors
    are the same, and so is what they make of its shard.
    """
    psutil.Process(server.pid).rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))


async def result_of(run: LabRun) -> RunView | None:
    """Return how the run ended, or none while the server hasn't got its shard back."""
    try:
        return await run.result()
    except RPCError as error:
        if error.status is not RPCStatusCode.UNAVAILABLE:
            raise
        return None


async def test_all_goes_on_when_there_is_room_again(
    server: EmbeddedTemporal,
    simulator: SimulatorProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was acknowledged is kept, what can't be is refused in so many words, and runs go on by
    themselves; nothing is created or submitted twice.
    """
    monkeypatch.setattr(starting, "_TIMEOUT", timedelta(seconds=4))
    client = await connect(
        Settings(data_dir=tmp_path), environ={"TEMPORAL_ADDRESS": server.address}
    )
    plant = Plant(server.address, client, simulator, tmp_path)
    try:
        await plant.worker()
        asked, leg, new = (plant.another_lab() for _ in range(3))
        await asked.scenario(rounds=[ASK, LAST])
        await leg.scenario(rounds=[ENDLESS])
        await new.scenario(rounds=[LAST])
        waiting, polling = await asked.start(), await leg.start()
        pay, ship = (await waiting.until_status("requires_action")).runlane.pending
        assert ["accepted"] == await waiting.submit((pay.tool_call_id, "paid"))
        upstream = (await polling.until(lambda view: view.runlane.attempt == 1)).runlane
        runs = Runlane(client, Settings(task_queue=new.task_queue)).runs

        async def create() -> str:
            run = await runs.create(
                new.thread_id, assistant_id=new.assistant_id, idempotency_key=new.thread_id
            )
            return run.id

        let_write(server, 8192)
        with pytest.raises(StartUncertain, match="disk may be full"):
            await create()
        # A caller may be patient for longer than a test.
        with pytest.raises((RunlaneError, TimeoutError)):
            async with asyncio.timeout(5):
                await runs.submit_tool_outputs(
                    waiting.id,
                    tool_outputs=[{"tool_call_id": ship.tool_call_id, "output": "not taken"}],
                )
        await leg.force(str(upstream.upstream_run_id), "completed")
        assert server.pid

        let_write(server, psutil.RLIM_INFINITY)
        ended = await eventually(lambda: result_of(polling), lambda view: view is not None)
        assert ended is not None
        assert ended.run.status == "completed"
        created = await runs.poll(await create(), timeout=60)
        assert created.status == "completed"
        await waiting.submit((ship.tool_call_id, "shipped"))
        result = await waiting.result(seconds=60)
        assert result.run.status == "completed"
        assert {a.name for a in result.runlane.answers if a.outcome == "submitted"} == {
            "pay",
            "ship",
        }
        for lab, submits in ((asked, 1), (leg, 0), (new, 0)):
            assert await lab.accepted("runs.create") == 1
            assert await lab.accepted("runs.submit_tool_outputs") == submits
    finally:
        await plant.dispose()
    await server.stop()
    database = sqlite3.connect(tmp_path / "temporal.db")
    assert [("ok",)] == database.execute("pragma integrity_check").fetchall()
    database.close()


async def test_the_doctor_sees_a_full_disk(server: EmbeddedTemporal, tmp_path: Path) -> None:
    """How much is free is said before it is nothing; with enough there is nothing to mend."""
    client = await connect(
        Settings(data_dir=tmp_path), environ={"TEMPORAL_ADDRESS": server.address}
    )

    (short,) = [finding async for finding in check_room(client, Settings(), least=2**80)]
    (fine,) = [finding async for finding in check_room(client, Settings(), least=0)]

    assert (short.level, fine.level) == ("problem", "ok")
    assert str(tmp_path) in short.message
    assert "MB are free" in short.message
