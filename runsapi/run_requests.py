"""The requests of a thread's runs, each answered with the response's headers besides its data."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Unpack, cast, overload

from runsapi.answers import Response, read
from runsapi.errors import APIResponseError, InvalidParameter
from runsapi.models import TERMINAL, Run, RunStatus
from runsapi.pages import ListObject, RunsPage
from runsapi.params import (
    CreateOptions,
    CreatePollOptions,
    ListOptions,
    PollOptions,
    RequestOptions,
    RunCreateParams,
    RunCreateParamsBase,
    RunCreateParamsStreaming,
    RunListParams,
    RunSubmitToolOutputsParams,
    RunSubmitToolOutputsParamsBase,
    RunUpdateParams,
    ToolOutputs,
    UpdateOptions,
    tool_outputs_list,
)
from runsapi.paths import is_segment, path
from runsapi.polling import next_interval_ms, usable_interval_ms
from runsapi.streaming import EventStream
from runsapi.transport import Transport
from runsapi.wire import Params

P = TypeVar("P", bound=Params)


def split(given: Mapping[str, Any]) -> tuple[dict[str, Any], RequestOptions]:
    """Keywords as the call's fields and its options."""
    options = {name: given[name] for name in RequestOptions.__annotations__ if name in given}
    fields = {name: value for name, value in given.items() if name not in options}
    return fields, cast(RequestOptions, options)


def params_of(kind: type[P], params: P | None, fields: Mapping[str, Any]) -> P:
    """The parameters from a model or from keywords; never a mixture, whose order nobody could tell.

    Raises:
        InvalidParameter: Both were given, or a parameter is wrong.
    """
    if params is None:
        return kind(**fields)
    if fields:
        name = next(iter(fields))
        raise InvalidParameter(
            param=name, message=f"{name} was given besides a model that may hold it"
        )
    return params


def query_of(params: Params, *, include: bool = False) -> list[tuple[str, str]]:
    """The given fields as a query; ``include`` as ``include[]``, once for each of its words."""
    given = params.model_dump(mode="json", exclude_none=True)
    words = given.pop("include", None) or []
    query = [("include[]", word) for word in words]
    return query if include else query + [(name, str(value)) for name, value in given.items()]


