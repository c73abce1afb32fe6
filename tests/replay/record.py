"""Record histories for the replay test: `python -m tests.replay.record`, from the root.

With names of scenarios, only those are recorded.

Each scenario is driven on the embedded server over real HTTP, and its executions' histories are
written to `histories/<version>/<scenario>-<number>.json`. A file stays as it is for as long as runs
of its version may be alive; a new version of the workflow adds a directory.
"""

import asyncio
import functools
import sys
import tempfile
import tomllib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHistory

from runlane.embedded import EmbeddedTemporal
from runlane.settings import Settings
from runlane.temporal import connect
from tests.histories import chain
from tests.lab import Lab, LabRun
from tests.replay import batch_scenarios, tool_scenarios
from tests.simulator_process import SimulatorProcess
from workflows.run import RunWorkflow

ROOT = Path(__file__).resolve().parents[2]
HISTORIES = Path(__file__).parent / "histories"

_SUGGESTED_AT = 30
"""Events from which on the second server suggests to continue as new."""
_QUICK: dict[str, Any] = {"queued": 0.05, "in_progress": 0.05}
_ASKS: dict[str, Any] = {**_QUICK, "calls": [{"name": "look_up", "arguments": {"order": 1}}]}

Scenario = Callable[[Lab], Awaitable[LabRun]]


def without_tools(scenario: Scenario) -> Scenario:
    """Serve the scenario's lab by workers that have no tools."""

    @functools.wraps(scenario)
    async def served(lab: Lab) -> LabRun:
        async with lab.worker():
            return await scenario(lab)

    return served


@without_tools
async def one_tool_round(lab: Lab) -> LabRun:
    """Create, wait, answer, submit, wait, complete."""
    await lab.scenario(rounds=[_ASKS, _QUICK])
    run = await lab.start(params={"metadata": {"ticket": "7"}})
    await run.answer_all()
    await run.result()
    return run


@without_tools
async def expiry_and_recreation(lab: Lab) -> LabRun:
    """The upstream run expires with one of two calls answered; another one takes both answers."""
    calls = [{"name": "look_up", "arguments": {"order": 1}}, {"name": "refund"}]
    await lab.scenario(expires_after=1, rounds=[{**_QUICK, "calls": calls}, _QUICK])
    run = await lab.start()
    view = await run.until(lambda view: len(view.runlane.pending) == 2)
    await run.submit((view.runlane.pending[0].tool_call_id, "first"))
    await run.until(lambda view: view.runlane.parked)
    await lab.scenario(rounds=[{**_QUICK, "calls": calls}, _QUICK])
    await run.submit((view.runlane.pending[1].tool_call_id, "second"))
    await run.result()
    return run


@without_tools
async def cancel_during_a_leg(lab: Lab) -> LabRun:
    """A cancel while a poll is attached."""
    await lab.scenario(rounds=[{"queued": 0.1, "ends": "never"}])
    run = await lab.start()
    await run.until(lambda view: view.runlane.attempt == 1)
    await asyncio.sleep(0.5)
    await run.cancel()
    await run.result()
    return run


@without_tools
async def early_answers_over_continue_as_new(lab: Lab) -> LabRun:
    """Five rounds in short histories, with answers that come before they are asked for."""
    await lab.scenario(rounds=[*([_ASKS] * 5), _QUICK])
    run = await lab.start()
    for number in range(5):
        await run.signal((f"call_nobody_asks_for_{number}", "early"))
        await run.answer_all(f"answer {number}")
        await run.until(lambda view: not view.runlane.pending)
    await run.result()
    return run


@without_tools
async def parked_until_its_deadline(lab: Lab) -> LabRun:
    """Nobody answers: the upstream run expires, then ours."""
    await lab.scenario(expires_after=1, rounds=[_ASKS])
    run = await lab.start(deadline=10.0)
    await run.until(lambda view: view.runlane.parked)
    await run.result()
    return run


@without_tools
async def blocked_and_mended(lab: Lab) -> LabRun:
    """The key is refused at the submit, and works again a moment later."""
    await lab.scenario(rounds=[_ASKS, _QUICK])
    await lab.fault("runs.submit_tool_outputs", "unauthorized", times=2)
    run = await lab.start()
    await run.answer_all()
    await run.result()
    return run


SCENARIOS: tuple[Scenario, ...] = (
    one_tool_round,
    expiry_and_recreation,
    cancel_during_a_leg,
    parked_until_its_deadline,
    blocked_and_mended,
    *tool_scenarios.SCENARIOS,
    *batch_scenarios.SCENARIOS,
)
IN_SHORT_HISTORIES: tuple[Scenario, ...] = (
    early_answers_over_continue_as_new,
    *batch_scenarios.IN_SHORT_HISTORIES,
)


def version() -> str:
    """Return the version whose histories these are."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


async def _record(scenarios: tuple[Scenario, ...], config: dict[str, Any], directory: Path) -> None:
    with tempfile.TemporaryDirectory() as data, SimulatorProcess() as simulator:
        async with EmbeddedTemporal(Path(data), extra_dynamic_config=config) as server:
            client = await connect(
                Settings(data_dir=Path(data)), environ={"TEMPORAL_ADDRESS": server.address}
            )
            for scenario in scenarios:
                lab = Lab(client, simulator)
                run = await scenario(lab)
                first = run.handle.first_execution_run_id
                # What others have started has gone over in none of these.
                first = first or (await run.handle.describe()).run_id
                executions = await chain(client, run, first)
                executions += await _left(client, executions[-1])
                for number, events in enumerate(executions, 1):
                    path = directory / f"{scenario.__name__}-{number}.json"
                    history = WorkflowHistory(run.id, events)
                    # Stack traces name where this checkout lies.
                    text = history.to_json().replace(f"{Path.cwd()}/", "")
                    path.write_text(text + "\n", encoding="utf-8")
                    print(path.relative_to(ROOT), len(events), "events")


async def _left(client: Client, last: list[HistoryEvent]) -> list[list[HistoryEvent]]:
    """Return the history of the workflow that sends what the run left, if there is one."""
    for event in last:
        left = event.child_workflow_execution_started_event_attributes.workflow_execution
        if left.workflow_id:
            run = LabRun(client.get_workflow_handle_for(RunWorkflow.run, left.workflow_id))
            return await chain(client, run, left.run_id)
    return []


async def main(names: Sequence[str]) -> None:
    """Record scenarios for the present version: those named, or all."""
    directory = HISTORIES / version()
    directory.mkdir(parents=True, exist_ok=True)
    short = {"limit.historyCount.suggestContinueAsNew": _SUGGESTED_AT}
    for scenarios, config in ((SCENARIOS, {}), (IN_SHORT_HISTORIES, short)):
        chosen = tuple(each for each in scenarios if not names or each.__name__ in names)
        if chosen:
            await _record(chosen, config, directory)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
