"""Large input: lines of a megabyte, and files of very many lines."""

import asyncio
import contextlib
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.test_batch_kills import ASKS
from tests.e2e.test_cli import Shell, bare, shell
from tests.e2e.test_cli_batches import Input, lines
from tests.lab import eventually

__all__ = ["bare", "shell"]

TEXT = "🎫" * 250_000
"""A megabyte in the longest text that the protocol takes, in as many bytes as can be."""
DONE = {"queued": 0.05, "in_progress": 0.05, "says": "Read."}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


async def test_lines_of_a_megabyte_come_out_right(shell: Shell) -> None:
    """On a new thread, in the run's own instructions, and in one that becomes a run of its own
    and is answered: what arrives upstream is what stands in the line.
    """
    lab = shell.plant.lab
    asking = f"{lab.assistant_id}_asks"
    await lab.scenario(rounds=[DONE])
    await lab.scenario(assistant_id=asking, rounds=[ASKS, DONE])
    thread = {"messages": [{"role": "user", "content": TEXT}]}
    given = Input(shell)
    given.add(1, thread=thread)
    given.add(1, instructions=TEXT)
    given.add(1, assistant_id=asking, instructions=TEXT)
    path = shell.directory / given.name
    path.write_text(
        "".join(
            json.dumps(json.loads(line), ensure_ascii=False) + "\n"
            for line in path.read_text().splitlines()
        )
    )
    raw = path.read_bytes().splitlines()

    await shell("batch", "run", given.name, "-o", "out.jsonl", "--detach", code=0)
    [asked] = await eventually(lambda: asyncio.to_thread(_asking, shell, asking), bool)
    run_id = asked["metadata"]["runlane_run_id"]
    await shell("poll", run_id, code=4)
    [call] = asked["required_action"]["submit_tool_outputs"]["tool_calls"]
    await shell("submit", run_id, f"{call['id']}=yes", code=0)
    await shell("batch", "run", given.name, "-o", "out.jsonl", "--wait-for-people", code=0)
    results = {line["custom_id"]: line for line in lines(shell.directory / "out.jsonl")}
    upstream = {
        run["metadata"]["runlane_run_id"]: run
        for run in await asyncio.to_thread(shell.plant.simulator.runs)
        if run["assistant_id"] in (lab.assistant_id, asking)
    }
    made = [upstream[results[custom_id]["runlane"]["run_id"]] for custom_id in given.ids()]
    messages = await asyncio.to_thread(shell.plant.simulator.thread, made[0]["thread_id"])

    assert all(len(line) > 1_000_000 for line in raw)
    assert ["sha256:" + hashlib.sha256(line).hexdigest() for line in raw] == [
        results[custom_id]["input_digest"] for custom_id in given.ids()
    ]
    assert 3 == len(upstream) == len(results)
    assert TEXT == messages["messages"][0]["content"][0]["text"]["value"]
    assert [TEXT, TEXT] == [run["instructions"] for run in made[1:]]
    assert [TEXT, TEXT] == [
        results[custom_id]["response"]["body"]["instructions"] for custom_id in given.ids()[1:]
    ]


def _asking(shell: Shell, assistant_id: str) -> list[dict[str, Any]]:
    return [
        run
        for run in shell.plant.simulator.runs(live=True)
        if run["assistant_id"] == assistant_id and run["status"] == "requires_action"
    ]


def test_a_long_file_is_checked_in_the_memory_of_a_short_one(tmp_path: Path) -> None:
    """A hundred megabytes in a hundred thousand lines, beside a tenth of that: what more it takes
    is the part of its `custom_id`s that SQLite keeps, and the words for whoever waits long.
    """
    peaks = []
    for count in (10_000, 100_000):
        path = tmp_path / f"{count}.jsonl"
        _write(path, count)
        peaks.append(_peak(path))
        path.unlink()

    print(f"peaks in MB: {peaks}")
    assert peaks[1] < peaks[0] + 50


def _peak(path: Path) -> int:
    """Return the megabytes that the check of a file takes at the most."""
    runlane = str(Path(sys.executable).with_name("runlane"))
    command = [runlane, "batch", "run", "--dry-run", str(path)]
    peak = 0
    with subprocess.Popen(
        command, cwd=path.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            # What the system tells at its end would count what the process was forked from.
            with contextlib.suppress(psutil.NoSuchProcess):
                peak = max(peak, psutil.Process(process.pid).memory_info().rss)
            time.sleep(0.05)
    assert 0 == process.returncode
    return peak // 1_000_000


def _write(path: Path, count: int) -> None:
    text = "Where is my order? " * 45
    with path.open("w") as file:
        for number in range(count):
            body = {
                "assistant_id": "asst_tickets",
                "thread": {"messages": [{"role": "user", "content": f"{number}: {text}"}]},
            }
            line = {"method": "POST", "url": "/v1/threads/runs", "body": body}
            file.write(json.dumps({"custom_id": f"ticket-{number}", **line}) + "\n")