class RunsWithResponse:
    """As :class:`runsapi.Runs`, with every answer's headers and status."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @overload
    async def create(
        self,
        thread_id: str,
        params: RunCreateParamsStreaming,
        **fields: Unpack[CreateOptions],
    ) -> Response[EventStream]: ...

    @overload
    async def create(
        self,
        thread_id: str,
        params: RunCreateParams | None = None,
        *,
        stream: Literal[False] | None = None,
        **fields: Unpack[CreateOptions],
    ) -> Response[Run]: ...

    @overload
    async def create(
        self,
        thread_id: str,
        params: RunCreateParams | None = None,
        *,
        stream: Literal[True],
        **fields: Unpack[CreateOptions],
    ) -> Response[EventStream]: ...

    async def create(
        self,
        thread_id: str,
        params: RunCreateParamsBase | None = None,
        *,
        stream: bool | None = None,
        **fields: Unpack[CreateOptions],
    ) -> Response[Any]:
        """Create a run; see :meth:`runsapi.Runs.create`."""
        given, options = split(fields)
        checked: RunCreateParamsBase = params_of(RunCreateParamsBase, params, given)
        return await self._create(thread_id, checked, stream=stream, options=options)

    async def retrieve(
        self, run_id: str, *, thread_id: str, **options: Unpack[RequestOptions]
    ) -> Response[Run]:
        """Retrieve a run."""
        return await self._retrieve(run_id, thread_id, {}, options)

    async def update(
        self,
        run_id: str,
        params: RunUpdateParams | None = None,
        *,
        thread_id: str,
        **fields: Unpack[UpdateOptions],
    ) -> Response[Run]:
        """Change a run's metadata."""
        given, options = split(fields)
        body = params_of(RunUpdateParams, params, given).body()
        target = path("threads", "thread_id", "runs", "run_id", thread_id=thread_id, run_id=run_id)
        return await self._run("POST", target, body=body, options=options)

    async def list(
        self,
        thread_id: str,
        params: RunListParams | None = None,
        **fields: Unpack[ListOptions],
    ) -> Response[RunsPage]:
        """The first page of a thread's runs."""
        given, options = split(fields)
        checked = params_of(RunListParams, params, given)
        target = path("threads", "thread_id", "runs", thread_id=thread_id)
        return await self._page(target, checked, options)

    async def cancel(
        self, run_id: str, *, thread_id: str, **options: Unpack[RequestOptions]
    ) -> Response[Run]:
        """Ask for a run to be cancelled."""
        target = path(
            "threads", "thread_id", "runs", "run_id", "cancel", thread_id=thread_id, run_id=run_id
        )
        return await self._run("POST", target, options=options)

    @overload
    async def submit_tool_outputs(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: ToolOutputs,
        stream: Literal[False] | None = None,
        **options: Unpack[RequestOptions],
    ) -> Response[Run]: ...

    @overload
    async def submit_tool_outputs(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: ToolOutputs,
        stream: Literal[True],
        **options: Unpack[RequestOptions],
    ) -> Response[EventStream]: ...

    async def submit_tool_outputs(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: ToolOutputs,
        stream: bool | None = None,
        **options: Unpack[RequestOptions],
    ) -> Response[Any]:
        """Submit the outputs of a round; see :meth:`runsapi.Runs.submit_tool_outputs`."""
        fields: dict[str, Any] = {"tool_outputs": tool_outputs_list(tool_outputs)}
        if stream is not None:
            fields["stream"] = stream
        checked = RunSubmitToolOutputsParams(**fields)
        if stream:
            answer = await self.open_submit(run_id, thread_id, checked, {}, options)
            return Response(answer, answer.headers, answer.status_code)
        target = _submit_path(run_id, thread_id)
        return await self._run("POST", target, body=checked.body(), options=options)

    async def poll(
        self, run_id: str, *, thread_id: str, **options: Unpack[PollOptions]
    ) -> Response[Run]:
        """Look until the run has ended or wants tools; see :meth:`runsapi.Runs.poll`."""
        given, rest = split(options)
        wished = given.pop("poll_interval_ms", None)
        _refuse_others(given)
        headers = {"X-Stainless-Poll-Helper": "true"}
        if (used := usable_interval_ms(wished)) is not None:
            headers["X-Stainless-Custom-Poll-Interval"] = str(used)
        while True:
            answer = await self._retrieve(run_id, thread_id, headers, rest)
            status = answer.data.status
            if status in TERMINAL or status == RunStatus.REQUIRES_ACTION:
                return answer
            # Unknown words are waited out like known ones: returning would call them an end, and
            # asking again at once would be a hot loop.
            await asyncio.sleep(next_interval_ms(wished, answer.headers) / 1000)

    async def create_and_poll(
        self,
        thread_id: str,
        params: RunCreateParams | None = None,
        **fields: Unpack[CreatePollOptions],
    ) -> Response[Run]:
        """Create a run and poll it."""
        given, options = split(fields)
        wished = given.pop("poll_interval_ms", None)
        checked: RunCreateParamsBase = params_of(RunCreateParamsBase, params, given)
        if checked.stream:
            raise InvalidParameter(param="stream", message="stream must not be true when polling")
        run = (await self._create(thread_id, checked, stream=None, options=options)).data
        return await self.poll(run.id, thread_id=thread_id, poll_interval_ms=wished, **options)

    async def submit_tool_outputs_and_poll(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: ToolOutputs,
        **options: Unpack[PollOptions],
    ) -> Response[Run]:
        """Submit the outputs of a round and poll the run."""
        given, rest = split(options)
        wished = given.pop("poll_interval_ms", None)
        _refuse_others(given)
        run = await self.submit_tool_outputs(
            run_id, thread_id=thread_id, tool_outputs=tool_outputs, **rest
        )
        return await self.poll(run.data.id, thread_id=thread_id, poll_interval_ms=wished, **rest)

    async def open_create(
        self,
        thread_id: str,
        params: RunCreateParamsBase,
        headers: Mapping[str, str],
        options: RequestOptions,
    ) -> EventStream:
        """Create a run and open its stream. ``headers`` are a helper's."""
        response = await self._transport.open(
            path("threads", "thread_id", "runs", thread_id=thread_id),
            query=query_of(params, include=True),
            body={**params.body(), "stream": True},
            headers=headers,
            options=options,
        )
        return EventStream(self._transport, response)

    async def open_submit(
        self,
        run_id: str,
        thread_id: str,
        params: RunSubmitToolOutputsParamsBase,
        headers: Mapping[str, str],
        options: RequestOptions,
    ) -> EventStream:
        """Submit outputs and open the run's stream. ``headers`` are a helper's."""
        response = await self._transport.open(
            _submit_path(run_id, thread_id),
            body={**params.body(), "stream": True},
            headers=headers,
            options=options,
        )
        return EventStream(self._transport, response)

    async def _create(
        self,
        thread_id: str,
        params: RunCreateParamsBase,
        *,
        stream: bool | None,
        options: RequestOptions,
    ) -> Response[Any]:
        body = params.body()
        if stream is not None:
            body["stream"] = stream
        if body.get("stream"):
            answer = await self.open_create(thread_id, params, {}, options)
            return Response(answer, answer.headers, answer.status_code)
        target = path("threads", "thread_id", "runs", thread_id=thread_id)
        query = query_of(params, include=True)
        return await self._run("POST", target, query=query, body=body, options=options)

    async def _retrieve(
        self, run_id: str, thread_id: str, headers: Mapping[str, str], options: RequestOptions
    ) -> Response[Run]:
        target = path("threads", "thread_id", "runs", "run_id", thread_id=thread_id, run_id=run_id)
        return await self._run("GET", target, headers=headers, options=options)

    async def _run(self, method: str, target: str, **request: Any) -> Response[Run]:
        answer = await self._transport.request(method, target, **request)
        url = f"{self._transport.url}{target}"
        run = read(Run, answer, url)
        _check_ids([run.data], url)
        return run

    async def _page(
        self, target: str, params: RunListParams, options: RequestOptions
    ) -> Response[RunsPage]:
        async def fetch(after: str) -> RunsPage:
            following = params.model_copy(update={"after": after})
            return (await self._page(target, following, options)).data

        answer = await self._transport.request(
            "GET", target, query=query_of(params), options=options
        )
        url = f"{self._transport.url}{target}"
        wire = read(ListObject[Run], answer, url)
        _check_ids(wire.data.data, url)
        page = RunsPage(wire.data, cursor=params.after, fetch=fetch)
        return Response(page, wire.headers, wire.status_code)


def _submit_path(run_id: str, thread_id: str) -> str:
    return path(
        "threads",
        "thread_id",
        "runs",
        "run_id",
        "submit_tool_outputs",
        thread_id=thread_id,
        run_id=run_id,
    )


def _check_ids(runs: Sequence[Run], url: str) -> None:
    """Refuse what can't be asked for again without asking for something else."""
    if not all(is_segment(run.id) for run in runs):
        raise APIResponseError(
            f"The answer from {url} holds a run whose id can't stand in a path", url=url
        )


def _refuse_others(fields: Mapping[str, Any]) -> None:
    for name in fields:
        raise InvalidParameter(param=name, message=f"{name} is not an option of this call")
