"""The seed's routes of runs."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query
from fastapi.responses import JSONResponse, Response

from runlane import requests
from runlane.api import presenting, refusals, streams
from runlane.api.access import Operator, Principal, Reader
from runlane.api.begun import digest
from runlane.api.bodies import (
    RunCreate,
    RunPage,
    RunUpdate,
    StepPage,
    ThreadRunCreate,
    ToolOutputsSubmit,
)
from runlane.api.owned import find_run
from runlane.api.services import Given, Services
from runlane.api.submitting import submit
from runlane.api.threads import create_thread
from runlane.errors import InvalidRequest, KeyReused, RunEnded, RunNotFound, StepNotFound
from runsapi import TERMINAL, Run, RunStatus, RunStep
from workflows.contract import RunView, derive_run_id

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


@routes.post("/runs", response_model=Run, operation_id="createThreadAndRun")
async def create_thread_and_run(
    *,
    body: ThreadRunCreate,
    asking: Operator,
    services: Given,
    include: Includes = None,
    idempotency_key: IdempotencyKey = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Create a thread upstream, and a run on it."""
    params = _params(body, include)
    # The thread's tools have them; a run has none of its own.
    resources = params.pop("tool_resources", None)
    # The first request of this key has made the thread.
    thread_id = await _thread_of(services, asking, idempotency_key)
    if thread_id is None:
        # What can't be asked for leaves no thread behind.
        requests.asked("thread_new", _parts(params)[0])
        thread = {} if resources is None else {"tool_resources": resources}
        thread_id = await create_thread(services, {**thread, **(body.thread or {})})
    try:
        return await _create(
            services, asking, thread_id, params, key=idempotency_key, after=last_event_id
        )
    except refusals.Refusal:
        # Where both were under way at once, the other request may have made the run.
        others = await _thread_of(services, asking, idempotency_key)
        if others is None or others == thread_id:
            raise
    return await _create(services, asking, others, params, key=idempotency_key, after=last_event_id)


@routes.post("/{thread_id}/runs", response_model=Run, operation_id="createRun")
async def create_run(
    *,
    thread_id: str,
    body: RunCreate,
    asking: Operator,
    services: Given,
    include: Includes = None,
    idempotency_key: IdempotencyKey = None,
    last_event_id: LastEventId = None,
    retries: RetryCount = 0,
) -> Response:
    """Create a run. Once this is answered, no crash loses it."""
    return await _create(
        services,
        asking,
        thread_id,
        _params(body, include),
        key=idempotency_key,
        after=last_event_id,
        is_retry=retries > 0,
    )


@routes.get("/{thread_id}/runs", response_model=RunPage, operation_id="listRuns")
async def list_runs(
    *,
    thread_id: str,
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
    thread_id: str, run_id: str, asking: Reader, services: Given, include: Includes = None
) -> Response:
    """Return a run; the header `openai-poll-after-ms` says when to look again."""
    return _answer(await find_run(services, asking, thread_id, run_id), include)


