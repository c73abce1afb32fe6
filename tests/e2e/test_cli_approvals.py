"""Approvals and the kill switch from the shell, beside workers in processes of their own."""

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import pytest

from runlane import reading
from runlane.decisions import keys
from tests.e2e.test_cli import Shell, bare
from tests.lab import eventually
from tests.processes import Plant

__all__ = ["bare"]

MODULE = '''
import os
import pathlib

import runlane


@runlane.tool(policy=lambda arguments: ("approve", "over 100"), deadline="4h")
def refund(order_id: str, amount: int) -> str:
    """Pay an order back."""
    with pathlib.Path(os.environ["PAID"]).open("a") as file:
        file.write(f"{order_id} {amount}\\n")
    return "paid"
'''

pytestmark = pytest.mark.slow


@pytest.fixture
def shell(bare: Shell, tmp_path: Path) -> Shell:
    """A shell with a tool, a ledger and a key of the test's own, and no worker yet."""
    (tmp_path / "till.py").write_text(MODULE)
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    keys.make(data_dir)
    bare.environ |= {
        "RUNLANE_TOOLS": "till",
        "RUNLANE_DATA_DIR": str(data_dir),
        "RUNLANE_PERSON": "ann",
        "PYTHONPATH": str(tmp_path),
        "PAID": str(tmp_path / "paid"),
    }
    return bare


async def start_worker(shell: Shell) -> None:
    """Start one more worker that knows the tool, the ledger and the key."""
    names = ("RUNLANE_TOOLS", "RUNLANE_DATA_DIR", "PYTHONPATH", "PAID")
    await shell.plant.worker(**{name: shell.environ[name] for name in names})


async def test_a_call_is_decided_from_the_shell(shell: Shell) -> None:
    """Listed, shown, edited, approved; what became of it is said at once, and by exit codes."""
    await start_worker(shell)
    run_id = await shell.create("--with-tools", tools=False)
    polled = await shell("poll", run_id, code=4)
    listed = await shell("approval", "list", "--run", run_id, code=0)
    call_id = next(word for word in listed.out.split() if word.startswith("call_"))
    shown = await shell("approval", "show", call_id, code=0)
    edited = '{"order_id": "A-1", "amount": 7}'
    approved = await shell(
        "approval", "approve", call_id, "--arguments", "-", "--note", "ok", stdin=edited, code=0
    )
    again = await shell("approval", "reject", call_id, "--reason", "no", "--json", code=8)

    assert f"Waits for a person's decision:  runlane approval show {call_id}" in polled.out
    assert all(word in listed.out for word in (run_id, "refund", "anybody", "0/1", "over 100"))
    for line in ("0 of 1", '"amount":', f"runlane approval approve {call_id}", "sha256:"):
        assert line in shown.out
    assert approved.out.startswith("Approved by ann; the decision is verified. ")
    assert "already_decided" == again.document["receipt"]["status"]
    assert "approved by ann" in again.document["error"]["message"]
    paid = Path(shell.environ["PAID"])
    assert "A-1 7\n" == await eventually(lambda: _text(paid), bool)


async def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


async def creates(plant: Plant) -> list[float]:
    """Return when the upstream got each create for the plant's thread, in unix seconds."""
    lab = plant.lab
    journal = await asyncio.to_thread(lambda: lab.simulator.requests(thread_id=lab.thread_id))
    return [each["at"] for each in journal["data"] if each["operation"] == "runs.create"]


async def test_a_stop_holds_on_all_workers_and_over_a_restart(shell: Shell) -> None:
    """Nothing is created by those that were there, nor by the next one; resumed, within seconds."""
    plant = shell.plant
    await asyncio.gather(start_worker(shell), start_worker(shell))
    stopped = await shell("stop", "--all", "--reason", "wrong price list", code=0)
    run_id = await shell.create("--with-tools", tools=False)

    async def said() -> str:
        return (await reading.read(plant.client, run_id)).runlane.retrying or ""

    await eventually(said, lambda text: "wrong price list" in text)
    await asyncio.gather(*(worker.kill() for worker in plant._workers))
    await start_worker(shell)
    viewed = await shell("view", run_id, code=0)
    # Longer than any worker waits until it asks again.
    await asyncio.sleep(6)
    assert [] == await creates(plant)

    resumed_at = time.time()
    resumed = await shell("resume", "--all", code=0)
    [created_at] = await eventually(lambda: creates(plant), bool, within=timedelta(seconds=60))
    await plant.client.get_workflow_handle(run_id).terminate()

    assert "Stopped: everything" in stopped.out
    assert "by          ann" in stopped.out
    assert "stopped with everything, by ann since " in viewed.out
    assert "Resumed: everything, stopped by ann for " in resumed.out
    # The command itself takes seconds, on a slow machine.
    assert created_at - resumed_at < 30


async def test_a_ledger_that_does_not_answer_is_said_plainly(shell: Shell, tmp_path: Path) -> None:
    """Whoever wants to stop everything must know that nothing is stopped."""
    file = tmp_path / "no directory"
    file.write_text("")
    shell.environ["RUNLANE_DATA_DIR"] = str(file)

    said = await shell("stop", "--all", "--reason", "x", "--json", code=5)

    assert "ledger_unreachable" == said.document["error"]["code"]
    assert "no directory/ledger.db" in said.document["error"]["message"]
