"""What Temporal keeps of a run: the events of all its executions, and what lists show."""

from collections import Counter

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

from tests.lab import LabRun
from workflows.contract import PENDING_MEMO, PendingCall


async def chain(client: Client, run: LabRun, first: str | None = None) -> list[list[HistoryEvent]]:
    """Return the histories of all executions of a run, from the first to the present one.

    Args:
        client: Of the run's server.
        run: Ours.
        first: The first execution's id, where the run's handle doesn't know it.
    """
    found: list[list[HistoryEvent]] = []
    execution = first or run.handle.first_execution_run_id
    while execution:
        history = await client.get_workflow_handle(run.id, run_id=execution).fetch_history()
        found.append(list(history.events))
        last = history.events[-1].workflow_execution_continued_as_new_event_attributes
        execution = last.new_execution_run_id
    return found


async def chain_length(client: Client, run: LabRun) -> int:
    """Return how many executions the run has had."""
    return len(await chain(client, run))


def kinds(events: list[HistoryEvent]) -> Counter[str]:
    """Return how often each type of event occurs."""
    return Counter(EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in events)


def activities(events: list[HistoryEvent]) -> list[str]:
    """Return the types of the activities scheduled, in order."""
    return [
        event.activity_task_scheduled_event_attributes.activity_type.name
        for event in events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    ]


async def history(run: LabRun) -> list[HistoryEvent]:
    """Return the events of the present execution."""
    return list((await run.handle.fetch_history()).events)


def undisturbed(events: list[HistoryEvent]) -> list[HistoryEvent]:
    """Return the events without the workflow tasks that timed out.

    A worker that has no time for some seconds loses a task that only it was offered. Three events
    tell of it, and none is the run's doing: what a path costs is what is left.
    """
    lost: set[int] = set()
    for event in events:
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT:
            task = event.workflow_task_timed_out_event_attributes
            lost |= {event.event_id, task.scheduled_event_id, task.started_event_id}
    return [event for event in events if event.event_id not in lost]


async def pending_memo(run: LabRun) -> list[PendingCall]:
    """Return the pending calls as lists show them."""
    described = await run.handle.describe()
    found: list[PendingCall] = await described.memo_value(
        PENDING_MEMO, [], type_hint=list[PendingCall]
    )
    return found


async def attribute(run: LabRun, name: str) -> str | None:
    """Return a keyword search attribute."""
    described = await run.handle.describe()
    for pair in described.typed_search_attributes:
        if pair.key.name == name:
            return str(pair.value)
    return None
