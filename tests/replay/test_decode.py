"""What the histories of each release hold is read by the current code, payload by payload."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory

from activities.batch_contract import (
    CheckInput,
    LaneDone,
    LaneInput,
    Looked,
    LookInput,
    PauseOrder,
    RecordInput,
)
from activities.contract import (
    CancelInput,
    Created,
    CreateInput,
    Observed,
    RetrieveInput,
    SubmitInput,
    Submitted,
    UpdateInput,
)
from activities.decision import Decision, DecisionReceipt
from activities.decisions import LapseInput, Verified, VerifyInput
from activities.notify import Notice
from activities.schedule import MadeThread
from activities.scheduled_batch_contract import BeginBatchInput, BegunBatch
from activities.tools import Called, CallInput, Classified, ClassifyInput
from runlane.temporal import data_converter
from tests.replay import record
from workflows.batch_contract import BatchInput, BatchResult, CancelOrder
from workflows.contract import (
    PENDING_MEMO,
    REQUEST_MEMO,
    Acknowledged,
    CancelRequest,
    MetadataUpdate,
    PendingCall,
    Receipts,
    RequestMemo,
    RunView,
    ToolOutputs,
)
from workflows.notice import LeftNotices
from workflows.scheduled_contract import (
    ScheduledBatchInput,
    ScheduledBatchResult,
    ScheduledInput,
    ScheduledResult,
)
from workflows.state import RunInput

HISTORIES = sorted((Path(__file__).parent / "histories").rglob("*.json"))
ACTIVITIES: dict[str, tuple[Any, Any]] = {
    "runs.create": (CreateInput, Created),
    "runs.retrieve": (RetrieveInput, Observed),
    "runs.submit_tool_outputs": (SubmitInput, Submitted),
    "runs.cancel": (CancelInput, Observed),
    "runs.update": (UpdateInput, Observed),
    "tools.classify": (ClassifyInput, Classified),
    "tools.call": (CallInput, Called),
    "decisions.verify": (VerifyInput, Verified),
    "decisions.lapse": (LapseInput, NoneType),
    "notify.send": (Notice, NoneType),
    "batch.check": (CheckInput, NoneType),
    "batch.look": (LookInput, Looked),
    "batch.lane": (LaneInput, LaneDone),
    "batch.record": (RecordInput, NoneType),
    "schedule.thread": (None, MadeThread),
    "schedule.batch": (BeginBatchInput, BegunBatch),
}
MESSAGES: dict[str, tuple[Any, Any]] = {
    "tool_outputs": (ToolOutputs, None),
    "submit_tool_outputs": (ToolOutputs, Receipts),
    "cancel": (CancelRequest, Acknowledged),
    "update_metadata": (MetadataUpdate, Acknowledged),
    "decide": (Decision, DecisionReceipt),
}
OF_BATCHES: dict[str, Any] = {"pause": PauseOrder, "cancel": CancelOrder}
"""Signals, some of which have a name that one of a run's messages has, too."""
WORKFLOWS: dict[str, tuple[Any, Any]] = {
    "Run": (RunInput, RunView),
    "Notices": (LeftNotices, NoneType),
    "Batch": (BatchInput, BatchResult),
    "Scheduled": (ScheduledInput, ScheduledResult),
    "ScheduledBatch": (ScheduledBatchInput, ScheduledBatchResult),
}
MEMO: dict[str, Any] = {REQUEST_MEMO: RequestMemo, PENDING_MEMO: list[PendingCall]}

Found = Iterator[tuple[str, Payload, Any]]


def load(path: Path) -> list[HistoryEvent]:
    """Return a saved history's events."""
    return list(WorkflowHistory.from_json(path.stem, path.read_text(encoding="utf-8")).events)


