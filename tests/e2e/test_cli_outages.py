"""Commands while Temporal's server is away: what they print stays theirs."""

import asyncio
from pathlib import Path

import psutil
import pytest

from runlane.temporal import connect
from tests.e2e.test_cli import Said, Shell
from tests.lab import eventually
from tests.processes import Plant
from tests.scattered import Temporal
from tests.simulator_process import SimulatorProcess
from tests.temporal_server import encrypting

pytestmark = pytest.mark.slow


async def test_nothing_but_the_document_is_on_standard_output(
    simulator: SimulatorProcess, tmp_path: Path
) -> None:
    """`poll --json` sees an outage through that is long enough for the SDK to complain of it."""
    temporal = Temporal(tmp_path)
    await temporal.start()
    settings = encrypting(tmp_path)
    address = temporal.server.address
    client = await connect(settings, environ={"TEMPORAL_ADDRESS": address})
    plant = Plant(address, client, simulator, tmp_path)
    try:
        await plant.worker()
        await plant.lab.scenario(rounds=[{"queued": 0.1, "in_progress": 18, "says": "Done."}])
        shell = Shell(plant, tmp_path)
        run_id = await shell.create(tools=False)
        polling = await shell.start("poll", run_id, "--json")
        await eventually(lambda: _connected(polling.pid), bool)
        # It has to be past its first look, which doesn't wait for a server.
        await asyncio.sleep(2)
        await temporal.kill()
        await asyncio.sleep(10)
        await temporal.start()
        out, err = await asyncio.wait_for(polling.communicate(b""), 60)
        said = Said(polling.returncode or 0, out.decode(), err.decode(), 0.0)
    finally:
        await plant.dispose()
        await temporal.server.stop()

    assert 0 == said.code, said
    assert "completed" == said.document["status"]
    assert "temporalio_client" not in said.err


async def _connected(pid: int) -> bool:
    found = await asyncio.to_thread(psutil.Process(pid).net_connections)
    return any(each.status == psutil.CONN_ESTABLISHED for each in found)
