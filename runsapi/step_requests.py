"""The steps of a run."""

from typing import Unpack

from runsapi.answers import Response, read
from runsapi.pages import ListObject, PageRequest, RunStepsPage
from runsapi.params import (
    RequestOptions,
    RunStepInclude,
    StepListOptions,
    StepListParams,
    StepRetrieveParams,
)
from runsapi.paths import path
from runsapi.run_requests import params_of, query_of, split
from runsapi.steps import RunStep
from runsapi.transport import Transport


class StepsWithResponse:
    """As :class:`Steps`, with every answer's headers and status."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def retrieve(
        self,
        step_id: str,
        *,
        thread_id: str,
        run_id: str,
        include: list[RunStepInclude] | None = None,
        **options: Unpack[RequestOptions],
    ) -> Response[RunStep]:
        """Retrieve a step."""
        target = path(
            *("threads", "thread_id", "runs", "run_id", "steps", "step_id"),
            thread_id=thread_id,
            run_id=run_id,
            step_id=step_id,
        )
        query = query_of(StepRetrieveParams(include=include))
        answer = await self._transport.request("GET", target, query=query, options=options)
        return read(RunStep, answer, f"{self._transport.url}{target}")

    async def list(
        self,
        run_id: str,
        params: StepListParams | None = None,
        *,
        thread_id: str,
        **fields: Unpack[StepListOptions],
    ) -> Response[RunStepsPage]:
        """The first page of a run's steps."""
        given, options = split(fields)
        checked = params_of(StepListParams, params, given)
        target = path(
            "threads", "thread_id", "runs", "run_id", "steps", thread_id=thread_id, run_id=run_id
        )
        return await self._page(target, checked, options)

    async def _page(
        self, target: str, params: StepListParams, options: RequestOptions
    ) -> Response[RunStepsPage]:
        async def fetch(after: str) -> RunStepsPage:
            following = params.model_copy(update={"after": after})
            return (await self._page(target, following, options)).data

        answer = await self._transport.request(
            "GET", target, query=query_of(params), options=options
        )
        wire = read(ListObject[RunStep], answer, f"{self._transport.url}{target}")
        page = RunStepsPage(wire.data, cursor=params.after, fetch=fetch)
        return Response(page, wire.headers, wire.status_code)


class Steps:
    """The steps of runs.

    Attributes:
        with_response: The same calls, whose answers hold headers and status too.
    """

    def __init__(self, transport: Transport) -> None:
        self.with_response = StepsWithResponse(transport)

    async def retrieve(
        self,
        step_id: str,
        *,
        thread_id: str,
        run_id: str,
        include: list[RunStepInclude] | None = None,
        **options: Unpack[RequestOptions],
    ) -> RunStep:
        """Retrieve a step of a run."""
        answer = await self.with_response.retrieve(
            step_id, thread_id=thread_id, run_id=run_id, include=include, **options
        )
        return answer.data

    def list(
        self,
        run_id: str,
        params: StepListParams | None = None,
        *,
        thread_id: str,
        **fields: Unpack[StepListOptions],
    ) -> PageRequest[RunStepsPage, RunStep]:
        """List a run's steps: await the first page, or iterate over all of them."""

        async def fetch() -> RunStepsPage:
            answer = await self.with_response.list(run_id, params, thread_id=thread_id, **fields)
            return answer.data

        return PageRequest(fetch)