def payloads(events: list[HistoryEvent]) -> Found:
    """Yield what a history holds of ours: where it stands, the payload, what it must become."""
    activities: dict[int, str] = {}
    updates: dict[str, str] = {}
    began = events[0].workflow_execution_started_event_attributes
    given, result = WORKFLOWS[began.workflow_type.name]
    for event in events:
        kind = EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")
        attributes = getattr(event, event.WhichOneof("attributes") or "")
        if kind in ("WORKFLOW_EXECUTION_STARTED", "WORKFLOW_EXECUTION_CONTINUED_AS_NEW"):
            yield kind, attributes.input.payloads[0], given
        elif kind == "WORKFLOW_EXECUTION_COMPLETED":
            yield kind, attributes.result.payloads[0], result
        elif kind == "START_CHILD_WORKFLOW_EXECUTION_INITIATED":
            name = attributes.workflow_type.name
            yield name, attributes.input.payloads[0], WORKFLOWS[name][0]
        elif kind == "ACTIVITY_TASK_SCHEDULED":
            name = activities[event.event_id] = attributes.activity_type.name
            for payload in attributes.input.payloads:
                yield name, payload, ACTIVITIES[name][0]
        elif kind == "ACTIVITY_TASK_COMPLETED":
            name = activities[attributes.scheduled_event_id]
            yield f"{name} result", attributes.result.payloads[0], ACTIVITIES[name][1]
        elif kind == "WORKFLOW_EXECUTION_SIGNALED":
            name, is_batchs = attributes.signal_name, began.workflow_type.name == "Batch"
            for payload in attributes.input.payloads:
                told = OF_BATCHES[name] if is_batchs else MESSAGES[name][0]
                yield f"batch {name}" if is_batchs else name, payload, told
        elif kind == "WORKFLOW_EXECUTION_UPDATE_ACCEPTED":
            request = attributes.accepted_request
            name = updates[attributes.protocol_instance_id] = request.input.name
            yield name, request.input.args.payloads[0], MESSAGES[name][0]
        elif kind == "WORKFLOW_EXECUTION_UPDATE_COMPLETED":
            name = updates[attributes.meta.update_id]
            yield f"{name} receipt", attributes.outcome.success.payloads[0], MESSAGES[name][1]
        memo = getattr(attributes, "upserted_memo", None) or getattr(attributes, "memo", None)
        for name, payload in () if memo is None else memo.fields.items():
            yield name, payload, MEMO[name]


async def decoded(events: list[HistoryEvent]) -> Counter[str]:
    """Decode all of it, and return how much of what there was."""
    converter = data_converter()
    counts: Counter[str] = Counter()
    for where, payload, kind in payloads(events):
        await converter.decode([payload], [kind])
        counts[where] += 1
    return counts


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: f"{path.parent.name}/{path.stem}")
async def test_all_that_a_history_holds_is_read(path: Path) -> None:
    """Inputs, states handed on, activities' inputs and results, messages, receipts and memos."""
    counts = await decoded(load(path))

    assert counts["WORKFLOW_EXECUTION_STARTED"] == 1
    assert sum(counts.values()) >= 3


async def test_nothing_of_ours_is_overlooked() -> None:
    """Taken together, the histories hold a payload of nearly every kind, or this tests little."""
    together: Counter[str] = Counter()
    for path in HISTORIES:
        together += await decoded(load(path))

    wanted = {"WORKFLOW_EXECUTION_CONTINUED_AS_NEW", "WORKFLOW_EXECUTION_COMPLETED", *MEMO}
    wanted |= {f"{name}{end}" for name in ACTIVITIES for end in ("", " result")}
    wanted |= {"tool_outputs", "submit_tool_outputs", "submit_tool_outputs receipt", "cancel"}
    wanted |= {"decide", "decide receipt", "Notices", *(f"batch {name}" for name in OF_BATCHES)}
    wanted.remove("schedule.thread")
    assert wanted - set(together) <= {"runs.update", "runs.update result"}


async def test_what_cant_be_read_is_found_out() -> None:
    """A state of another shape fails: the tests above can."""
    (path, *_) = [path for path in HISTORIES if path.stem.startswith("early_answers")]
    events = load(path)
    (payload, *_) = [found for where, found, _ in payloads(events) if "CONTINUED" in where]
    payload.data = payload.data.replace(b'"deadline_at":', b'"deadline_at":{},"x":')

    with pytest.raises(ValueError, match="deadline_at"):
        await decoded(events)


def test_the_present_version_has_its_histories() -> None:
    """A release is made with histories of its own: `python -m tests.replay.record`."""
    directory = Path(__file__).parent / "histories" / record.version()
    recorded = {path.stem.rpartition("-")[0] for path in directory.glob("*.json")}

    scenarios = (*record.SCENARIOS, *record.IN_SHORT_HISTORIES)
    assert recorded == {scenario.__name__ for scenario in scenarios}
