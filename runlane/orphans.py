"""Upstream runs that nobody drives any more: their run was ended in Temporal, past Runlane.

Terminated, timed out or failed by a bug, a workflow tells nobody upstream. What it left is found
by the stamp, on the upstream and the thread on which the run lived.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from temporalio.client import Client, WorkflowExecutionDescription
from temporalio.service import RPCError, RPCStatusCode

from activities.contract import RUN_ID_STAMP, Created
from activities.stamps import is_older, only_older_follow
from runlane import search_attributes
from runlane.errors import CannotDecrypt
from runlane.listing import ended_in_temporal_condition
from runlane.payload_store import PayloadStoreError
from runlane.visibility import ENDED_IN_TEMPORAL, created_at
from runsapi import (
    TERMINAL,
    APIStatusError,
    Assistants,
    CursorPage,
    Run,
    cancel_refused_status,
)
from workflows.contract import UpstreamView
from workflows.state import RunInput

SLACK_SECONDS = 300.0
"""Between an upstream's clock and Temporal's, and for a create that was on its way at the end. An
upstream run with our stamp from outside a run's life belongs to another namespace's run: the same
idempotency key makes the same run id there."""

_MAX_PAGES = 50
_CREATE = "runs.create"


@dataclass(frozen=True)
class Abandoned:
    """A run that was ended in Temporal."""

    run_id: str
    execution: str
    """The execution that was ended; another one since then lives, or ended otherwise."""
    how: str
    """`terminated`, `timed out`, `failed`."""
    created_at: float
    closed_at: float
    """Both in Unix seconds."""
    thread_id: str
    upstream: UpstreamView | None
    """Where it lived; none where no create was recorded, or it can't be read."""


async def ended(client: Client, limit: int | None = None) -> AsyncIterator[Abandoned]:
    """Yield the runs that Temporal ended and that have no later execution.

    Args:
        client: connected to their namespace.
        limit: at most so many closed executions are looked at.

    Raises:
        RPCError: Temporal can't be asked.
    """
    async for row in client.list_workflows(ended_in_temporal_condition(), limit=limit):
        description = await _still_ended(client, row.id, row.run_id)
        if description is None or description.close_time is None or description.status is None:
            continue
        thread_id = description.typed_search_attributes.get(search_attributes.THREAD)
        if not thread_id:
            # Somebody else's workflow by the name of ours.
            continue
        yield Abandoned(
            run_id=row.id,
            execution=row.run_id,
            how=ENDED_IN_TEMPORAL[description.status],
            created_at=created_at(description),
            closed_at=description.close_time.timestamp(),
            thread_id=thread_id,
            upstream=await _lived_on(client, description),
        )


async def alive(upstream: Assistants, abandoned: Abandoned) -> list[Run]:
    """Return the upstream runs of an ended run that haven't ended.

    Args:
        upstream: where it lived.
        abandoned: the run.

    Raises:
        RunsAPIError: the upstream can't be asked.
    """
    found: list[Run] = []
    oldest = abandoned.created_at - SLACK_SECONDS
    newest = abandoned.closed_at + SLACK_SECONDS
    try:
        page: CursorPage[Run] = await upstream.runs.list(
            abandoned.thread_id, limit=100, order="desc"
        )
        for _ in range(_MAX_PAGES):
            for run in page.data:
                in_its_life = not is_older(run, oldest) and run.created_at <= newest
                if in_its_life and _is_ours(run, abandoned):
                    found.append(run)
            if not page.has_next_page() or only_older_follow(page.data, oldest):
                break
            page = await page.get_next_page()
    except APIStatusError as error:
        if error.status_code != 404:
            raise
    return found


async def cancel(client: Client, upstream: Assistants, abandoned: Abandoned, run: Run) -> str:
    """Cancel an upstream run that nobody drives; return its status, or why it was left.

    Whether it is still nobody's is asked right before: a Reset may have given it a new driver.

    Raises:
        RPCError: Temporal can't be asked, and nothing was done.
        RunsAPIError: the upstream can't be asked, or its answer was lost.
    """
    seen: Run = await upstream.runs.retrieve(run.id, thread_id=abandoned.thread_id)
    if not _is_ours(seen, abandoned):
        return str(seen.status)
    if await _still_ended(client, abandoned.run_id, abandoned.execution) is None:
        return "left alone: the run lives again"
    try:
        cancelled: Run = await upstream.runs.cancel(run.id, thread_id=abandoned.thread_id)
    except APIStatusError as error:
        if cancel_refused_status(error) is None:
            raise
        cancelled = await upstream.runs.retrieve(run.id, thread_id=abandoned.thread_id)
    return str(cancelled.status)


def _is_ours(run: Run, abandoned: Abandoned) -> bool:
    stamped = (run.metadata or {}).get(RUN_ID_STAMP) == abandoned.run_id
    return stamped and run.status not in TERMINAL


async def _still_ended(
    client: Client, run_id: str, execution: str
) -> WorkflowExecutionDescription | None:
    """Return the run's present execution, if it is this one and Temporal ended it."""
    try:
        description = await client.get_workflow_handle(run_id).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise
    # After a Reset the id has another execution, which drives the upstream run.
    if description.run_id != execution or description.status not in ENDED_IN_TEMPORAL:
        return None
    return description


async def _lived_on(
    client: Client, description: WorkflowExecutionDescription
) -> UpstreamView | None:
    """Read from the history on which upstream the run lived; no worker is needed."""
    handle = client.get_workflow_handle(description.id, run_id=description.run_id)
    converter = description.data_converter
    creates: set[int] = set()
    try:
        async for event in handle.fetch_history_events():
            if event.HasField("workflow_execution_started_event_attributes"):
                started = event.workflow_execution_started_event_attributes
                if not started.input.payloads:
                    return None
                (given,) = await converter.decode(started.input.payloads, [RunInput])
                if given.state is not None and given.state.upstream is not None:
                    return UpstreamView.model_validate(given.state.upstream.model_dump())
            elif event.HasField("activity_task_scheduled_event_attributes"):
                scheduled = event.activity_task_scheduled_event_attributes
                if scheduled.activity_type.name == _CREATE:
                    creates.add(event.event_id)
            elif event.HasField("activity_task_completed_event_attributes"):
                completed = event.activity_task_completed_event_attributes
                if completed.scheduled_event_id in creates:
                    (created,) = await converter.decode(completed.result.payloads, [Created])
                    return UpstreamView(name=created.upstream.name, url=created.upstream.url)
    except (PayloadStoreError, CannotDecrypt, ValueError, RuntimeError):
        # Whoever may start workflows may start one called `Run`; the stamp alone tells then.
        return None
    return None