@routes.post("/{thread_id}/runs/{run_id}", response_model=Run, operation_id="modifyRun")
async def update_run(
    *,
    thread_id: str,
    run_id: str,
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
        view = await find_run(services, asking, thread_id, run_id)
    return _answer(view, include)


@routes.post("/{thread_id}/runs/{run_id}/cancel", response_model=Run, operation_id="cancelRun")
async def cancel_run(
    thread_id: str, run_id: str, asking: Operator, services: Given, include: Includes = None
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
    operation_id="submitToolOutputsToRun",
)
async def submit_tool_outputs(
    *,
    thread_id: str,
    run_id: str,
    body: ToolOutputsSubmit,
    asking: Operator,
    services: Given,
    include: Includes = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Deliver all outputs that the run asks its caller for. Sent again, it changes nothing."""
    view = await find_run(services, asking, thread_id, run_id)
    outputs = [each.model_dump(include={"tool_call_id", "output"}) for each in body.tool_outputs]
    await submit(services, asking, view, outputs)
    if body.stream:
        calls = [each["tool_call_id"] for each in outputs]
        return streams.stream(services, view, after=last_event_id, answering=calls)
    return _answer(await find_run(services, asking, thread_id, run_id), include)


@routes.get(
    "/{thread_id}/runs/{run_id}/steps", response_model=StepPage, operation_id="listRunSteps"
)
async def list_steps(
    *,
    thread_id: str,
    run_id: str,
    asking: Reader,
    services: Given,
    limit: Limit = 20,
    order: Order = "desc",
    after: Cursor = None,
    before: Cursor = None,
) -> Response:
    """List a run's steps, those of all its upstream runs."""
    await find_run(services, asking, thread_id, run_id)
    try:
        page = await services.runlane.runs.steps.list(
            run_id, limit=limit, order=order, after=after, before=before
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
    thread_id: str, run_id: str, step_id: str, asking: Reader, services: Given
) -> Response:
    """Return a step of a run."""
    await find_run(services, asking, thread_id, run_id)
    try:
        step = await services.runlane.runs.steps.retrieve(step_id, run_id=run_id)
    except StepNotFound:
        raise refusals.not_found("step", step_id) from None
    return JSONResponse(step.model_dump(mode="json"))


async def _thread_of(services: Services, asking: Principal, key: str | None) -> str | None:
    """Return the thread of the run that a key stands for; None while there is none."""
    if key is None:
        return None
    try:
        return (await services.runlane.runs.view(derive_run_id(asking.person, key))).run.thread_id
    except RunNotFound:
        return None


async def _create(
    services: Services,
    asking: Principal,
    thread_id: str,
    params: Mapping[str, Any],
    *,
    key: str | None,
    after: str | None,
    is_retry: bool = False,
) -> Response:
    wants_stream = bool(params.get("stream"))
    given, with_runlane = _parts(params)
    view = await _begun(services, asking, thread_id, given, key=key, is_retry=is_retry)
    if wants_stream:
        return streams.stream(services, view, after=after)
    return _answer(view, with_runlane)


def _parts(params: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what the run is created with, and of `include` what is Runlane's own."""
    given = {name: value for name, value in params.items() if name != "stream"}
    include = given.pop("include", None) or []
    theirs = [word for word in include if word != presenting.INCLUDE]
    if theirs:
        given["include"] = theirs
    return given, [word for word in include if word == presenting.INCLUDE]


async def _begun(
    services: Services,
    asking: Principal,
    thread_id: str,
    params: Mapping[str, Any],
    *,
    key: str | None,
    is_retry: bool,
) -> RunView:
    """Start the run, unless the thread's last one lives or the key has its run already."""
    client = services.runlane.temporal
    asked = requests.asked(thread_id, params, owner=asking.person, requested_by=asking.person)
    own = None if key is None else derive_run_id(asking.person, key)
    async with services.begun.turn(thread_id):
        living = await services.begun.living(client, thread_id)
        if living is not None and living != own:
            # An SDK sends a request again whose answer it missed, and has no key to say so.
            same = is_retry and own is None
            if same and asked.request.digest() == await digest(client, living, asking.person):
                return await services.runlane.runs.view(living)
            raise refusals.thread_busy(thread_id, living)
        try:
            view = await services.runlane.runs.create_view(
                thread_id,
                params,
                owner=asking.person,
                requested_by=asking.person,
                idempotency_key=key,
            )
        except KeyReused as error:
            text = error.message
            raise refusals.Refusal(text, param="Idempotency-Key", code=error.code) from None
        services.begun.note(thread_id, view.run.id)
    return view


def _params(body: RunCreate, include: list[str] | None) -> dict[str, Any]:
    params = body.model_dump(mode="json", exclude_unset=True, exclude={"thread"})
    if include is not None:
        if "include" in params:
            raise InvalidRequest("include goes into the query.", param="include")
        params["include"] = include
    return params


def _answer(view: RunView, include: list[str] | None) -> Response:
    document = presenting.shown(view, include_runlane=presenting.INCLUDE in (include or ()))
    return JSONResponse(document, headers=presenting.headers(view))
