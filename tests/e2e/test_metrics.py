"""Metrics and health of a real worker process, over HTTP."""

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import sys
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from runlane.embedded import EmbeddedTemporal
from runlane.temporal import connect
from tests.lab import eventually
from tests.processes import Plant, WorkerProcess
from tests.simulator_process import SimulatorProcess
from tests.temporal_server import encrypting

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "runlane.json"
SERVED = {"RUNLANE_METRICS_ADDRESS": "127.0.0.1:0"}
CALLS: list[dict[str, Any]] = [{"name": "lookup_order", "arguments": {"order_id": "A-1042"}}]
ASKS: dict[str, Any] = {"queued": 0.05, "in_progress": 0.1, "calls": CALLS}

Samples = Mapping[str, float]
"""Value by name and labels, as `name{label="value"}`, labels in order."""


def dashboard_expressions() -> list[str]:
    """Return what the dashboard's panels ask Prometheus."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


async def get(worker: WorkerProcess, path: str) -> httpx.Response:
    """Ask the worker's endpoint."""
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.get(worker.document["metrics"] + path)


async def scrape(worker: WorkerProcess) -> Samples:
    """Return what a Prometheus would read."""
    answer = await get(worker, "/metrics")
    assert 200 == answer.status_code
    samples = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def total(samples: Samples, name: str, *wanted: str) -> float:
    """Sum the samples of a metric that have all these labels."""
    return sum(
        value
        for sample, value in samples.items()
        if sample.split("{")[0] == name and all(label in sample for label in wanted)
    )


@pytest.mark.slow
async def test_a_worker_that_drove_runs(plant: Plant, simulator: SimulatorProcess) -> None:
    """An error, a re-creation, a blocked run and a waiting call are all in one scrape.

    Temporal's own metrics stand beside ours, and no label names a run.
    """
    worker = await plant.worker(**SERVED, RUNLANE_UPSTREAM_TIMEOUT="20s")
    erring, expiring, refused = plant.lab, plant.another_lab(), plant.another_lab()
    await erring.scenario(rounds=[ASKS, {"queued": 0.05, "in_progress": 0.05}])
    await expiring.scenario(rounds=[ASKS, {"queued": 0.05, "in_progress": 0.05}])
    await refused.scenario(rounds=[{"queued": 0.05, "in_progress": 600}])
    await erring.fault("runs.create", "status", status=500)
    first, second = await erring.start(), await expiring.start()
    await refused.fault("runs.retrieve", "status", status=401, times=1000)
    third = await refused.start()
    waiting = await second.until_status("requires_action")
    await expiring.force(waiting.runlane.upstream_run_id or "", "expired")
    await second.until(lambda view: view.runlane.parked)
    await second.answer_all()
    await second.result()
    await first.until_status("requires_action")
    await third.until(lambda view: view.runlane.blocked is not None)

    async def counted() -> Samples:
        return await scrape(worker)

    # Visibility hears of a change a moment later, and a worker asks it at most once in 30 s.
    for run, attribute in (
        (first, "RunlaneStatus = 'requires_action'"),
        (second, "RunlaneStatus = 'completed'"),
        (third, "RunlaneBlocked = 'credentials'"),
    ):
        query = f"WorkflowId = '{run.id}' AND {attribute}"
        await eventually(
            partial(plant.client.count_workflows, query), lambda found: found.count > 0
        )
    samples = await eventually(
        counted,
        lambda samples: 0 < samples['runlane_runs_blocked{kind="credentials"}'],
        within=timedelta(seconds=60),
    )

    assert (
        1 <= samples['runlane_upstream_errors_total{kind="server_error",operation="runs.create"}']
    )
    assert (
        1 <= samples['runlane_upstream_errors_total{kind="credentials",operation="runs.retrieve"}']
    )
    seconds = "runlane_upstream_request_duration_seconds"
    assert 3 <= samples[f'{seconds}_count{{operation="runs.create"}}']
    assert 0 < samples[f'{seconds}_sum{{operation="runs.create"}}']
    assert samples[f'{seconds}_count{{operation="runs.retrieve"}}'] < samples["runlane_polls_total"]
    assert 1 == samples["runlane_recreations_total"]
    assert 1 <= samples['runlane_runs{status="requires_action"}']
    assert 1 <= samples['runlane_runs{status="completed"}']
    assert 0 < samples["runlane_oldest_waiting_call_age_seconds"]
    assert 0 == samples["runlane_visibility_errors_total"]
    assert 0 < samples["process_resident_memory_bytes"]
    assert 1 <= total(samples, "temporal_workflow_completed_total")
    assert 1 <= total(samples, "temporal_activity_execution_latency_seconds_count")
    used = total(samples, "temporal_worker_task_slots_used", 'worker_type="ActivityWorker"')
    assert 0 <= used
    for run in (first, second, third):
        assert [] == [sample for sample in samples if run.id in sample]
    await asyncio.gather(first.cancel(), third.cancel())
    names = {sample.split("{")[0] for sample in samples}
    for expression in dashboard_expressions():
        used_by_it = set(re.findall(r"\b(?:runlane|temporal|process)_\w+", expression))
        assert used_by_it, expression
        assert used_by_it <= names, expression
    for path in ("/healthz", "/readyz"):
        healthy = await eventually(partial(get, worker, path), _is_ready)
        assert {"status": "ok"} == healthy.json()
    assert 404 == (await get(worker, "/")).status_code


