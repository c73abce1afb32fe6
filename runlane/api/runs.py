"""The seed's routes of runs."""

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query
from fastapi.responses import JSONResponse, Response

from activities.contract import canonical_json
from runlane.api import creating, presenting, refusals, streams
from runlane.api.access import Operator, Principal, Reader
from runlane.api.bodies import (
    RunCreate,
    RunPage,
    RunUpdate,
    StepPage,
    ThreadRunCreate,
    ToolOutputsSubmit,
)
from runlane.api.documenting import OR_STREAM
from runlane.api.ids import RunId, StepId, ThreadId
from runlane.api.known_tools import Known, KnownTools
from runlane.api.owned import find_run
from runlane.api.services import Given, Services
from runlane.api.submitting import submit
from runlane.api.threads import create_thread
from runlane.errors import RunEnded, RunNotFound, StepNotFound
from runsapi import TERMINAL, Run, RunStatus, RunStep
from workflows.contract import RunView, content_digest

routes = APIRouter(prefix="/v1/threads", tags=["runs"])

Includes = Annotated[
    list[str] | None, Query(alias="include[]", description="`runlane` adds the key `runlane`.")
]
IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=255, description="The same key names the same run."),
]
LastEventId = Annotated[str | None, Header(max_length=255)]
RetryCount = Annotated[int, Header(alias="x-stainless-retry-count", include_in_schema=False)]
Order = Annotated[Literal["asc", "desc"], Query(description="By creation.")]
Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=255)]


