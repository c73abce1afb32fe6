"""Runs that can't be read where the command is called, for want of a key."""

import base64

import pytest

from tests.e2e.test_cli import Shell, bare
from tests.lab import eventually

__all__ = ["bare"]

WORKERS_KEY = f"theirs:{base64.b64encode(bytes(range(32))).decode()}"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def test_a_run_that_cannot_be_read_is_started_listed_and_told(bare: Shell) -> None:
    """Its worker writes under a key that the shell lacks: each command says what it can."""
    shell, lab = bare, bare.plant.lab
    await lab.fault("runs.retrieve", "quota", times=100_000)
    await shell.plant.worker(RUNLANE_ENCRYPTION_KEYS=WORKERS_KEY)
    thread = ("--thread", lab.thread_id)

    started = await shell("create", *thread, "--assistant", lab.assistant_id, "--wait", code=1)
    run_id = started.out.split()[0]
    assert f"{run_id} was started and goes on, but it can't be shown here" in started.err
    assert "'theirs'" in started.err

    async def blocked() -> str:
        return (await shell("list", "--blocked", *thread, code=0)).out

    # Visibility hears of it a moment later.
    out = await eventually(blocked, lambda text: run_id in text)
    assert "can't be read here: key theirs" in out
    as_json = (await shell("list", "--blocked", *thread, "--json", code=0)).document
    assert "theirs" == as_json["data"][0]["runlane"]["unreadable"]["key_id"]

    nudged = await shell("nudge", run_id, "--json", code=1)
    assert run_id == nudged.document["run_id"]
    assert f"{run_id} was nudged, but" in nudged.err
    # The shared server's other runs may be unreadable, too.
    doctor = await shell("doctor", code=1)
    assert "by quota" in doctor.out
    assert "Traceback" not in doctor.err
