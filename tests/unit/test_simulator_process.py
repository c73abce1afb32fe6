"""The simulator as a command, and its independence of the client it is there to test."""

from __future__ import annotations

import ast
import asyncio
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from runsapi import simulator
from tests.simulator_process import SimulatorProcess

COMMAND = (sys.executable, "-m", "runsapi.simulator")


def test_it_shares_nothing_with_the_client() -> None:
    """No module of the simulator imports ours or Temporal: else both could misread alike."""
    foreign = []
    for path in Path(simulator.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            foreign += [
                (path.name, name)
                for name in names
                if name.split(".")[0] in ("runsapi", "temporalio", "httpx", "openai")
                and not name.startswith("runsapi.simulator")
            ]

    assert foreign == []


def test_files_are_read_at_the_start(tmp_path: Path) -> None:
    """Scenario and faults of the command line hold from the first request on."""
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(
        "expires_after = 5\npoll_after_ms = 250\n"
        "[[rounds]]\nqueued = 0\nin_progress = 0\ncalls = [{name = 'f'}]\n",
        encoding="utf-8",
    )
    faults = tmp_path / "faults.json"
    faults.write_text('[{"operation": "runs.create", "kind": "server_error"}]', encoding="utf-8")
    with SimulatorProcess("--scenario", str(scenario), "--faults", str(faults)) as process:
        url = f"{process.url}/threads/thread_1/runs"
        answers = [
            httpx.post(url, json={"assistant_id": "asst_1"}, trust_env=False) for _ in range(2)
        ]

    assert [answer.status_code for answer in answers] == [500, 200]
    run = answers[1].json()
    assert run["expires_at"] == run["created_at"] + 5
    assert answers[1].headers["openai-poll-after-ms"] == "250"


def test_a_wrong_file_is_named_and_nothing_starts(tmp_path: Path) -> None:
    """The command ends with status 2 and one line that names file and field."""
    scenario = tmp_path / "wrong.toml"
    scenario.write_text("expires_in = 5\n", encoding="utf-8")
    ended = subprocess.run(
        (*COMMAND, "--scenario", str(scenario)), capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"{scenario}: scenario 1: expires_in: Extra inputs")


def test_a_port_in_use_is_an_error() -> None:
    """The command doesn't start on another port than asked."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = subprocess.run(
            (*COMMAND, "--port", port), capture_output=True, text=True, check=False
        )

    assert ended.returncode == 2
    assert "in use" in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(number: signal.Signals) -> None:
    """Either signal ends the process with status 0 and not a word."""
    with subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["pid"] == process.pid
        process.send_signal(number)
        out, err = process.communicate(timeout=10)

    assert (process.returncode, out, err) == (0, "", "")


async def test_it_can_be_served_from_a_task() -> None:
    """A larger process can hold the simulator, and cancelling the task ends it."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(simulator.serve(ready=ready.set_result, handle_signals=False))
    url = await ready
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(f"{url}/threads/thread_1")).status_code == 200
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(httpx.ConnectError):
            await http.get(f"{url}/threads/thread_1")
