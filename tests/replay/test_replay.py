"""Saved histories still replay, so a deploy strands no living run; and the sandbox stays strict."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, WorkflowRunner
from temporalio.worker.workflow_sandbox import (
    SandboxedWorkflowRunner,
    SandboxRestrictions,
)
from temporalio.workflow import NondeterminismError, SandboxImportNotificationPolicy

from runlane.temporal import data_converter
from worker import WORKFLOWS

HISTORIES = sorted((Path(__file__).parent / "histories").rglob("*.json"))
FIRSTS = [path for path in HISTORIES if '"continuedExecutionRunId"' not in path.read_text("utf-8")]
"""The last execution of a chain may have nothing to do but end."""
_SCENARIOS = (
    "one_tool_round",
    "expiry_and_recreation",
    "cancel_during_a_leg",
    "early_answers_over_continue_as_new",
    "parked_until_its_deadline",
    "blocked_and_mended",
    "tools_that_need_nobody",
    "quorum_after_an_escalation",
    "uncertain_call_settled",
    "approved_while_parked",
    "notices_and_what_is_left_of_them",
    "batch_of_plain_items",
    "batch_paused_and_resumed",
    "batch_cancelled",
    "batch_with_a_promoted_item",
    "promoted_run",
    "batch_over_http",
    "streamed_run",
    "scheduled_start",
    "scheduled_batch",
    "batch_over_continue_as_new",
)
_STRICT = SandboxedWorkflowRunner(
    restrictions=SandboxRestrictions.default.with_import_notification_policy(
        SandboxImportNotificationPolicy.RAISE_ON_UNINTENTIONAL_PASSTHROUGH
    )
)


def _replayer(runner: WorkflowRunner | None = None) -> Replayer:
    # No payload store: a saved history holds all it needs.
    return Replayer(
        workflows=WORKFLOWS,
        data_converter=data_converter(),
        workflow_runner=runner or SandboxedWorkflowRunner(),
    )


def _load(path: Path) -> WorkflowHistory:
    history = WorkflowHistory.from_json("unnamed", path.read_text(encoding="utf-8"))
    # A run's own id decides which decisions are meant for it.
    began = history.events[0].workflow_execution_started_event_attributes
    return WorkflowHistory(began.workflow_id, history.events)


async def _no_histories() -> AsyncIterator[WorkflowHistory]:
    nothing: tuple[WorkflowHistory, ...] = ()
    for history in nothing:
        yield history


async def test_every_workflow_loads_in_a_strict_sandbox() -> None:
    """No workflow module drags an unvetted module into the sandbox."""
    async with _replayer(_STRICT).workflow_replay_iterator(_no_histories()) as results:
        assert [] == [result async for result in results]


def test_each_scenario_has_a_history() -> None:
    """No scenario is replayed by nothing."""
    names = {path.stem.rpartition("-")[0] for path in HISTORIES}

    assert names >= set(_SCENARIOS)


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: f"{path.parent.name}/{path.stem}")
async def test_a_saved_history_replays(path: Path) -> None:
    """Today's workflow does what this version's did, event by event."""
    await _replayer(_STRICT).replay_workflow(_load(path))


@pytest.mark.parametrize("path", FIRSTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
async def test_a_history_with_an_event_changed_does_not_replay(path: Path) -> None:
    """Whichever kind of activity was another one: the test above can fail."""
    history = _load(path)
    firsts: dict[str, HistoryEvent] = {}
    for event in history.events:
        if event.HasField("activity_task_scheduled_event_attributes"):
            kind = event.activity_task_scheduled_event_attributes.activity_type.name
            firsts.setdefault(kind, event)
    assert firsts
    for kind, event in firsts.items():
        scheduled = event.activity_task_scheduled_event_attributes
        scheduled.activity_type.name = "runs.another"
        with pytest.raises(NondeterminismError):
            await _replayer().replay_workflow(history)
        scheduled.activity_type.name = kind
