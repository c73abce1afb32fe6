"""Keys that are wrong, missing, lost or changed: what a worker and `up` do about it."""

import asyncio
import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from temporalio.client import Client

from runlane import Runlane, key_file
from runlane.doctor.encryption import check_encryption
from runlane.embedded import EmbeddedTemporal
from runlane.errors import CannotDecrypt
from runlane.settings import EncryptionKey, Settings
from runlane.temporal import connect
from tests.e2e.test_up import clean, create, runlane, up
from tests.lab import eventually
from tests.processes import Plant
from tests.simulator_process import SimulatorProcess

ASKS = [{"queued": 0.05, "in_progress": 0.05, "calls": [{"name": "ask"}]}]
VARIABLE = "RUNLANE_ENCRYPTION_KEYS"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def spelled(*keys: EncryptionKey) -> str:
    """Return the keys as the variable holds them."""
    return ",".join(f"{key.id}:{base64.b64encode(key.key).decode()}" for key in keys)


def refused(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Start a worker that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "worker"],
        env=clean(**environ, PYTHONPATH=os.environ.get("PYTHONPATH", "")),
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


async def test_a_worker_with_a_wrong_key_refuses_to_start(
    plant: Plant, temporal_server: EmbeddedTemporal, data_dir: Path, tmp_path: Path
) -> None:
    """Another key, other bytes under its name, or none: it names run, key and variable.

    It takes no task, and with the right key the run goes on.
    """
    lab = plant.lab
    await lab.scenario(rounds=ASKS)
    client = Runlane(plant.client, Settings(task_queue=lab.task_queue, data_dir=data_dir))
    run = await client.runs.create(lab.thread_id, assistant_id=lab.assistant_id)
    [right] = key_file.read(data_dir)
    none: list[EncryptionKey] = []
    wrong = [EncryptionKey("another", bytes(32))], [EncryptionKey(right.id, bytes(32))], none
    environ = {
        "TEMPORAL_ADDRESS": temporal_server.address,
        "RUNLANE_UPSTREAM_URL": lab.simulator.url,
        "RUNLANE_TASK_QUEUE": lab.task_queue,
        "RUNLANE_DATA_DIR": str(tmp_path),
    }

    all_ended = await asyncio.gather(
        *(asyncio.to_thread(refused, environ | {VARIABLE: spelled(*keys)}) for keys in wrong)
    )

    for ended in all_ended:
        assert 2 == ended.returncode, ended.stderr
        assert VARIABLE in ended.stderr
        assert run.id in ended.stderr
        assert right.id in ended.stderr
        assert "Traceback" not in ended.stderr
    assert 0 == await lab.received("runs.create")
    history = await plant.client.get_workflow_handle(run.id).fetch_history()
    assert 2 == len(history.events)

    await plant.worker()
    waiting = await client.runs.poll(run.id, timeout=60)
    given = [{"tool_call_id": waiting.tool_calls[0].id, "output": "yes"}]
    done = await client.runs.submit_tool_outputs_and_poll(run.id, tool_outputs=given, timeout=60)
    assert "completed" == done.status
    assert 1 == await lab.accepted("runs.create")


