"""The log of a real worker process."""

import asyncio
import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any

from tests.lab import eventually
from tests.processes import Plant, WorkerProcess

SECRETS = ("argument-5d1e", "output-77af", "instruction-b2c0", "sk-key-9e41", "thread-content-3b8d")
CALLS: list[dict[str, Any]] = [{"name": "lookup_order", "arguments": {"order_id": SECRETS[0]}}]


def entries(worker: WorkerProcess) -> list[dict[str, Any]]:
    """Return the log's lines, each of which must be JSON."""
    return [json.loads(line) for line in worker.log.read_text(encoding="utf-8").splitlines()]


async def test_each_line_is_json_and_names_its_run(plant: Plant) -> None:
    """An activity's line has run, attempt and phase, a workflow's the run; none has any content."""
    lab = plant.lab
    await lab.scenario(
        rounds=[
            {"queued": 0.05, "in_progress": 0.1, "calls": CALLS},
            {"queued": 0.05, "in_progress": 0.05},
        ]
    )
    await lab.fault("runs.create", "status", status=500)
    await lab.fault("runs.submit_tool_outputs", "status", status=503)
    worker = await plant.worker(RUNLANE_LOG_FORMAT="json", RUNLANE_UPSTREAM_API_KEY=SECRETS[3])
    run = await lab.start(params={"instructions": SECRETS[2]})
    await run.answer_all(SECRETS[1])
    await run.result()
    # An input that no version of Runlane wrote: its workflow task fails until somebody ends it.
    broken = await plant.client.start_workflow(
        "Run",
        {"request": {"thread_id": [SECRETS[4]]}},
        id=f"run_{secrets.token_hex(8)}",
        task_queue=lab.task_queue,
    )

    async def of_workflow() -> list[dict[str, Any]]:
        return [entry for entry in entries(worker) if entry.get("run_id") == broken.id]

    (told, *_) = await eventually(of_workflow, bool)
    await broken.terminate()
    worker.terminate()
    assert 0 == await worker.wait()
    log = entries(worker)

    assert "workflow" == told["phase"]
    assert {"WARNING", "ERROR"} >= {told["level"]}
    assert "traceback" in told
    for entry in log:
        assert {"time", "level", "logger", "message"} <= entry.keys(), entry
    of_run = [entry for entry in log if entry.get("run_id") == run.id]
    words = [(entry["phase"], entry["attempt"], entry["level"]) for entry in of_run]
    assert ("create", 1, "WARNING") == words[0]
    assert {("create", 1, "INFO"), ("submit", 1, "WARNING"), ("submit", 1, "INFO")} <= set(words)
    assert 1 == of_run[0]["try"]
    assert 2 <= of_run[1]["try"]
    assert "UpstreamUnavailable" == of_run[0]["error"]
    assert of_run[0]["message"].startswith("UpstreamUnavailable: The upstream answered 500")
    assert [] == [entry for entry in of_run if "traceback" in entry]
    text = worker.log.read_text(encoding="utf-8")
    assert [] == [secret for secret in SECRETS if secret in text]


async def test_a_worker_that_can_not_start(plant: Plant) -> None:
    """Its last line is JSON too, and names the variable to mend."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker"),
        cwd=Path(__file__).parents[2],
        env={"PATH": os.environ["PATH"]}
        | plant._environ
        | {"RUNLANE_UPSTREAM_URL": "", "RUNLANE_LOG_FORMAT": "json"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)

    assert 2 == process.returncode
    (entry,) = [json.loads(line) for line in said.splitlines()]
    assert "ERROR" == entry["level"]
    assert entry["message"].startswith("RUNLANE_UPSTREAM_URL is not set")
