"""Traces as a collector gets them: one of each run, and no content in any span."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from runlane.embedded import EmbeddedTemporal
from runlane.temporal import connect
from tests.lab import LabRun, eventually
from tests.otlp_receiver import OtlpReceiver, ReceivedSpan
from tests.processes import Plant
from tests.simulator_process import SimulatorProcess
from tests.temporal_server import encrypting
from workflows.contract import RunView
from workflows.run import RunWorkflow

MAX_EVENTS = 40
"""Of a run with one tool round, as without traces."""
ROOT = Path(__file__).parents[2]
SECRETS = ("argument-7f3a", "output-91bc", "instruction-55de", "sk-key-0c1d")
ASKS: dict[str, Any] = {
    "queued": 0.05,
    "in_progress": 0.1,
    "calls": [{"name": "lookup_order", "arguments": {"order_id": SECRETS[0]}}],
}
EACH_RUN_HAS = {
    "StartWorkflow:Run",
    "RunWorkflow:Run",
    "StartActivity:runs.create",
    "RunActivity:runs.create",
    "upstream runs.create",
    "RunActivity:runs.retrieve",
    "upstream runs.retrieve",
    "ValidateUpdate:submit_tool_outputs",
    "HandleUpdate:submit_tool_outputs",
    "RunActivity:runs.submit_tool_outputs",
    "upstream runs.submit_tool_outputs",
    "CompleteWorkflow:Run",
    "Run",
}


@pytest_asyncio.fixture
async def restless(simulator: SimulatorProcess, tmp_path: Path) -> AsyncIterator[Plant]:
    """A plant whose runs continue as new after a few events."""
    settings = encrypting(tmp_path)
    config = {"limit.historyCount.suggestContinueAsNew": 15}
    async with EmbeddedTemporal(tmp_path, extra_dynamic_config=config) as server:
        client = await connect(settings, environ={"TEMPORAL_ADDRESS": server.address})
        plant = Plant(server.address, client, simulator, tmp_path)
        try:
            yield plant
        finally:
            await plant.dispose()


def traced(otlp: OtlpReceiver) -> dict[str, str]:
    """Return the variables that send a process's spans to the collector, soon."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "RUNLANE_UPSTREAM_API_KEY": SECRETS[3],
        # Somebody wants to see headers; those with keys are hidden all the same.
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST": ".*",
    }


async def command(plant: Plant, *words: str, **environ: str) -> str:
    """Call `runlane`, and return what it said."""
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("runlane")), *words),
        env={"PATH": os.environ["PATH"]} | plant._environ | environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert 0 == process.returncode, said
    return said.decode()


@pytest.mark.slow
async def test_one_trace_a_run(restless: Plant, otlp: OtlpReceiver, tmp_path: Path) -> None:
    """From the client's create to the end, over a killed worker and continue-as-news.

    Every span of it says which run it is about; none holds an argument, an output, an instruction
    or the key.
    """
    lab = restless.lab
    await lab.scenario(rounds=[ASKS, ASKS, {"queued": 0.05, "in_progress": 0.05}])
    first = await restless.worker(**traced(otlp))
    body = tmp_path / "run.json"
    body.write_text(json.dumps({"assistant_id": lab.assistant_id, "instructions": SECRETS[2]}))
    words = ("--thread", lab.thread_id, "--params", str(body))
    said = await command(restless, "create", *words, **traced(otlp))
    run_id = said.split()[0]
    run = LabRun(restless.client.get_workflow_handle_for(RunWorkflow.run, run_id))
    await run.until_status("requires_action")
    await eventually(lambda: _names(otlp, run_id), lambda names: "upstream runs.create" in names)
    await first.kill()
    second = await restless.worker(**traced(otlp))
    first_call = _pending(await run.until(lambda view: bool(_pending(view)), seconds=60))
    await run.submit(*((call_id, SECRETS[1]) for call_id in first_call))
    second_call = _pending(await run.until(lambda view: bool(_pending(view) - first_call)))
    await run.submit(*((call_id, SECRETS[1]) for call_id in second_call - first_call))
    result = await run.result()
    second.terminate()
    assert 0 == await second.wait()

    assert "completed" == result.run.status
    description = await run.handle.describe()
    assert description.run_id != description.raw_description.workflow_execution_info.first_run_id
    await eventually(lambda: _names(otlp, run_id), EACH_RUN_HAS.issubset)
    spans = [span for span in otlp.of_run(run_id) if "WorkflowUpdate:" not in span.name]
    assert 1 == len({span.trace_id for span in spans}), [(s.name, s.trace_id) for s in spans]
    _is_a_tree(spans)
    (whole,) = [span for span in spans if span.name == "Run"]
    assert "completed" == whole.attributes["runlane.status"]
    assert 0.2 < whole.seconds
    (create,) = [span for span in spans if span.name == "RunActivity:runs.create"]
    assert 1 == create.attributes["runlane.attempt"]
    assert lab.thread_id == create.attributes["runlane.thread_id"]
    assert lab.simulator.url == create.attributes["runlane.upstream"]
    assert {"runlane"} == {span.service for span in otlp.spans}
    for span in otlp.spans:
        assert [] == [secret for secret in SECRETS if secret in span.raw], span.raw


