"""What the simulator still knows when it comes back on its file."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.simulator_process import SimulatorProcess

pytestmark = pytest.mark.slow

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
QUICK = {"queued": 0.0, "in_progress": 0.0}


def call(simulator: SimulatorProcess, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """Send one request to the API."""
    answer = httpx.request(method, simulator.url + path, json=body, trust_env=False)
    found: dict[str, Any] = answer.json()
    return found


def kill(simulator: SimulatorProcess) -> None:
    """End it the hard way, and collect what is left of it."""
    os.kill(simulator.pid, signal.SIGKILL)
    simulator.stop()


def test_a_waiting_run_survives_a_kill(tmp_path: Path) -> None:
    """Its call has the same id, takes its answer, and the run ends as if nothing had been."""
    state = tmp_path / "state.db"
    with SimulatorProcess("--state", str(state)) as simulator:
        simulator.scenario(assistant_id="asst_1", **QUICK)
        body = {
            "assistant_id": "asst_1",
            "tools": [TOOL],
            "metadata": {"k": "v"},
            "additional_messages": [{"role": "user", "content": "Where is it?"}],
        }
        made = call(simulator, "POST", "/threads/thread_1/runs", body)
        path = f"/threads/thread_1/runs/{made['id']}"
        before = call(simulator, "GET", path)
        thread_before = simulator.thread("thread_1")
        kill(simulator)

        simulator.start()
        after = call(simulator, "GET", path)
        thread_after = simulator.thread("thread_1")
        asked = after["required_action"]["submit_tool_outputs"]["tool_calls"][0]["id"]
        outputs = {"tool_outputs": [{"tool_call_id": asked, "output": "here"}]}
        call(simulator, "POST", f"{path}/submit_tool_outputs", outputs)
        ended = call(simulator, "GET", path)
        steps = call(simulator, "GET", f"{path}/steps?order=asc")

    assert "requires_action" == before["status"]
    assert before == after
    assert thread_before == thread_after
    assert "completed" == ended["status"]
    assert ["tool_calls", "message_creation"] == [step["type"] for step in steps["data"]]
    assert "here" == steps["data"][0]["step_details"]["tool_calls"][0]["function"]["output"]


def test_the_thread_stays_locked(tmp_path: Path) -> None:
    """A thread whose run has not ended takes no second one after a restart, either."""
    with SimulatorProcess("--state", str(tmp_path / "state.db")) as simulator:
        body = {"assistant_id": "asst_1", "tools": [TOOL]}
        first = call(simulator, "POST", "/threads/thread_1/runs", body)
        simulator.stop()
        simulator.start()
        second = call(simulator, "POST", "/threads/thread_1/runs", body)

    assert f"already has an active run {first['id']}" in second["error"]["message"]


def test_time_goes_on_while_it_is_away(tmp_path: Path) -> None:
    """A run expires by the clock on the wall, as it would with a service that never ended."""
    with SimulatorProcess("--state", str(tmp_path / "state.db")) as simulator:
        simulator.scenario(assistant_id="asst_1", expires_after=1.0, **QUICK)
        body = {"assistant_id": "asst_1", "tools": [TOOL]}
        made = call(simulator, "POST", "/threads/thread_1/runs", body)
        simulator.stop()
        time.sleep(max(0.0, made["created_at"] + 2.1 - time.time()))
        simulator.start()
        found = call(simulator, "GET", f"/threads/thread_1/runs/{made['id']}")

    assert "expired" == found["status"]


def test_scenarios_and_assistants_are_kept(tmp_path: Path) -> None:
    """What was registered once holds after a restart."""
    with SimulatorProcess("--state", str(tmp_path / "state.db")) as simulator:
        simulator.scenario(assistant_id="asst_1", rounds=[{"ends": "incomplete"}], **QUICK)
        assistant = call(simulator, "POST", "/assistants", {"model": "m", "name": "Bo"})
        kill(simulator)
        simulator.start()
        found = call(simulator, "GET", f"/assistants/{assistant['id']}")
        body = {"assistant_id": "asst_1"}
        made = call(simulator, "POST", "/threads/thread_1/runs", body)
        ended = call(simulator, "GET", f"/threads/thread_1/runs/{made['id']}")

    assert assistant == found
    assert "incomplete" == ended["status"]


@pytest.mark.parametrize("what", ["no database", "another format"])
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, what: str) -> None:
    """Exit code 2 and one line with its name; the file is left as it is."""
    state = tmp_path / "state.db"
    if what == "no database":
        state.write_text("something of somebody's " * 100)
    else:
        file = sqlite3.connect(state)
        file.execute("PRAGMA user_version = 99")
        file.close()
    before = state.read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "runsapi.simulator", "--state", str(state)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 2 == done.returncode
    assert str(state) in done.stderr
    assert 1 == len(done.stderr.splitlines())
    assert before == state.read_bytes()