@routes.post("/runs", response_model=Run, responses=OR_STREAM, operation_id="createThreadAndRun")
async def create_thread_and_run(
    *,
    body: ThreadRunCreate,
    asking: Operator,
    services: Given,
    tools: Known,
    include: Includes = None,
    idempotency_key: IdempotencyKey = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Create a thread upstream, and a run on it."""
    asked = await _wanted(body, include, services, tools, key=idempotency_key)
    thread = body.new_thread()
    # A key with another thread is another request.
    asked = replace(asked, new_thread=content_digest(canonical_json(thread)))
    # The first request of this key has made the thread.
    thread_id = await creating.thread_of(services, asking, idempotency_key)
    if thread_id is None:
        # What can't be asked for leaves no thread behind.
        asked.check()
        thread_id = await create_thread(services, thread)
    try:
        view = await creating.begin(services, asking, thread_id, asked)
    except refusals.Refusal:
        # Where both were under way at once, the other request may have made the run.
        others = await creating.thread_of(services, asking, idempotency_key)
        if others is None or others == thread_id:
            raise
        view = await creating.begin(services, asking, others, asked)
    return _created(services, view, asking, asked, last_event_id)


@routes.post("/{thread_id}/runs", response_model=Run, responses=OR_STREAM, operation_id="createRun")
async def create_run(
    *,
    thread_id: ThreadId,
    body: RunCreate,
    asking: Operator,
    services: Given,
    tools: Known,
    include: Includes = None,
    idempotency_key: IdempotencyKey = None,
    last_event_id: LastEventId = None,
    retries: RetryCount = 0,
) -> Response:
    """Create a run. Once this is answered, no crash loses it."""
    asked = await _wanted(body, include, services, tools, key=idempotency_key, is_retry=retries > 0)
    view = await creating.begin(services, asking, thread_id, asked)
    return _created(services, view, asking, asked, last_event_id)


@routes.get("/{thread_id}/runs", response_model=RunPage, operation_id="listRuns")
async def list_runs(
    *,
    thread_id: ThreadId,
    asking: Reader,
    services: Given,
    include: Includes = None,
    limit: Limit = 20,
    order: Order = "desc",
    after: Cursor = None,
    before: Cursor = None,
) -> Response:
    """List a thread's runs by creation. The arguments of calls that wait are shortened."""
    page = await services.runlane.runs.list(
        thread_id, limit=limit, order=order, after=after, before=before, owner=asking.scope
    )
    with_runlane = presenting.INCLUDE in (include or ())
    data = [presenting.shown(view, include_runlane=with_runlane) for view in page.views]
    return JSONResponse(
        {
            "object": "list",
            "data": data,
            "first_id": page.first_id,
            "last_id": page.last_id,
            "has_more": page.has_more,
        }
    )


@routes.get("/{thread_id}/runs/{run_id}", response_model=Run, operation_id="getRun")
async def retrieve_run(
    thread_id: ThreadId, run_id: RunId, asking: Reader, services: Given, include: Includes = None
) -> Response:
    """Return a run; the header `openai-poll-after-ms` says when to look again."""
    return _answer(await find_run(services, asking, thread_id, run_id), include)


@routes.post("/{thread_id}/runs/{run_id}", response_model=Run, operation_id="modifyRun")
async def update_run(
    *,
    thread_id: ThreadId,
    run_id: RunId,
    body: RunUpdate,
    asking: Operator,
    services: Given,
    include: Includes = None,
) -> Response:
    """Replace a run's metadata."""
    view = await find_run(services, asking, thread_id, run_id)
    if "metadata" in body.model_fields_set:
        try:
            await services.runlane.runs.update(run_id, metadata=body.metadata)
        except RunEnded as error:
            raise refusals.Refusal(error.message, param="metadata", code=error.code) from None
        except RunNotFound:
            # It was an item of a batch, and has ended.
            text = f"{run_id} is {view.run.status}; its metadata stays as it is."
            raise refusals.Refusal(text, param="metadata", code=RunEnded.code) from None
        view = await find_run(services, asking, thread_id, run_id)
    return _answer(view, include)


@routes.post("/{thread_id}/runs/{run_id}/cancel", response_model=Run, operation_id="cancelRun")
async def cancel_run(
    thread_id: ThreadId, run_id: RunId, asking: Operator, services: Given, include: Includes = None
) -> Response:
    """Ask for a run's cancellation; its status tells how it ended."""
    view = await find_run(services, asking, thread_id, run_id)
    if view.run.status in TERMINAL or view.run.status == RunStatus.CANCELLING:
        raise refusals.not_cancellable(str(view.run.status))
    await services.runlane.runs.cancel(run_id)
    return _answer(await find_run(services, asking, thread_id, run_id), include)


@routes.post(
    "/{thread_id}/runs/{run_id}/submit_tool_outputs",
    response_model=Run,
    responses=OR_STREAM,
    operation_id="submitToolOutputsToRun",
)
async def submit_tool_outputs(
    *,
    thread_id: ThreadId,
    run_id: RunId,
    body: ToolOutputsSubmit,
    asking: Operator,
    services: Given,
    include: Includes = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Deliver all outputs that the run asks its caller for. Sent again, it changes nothing."""
    view = await find_run(services, asking, thread_id, run_id)
    outputs = [each.model_dump(include={"tool_call_id", "output"}) for each in body.tool_outputs]
    answered = await submit(services, asking, view, outputs)
    if body.stream:
        calls = [each["tool_call_id"] for each in outputs]
        return streams.stream(services, view, asking, after=last_event_id, answering=calls)
    if answered is None or presenting.INCLUDE in (include or ()):
        answered = await find_run(services, asking, thread_id, run_id)
    return _answer(answered, include)


@routes.get(
    "/{thread_id}/runs/{run_id}/steps", response_model=StepPage, operation_id="listRunSteps"
)
async def list_steps(
    *,
    thread_id: ThreadId,
    run_id: RunId,
    asking: Reader,
    services: Given,
    limit: Limit = 20,
    order: Order = "desc",
    after: Cursor = None,
    before: Cursor = None,
) -> Response:
    """List a run's steps, those of all its upstream runs."""
    view = await find_run(services, asking, thread_id, run_id)
    try:
        page = await services.runlane.runs.steps.list(
            run_id, limit=limit, order=order, after=after, before=before, view=view
        )
    except StepNotFound:
        raise refusals.not_found("step", after or before or "") from None
    return JSONResponse(
        {
            "object": "list",
            "data": [step.model_dump(mode="json") for step in page.data],
            "first_id": page.first_id,
            "last_id": page.last_id,
            "has_more": page.has_more,
        }
    )


@routes.get(
    "/{thread_id}/runs/{run_id}/steps/{step_id}",
    response_model=RunStep,
    operation_id="getRunStep",
)
async def retrieve_step(
    thread_id: ThreadId, run_id: RunId, step_id: StepId, asking: Reader, services: Given
) -> Response:
    """Return a step of a run."""
    view = await find_run(services, asking, thread_id, run_id)
    try:
        step = await services.runlane.runs.steps.retrieve(step_id, run_id=run_id, view=view)
    except StepNotFound:
        raise refusals.not_found("step", step_id) from None
    return JSONResponse(step.model_dump(mode="json"))


async def _wanted(
    body: RunCreate,
    include: list[str] | None,
    services: Services,
    tools: KnownTools,
    *,
    key: str | None,
    is_retry: bool = False,
) -> creating.Wanted:
    with_tools = body.runlane is not None and body.runlane.with_tools
    known = await tools.registry(services.runlane.settings) if with_tools else None
    return creating.wanted(body, include, tools=known, key=key, is_retry=is_retry)


def _created(
    services: Services,
    view: RunView,
    asking: Principal,
    asked: creating.Wanted,
    last_event_id: str | None,
) -> Response:
    if asked.stream:
        return streams.stream(services, view, asking, after=last_event_id)
    return _answer(view, [presenting.INCLUDE] if asked.with_runlane else None)


def _answer(view: RunView, include: list[str] | None) -> Response:
    document = presenting.shown(view, include_runlane=presenting.INCLUDE in (include or ()))
    return JSONResponse(document, headers=presenting.headers(view))