def _pending(view: RunView) -> set[str]:
    return {call.tool_call_id for call in view.runlane.pending}


async def _names(otlp: OtlpReceiver, run_id: str) -> set[str]:
    return {span.name for span in otlp.of_run(run_id)}


def _is_a_tree(spans: list[ReceivedSpan]) -> None:
    """Hold that one span is the root, and that the parents of all others are there."""
    ids = {span.span_id for span in spans}
    (root,) = [span for span in spans if span.parent_id not in ids]

    assert "StartWorkflow:Run" == root.name
    assert "" == root.parent_id


@pytest.mark.slow
async def test_a_collector_that_is_down(plant: Plant) -> None:
    """Runs go on, with no event more; a worker and a command end; the log says it once."""
    lab = plant.lab
    await lab.scenario(rounds=[ASKS, {"queued": 0.05, "in_progress": 0.05}])
    nobody = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    worker = await plant.worker(**nobody)
    words = ("--thread", lab.thread_id, "--assistant", lab.assistant_id)

    said = await command(plant, "create", *words, **nobody)
    run = LabRun(plant.client.get_workflow_handle_for(RunWorkflow.run, said.split()[0]))
    await run.answer_all()
    assert "completed" == (await run.result()).run.status
    assert len(await run.events()) <= MAX_EVENTS

    async def complaints() -> int:
        return worker.log.read_text().count("span")

    await eventually(complaints, bool, within=timedelta(seconds=30))
    worker.terminate()
    assert 0 == await worker.wait()
    assert 1 == await complaints(), worker.log.read_text()


OWN_PROVIDER = """
import asyncio, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from runlane import Runlane

async def main():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    runlane = await Runlane.connect()
    with trace.get_tracer("mine").start_as_current_span("mine") as mine:
        await runlane.runs.create(sys.argv[1], assistant_id=sys.argv[2])
    (create,) = [s for s in exporter.get_finished_spans() if s.name == "StartWorkflow:Run"]
    assert create.context.trace_id == mine.get_span_context().trace_id
    assert create.parent.span_id == mine.get_span_context().span_id

asyncio.run(main())
"""


async def test_a_program_with_traces_of_its_own(plant: Plant) -> None:
    """Its tracer provider gets the client's span, as a child of the span that it is in."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OWN_PROVIDER, plant.lab.thread_id, plant.lab.assistant_id),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "otlp"} | plant._environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)

    assert 0 == process.returncode, said.decode()


async def test_the_extra_is_missing(plant: Plant, tmp_path: Path) -> None:
    """The error names the variable that asks for traces, the extra, and how to do without."""
    missing = tmp_path / "opentelemetry"
    missing.mkdir()
    (missing / "__init__.py").write_text("raise ModuleNotFoundError('No module')\n")
    environ = plant._environ | {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(tmp_path),
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker"),
        cwd=ROOT,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)

    assert 2 == process.returncode
    assert said.startswith(b"Error: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "), said
    assert b"runlane[otel]" in said
    assert b"OTEL_SDK_DISABLED=true" in said