@pytest.mark.slow
async def test_ready_only_while_temporal_is_there(
    simulator: SimulatorProcess, tmp_path: Path
) -> None:
    """Alive and ready; alive while Temporal is away; ready again; and not while shutting down."""
    settings = encrypting(tmp_path)
    port, ui_port = lasting_port(), lasting_port()
    async with EmbeddedTemporal(tmp_path, port=port, ui_port=ui_port) as server:
        client = await connect(settings, environ={"TEMPORAL_ADDRESS": server.address})
        plant = Plant(server.address, client, simulator, tmp_path)
        try:
            worker = await plant.worker(**SERVED)
            a_while = timedelta(seconds=60)
            await eventually(lambda: get(worker, "/readyz"), _is_ready, within=a_while)
            await eventually(
                lambda: scrape(worker),
                lambda samples: "runlane_visibility_last_success_timestamp_seconds" in samples,
                within=a_while,
            )

            os.kill(server.pid, signal.SIGKILL)
            await server.wait()
            gone = await eventually(
                lambda: get(worker, "/readyz"),
                lambda answer: f"Temporal at {server.address} doesn't answer" in answer.text,
                within=a_while,
            )
            assert 503 == gone.status_code
            assert "unavailable" == gone.json()["status"]
            await eventually(lambda: get(worker, "/healthz"), _is_ready, within=a_while)
            # What Visibility knew is shown, and how old that is.
            assert 0 < (await scrape(worker))["runlane_visibility_last_success_timestamp_seconds"]
            await server.stop()
            async with EmbeddedTemporal(tmp_path, port=port, ui_port=ui_port):
                await eventually(lambda: get(worker, "/readyz"), _is_ready, within=a_while)
                lab = plant.lab
                # It ends only when this has its answer, and shuts down until then.
                held = await lab.fault("runs.create", "hold_after")
                await lab.start()
                await lab.held(held)
                worker.terminate()
                ending = await eventually(
                    lambda: get(worker, "/readyz"),
                    lambda answer: "the worker is shutting down" in answer.text,
                )
                assert 503 == ending.status_code
                await lab.release(held)
                assert 0 == await worker.wait()
        finally:
            await plant.dispose()


def lasting_port() -> int:
    """Return a free port that no other process's connection gets while its server is away.

    The system gives those from 32,768 on.
    """
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _is_ready(answer: httpx.Response) -> bool:
    return answer.status_code == 200


async def test_an_address_that_is_taken(plant: Plant) -> None:
    """The error names the variable, the address and the reason."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker"),
            cwd=ROOT,
            env=os.environ | plant._environ | {"RUNLANE_METRICS_ADDRESS": f"127.0.0.1:{port}"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), 60)

    assert 2 == process.returncode
    assert f"Error: RUNLANE_METRICS_ADDRESS: can't listen on 127.0.0.1:{port}: Address" in str(said)