async def test_a_key_is_rotated_under_a_run(
    temporal_server: EmbeddedTemporal, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    """A run from before there was a key, then under a first, then a second one, completes."""
    first, second = EncryptionKey("first", bytes(32)), EncryptionKey("second", bytes(range(32)))
    address = {"TEMPORAL_ADDRESS": temporal_server.address}

    async def client_with(*keys: EncryptionKey) -> Client:
        settings = Settings(data_dir=tmp_path, encryption_keys=keys)
        return await connect(settings, environ=address)

    plant = Plant(temporal_server.address, await client_with(), simulator, tmp_path)
    lab = plant.lab
    await lab.scenario(rounds=[*ASKS, *ASKS])
    run_id = ""
    for keys in ((), (first,), (second, first)):
        lab.client = await client_with(*keys)
        desk = Runlane(lab.client, Settings(task_queue=lab.task_queue, data_dir=tmp_path))
        if not run_id:
            run_id = (await desk.runs.create(lab.thread_id, assistant_id=lab.assistant_id)).id
        async with lab.worker():
            run = await desk.runs.poll(run_id, timeout=60)
            if run.tool_calls:
                given = [{"tool_call_id": run.tool_calls[0].id, "output": "yes"}]
                run = await desk.runs.submit_tool_outputs(run_id, tool_outputs=given)
    run = await desk.runs.poll(run_id, timeout=60)

    assert "completed" == run.status
    assert 1 == await lab.accepted("runs.create")
    assert 2 == await lab.accepted("runs.submit_tool_outputs")


async def test_a_client_with_a_wrong_key_sends_nothing(plant: Plant, data_dir: Path) -> None:
    """A message that the run's workers can't read would stop the run: it is refused before."""
    lab = plant.lab
    await lab.scenario(rounds=ASKS)
    await plant.worker()
    right = Runlane(plant.client, Settings(task_queue=lab.task_queue, data_dir=data_dir))
    run = await right.runs.create(lab.thread_id, assistant_id=lab.assistant_id)
    run = await right.runs.poll(run.id, timeout=60)
    stranger = await connect(
        Settings(data_dir=data_dir.parent, encryption_keys=(EncryptionKey("odd", bytes(32)),)),
        environ={"TEMPORAL_ADDRESS": plant.client.service_client.config.target_host},
    )
    wrong = Runlane(stranger, Settings(task_queue=lab.task_queue))
    given = [{"tool_call_id": run.tool_calls[0].id, "output": "yes"}]

    for sending in (
        wrong.runs.submit_tool_outputs(run.id, tool_outputs=given),
        wrong.runs.update(run.id, metadata={"ticket": "7"}),
        wrong.runs.cancel(run.id),
        wrong.runs.retrieve(run.id),
    ):
        with pytest.raises(CannotDecrypt, match=VARIABLE):
            await sending

    done = await right.runs.submit_tool_outputs_and_poll(run.id, tool_outputs=given, timeout=60)
    assert "completed" == done.status
    # Other tests' runs lie there too, under keys of their own.
    assert run.id not in (await check_encryption(plant.client)).message
    found = await check_encryption(stranger)
    assert "problem" == found.level
    assert key_file.read(data_dir)[0].id in found.message


async def test_a_client_without_a_key_starts_nothing_where_others_encrypt(
    plant: Plant, data_dir: Path, tmp_path: Path
) -> None:
    """Its run would lie in the clear among theirs, and nobody would notice."""
    lab = plant.lab
    settings = Settings(task_queue=lab.task_queue, data_dir=data_dir)
    await Runlane(plant.client, settings).runs.create(lab.thread_id, assistant_id=lab.assistant_id)
    address = plant.client.service_client.config.target_host
    bare = await connect(Settings(data_dir=tmp_path), environ={"TEMPORAL_ADDRESS": address})
    forgetful = Runlane(bare, Settings(task_queue=lab.task_queue))

    async def refused() -> str:
        try:
            await forgetful.runs.create(lab.thread_id, assistant_id=lab.assistant_id)
        except CannotDecrypt as error:
            return error.message
        return ""

    # Lists know of a run a moment after it has begun.
    said = await eventually(refused, bool)
    assert VARIABLE in said
    assert "encrypted" in said


def test_up_keeps_its_key_and_says_when_it_is_lost(tmp_path: Path) -> None:
    """Made once and found by every command; without it `up` refuses, and starts nothing anew.

    Nothing of a run stands in the clear below the data directory, but in the simulator's own file.
    """
    marker = "an-instruction-nobody-else-writes"
    params = tmp_path / "params.json"
    params.write_text(json.dumps({"instructions": marker}))
    path = tmp_path / ".runlane" / key_file.NAME
    with up(tmp_path, "--simulate") as started:
        assert f"Made the key that encrypts runs: {path}" in started.said
        made = create(started, tmp_path, "--params", str(params), "--wait")
        shown = runlane("retrieve", made["id"], "--json", environ=started.environ(), cwd=tmp_path)
        assert marker == json.loads(shown.stdout)["instructions"]
    files = [file for file in path.parent.rglob("*") if file.is_file()]
    files = [file for file in files if not file.name.startswith("simulator.db")]
    assert [] == [file for file in files if marker.encode() in file.read_bytes()]
    [key] = key_file.read(path.parent)

    path.rename(tmp_path / "kept")
    ended = runlane("up", "--simulate", "--temporal-port", "0", environ=clean(), cwd=tmp_path)
    assert 1 == ended.returncode
    remedies = ("Put a copy of it back", "are lost", "--data-dir")
    for word in (str(path), made["id"], key.id, *remedies):
        assert word in ended.stderr
    assert not path.exists()

    # The remedy that it names; the file is not made anew beside it.
    environ = {VARIABLE: (tmp_path / "kept").read_text().strip()}
    with up(tmp_path, "--simulate", environ=clean(**environ)) as again:
        shown = runlane(
            *("retrieve", made["id"], "--json"),
            environ=again.environ() | environ,
            cwd=tmp_path,
        )
        assert marker == json.loads(shown.stdout)["instructions"]
    assert not path.exists()


async def test_up_goes_on_where_nothing_was_encrypted(tmp_path: Path) -> None:
    """A directory with a run from before there were keys gets one, and the run is done."""
    data_dir = tmp_path / ".runlane"
    async with EmbeddedTemporal(data_dir) as server:
        settings = Settings(data_dir=data_dir)
        client = await connect(settings, environ={"TEMPORAL_ADDRESS": server.address})
        run = await Runlane(client, settings).runs.create("thread_1", assistant_id="asst_1")

    with up(tmp_path, "--simulate") as started:
        done = runlane("poll", run.id, "--json", environ=started.environ(), cwd=tmp_path)
        assert 0 == done.returncode, done.stderr
        assert "completed" == json.loads(done.stdout)["status"]
        assert (data_dir / key_file.NAME).exists()


def test_only_the_worker_gets_what_decrypts(tmp_path: Path) -> None:
    """Temporal and the simulator are started without Runlane's variables, of which some are keys.

    Whoever reads the server's memory or its environment finds none to what it keeps.
    """
    key = spelled(EncryptionKey("own", bytes(32)))
    with up(tmp_path, "--simulate", environ=clean(**{VARIABLE: key})) as started:
        worker, temporal, simulator = (
            Path(f"/proc/{started.document[name]}/environ").read_bytes()
            for name in ("worker_pid", "temporal_pid", "simulator_pid")
        )

    assert key.encode() in worker
    assert b"RUNLANE_" not in temporal
    assert b"RUNLANE_" not in simulator
