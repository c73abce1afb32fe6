"""The calls of a thread's runs, by the names and in the order of the official Python SDK."""

import warnings
from typing import Any, Literal, Unpack, overload

from runsapi.assistant_stream import AssistantEventHandler, AssistantStream
from runsapi.models import Run
from runsapi.pages import PageRequest, RunsPage
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
    RunSubmitToolOutputsStreamParams,
    RunUpdateParams,
    ToolOutputs,
    UpdateOptions,
    tool_outputs_list,
)
from runsapi.run_requests import RunsWithResponse, params_of, split
from runsapi.step_requests import Steps
from runsapi.streaming import EventStream
from runsapi.transport import Transport


class Runs:
    """The runs of threads.

    Parameters are given as a model or as keywords. A bad one is refused with
    :class:`runsapi.InvalidParameter` before anything is sent. No call is ever repeated by itself:
    :class:`runsapi.APIConnectionError` means that nobody knows whether the upstream acted.

    Attributes:
        steps: The steps of runs.
        with_response: The same calls, whose answers hold headers and status too.
    """

    def __init__(self, transport: Transport) -> None:
        self.steps = Steps(transport)
        self.with_response = RunsWithResponse(transport)

    @overload
    async def create(
        self,
        thread_id: str,
        params: RunCreateParamsStreaming,
        **fields: Unpack[CreateOptions],
    ) -> EventStream: ...

    @overload
    async def create(
        self,
        thread_id: str,
        params: RunCreateParams | None = None,
        *,
        stream: Literal[False] | None = None,
        **fields: Unpack[CreateOptions],
    ) -> Run: ...

    @overload
    async def create(
        self,
        thread_id: str,
        params: RunCreateParams | None = None,
        *,
        stream: Literal[True],
        **fields: Unpack[CreateOptions],
    ) -> EventStream: ...

    async def create(
        self,
        thread_id: str,
        params: Any = None,
        *,
        stream: Any = None,
        **fields: Unpack[CreateOptions],
    ) -> Any:
        """Create a run.

        Args:
            thread_id: The thread it works on, which it locks until it ends.
            params: The parameters as a model.
            stream: Whether to answer with the run's events rather than with the run.
            **fields: The parameters as keywords, and the options of the call.
        """
        answer = await self.with_response.create(thread_id, params, stream=stream, **fields)
        return answer.data

    async def retrieve(
        self, run_id: str, *, thread_id: str, **options: Unpack[RequestOptions]
    ) -> Run:
        """Retrieve a run."""
        return (await self.with_response.retrieve(run_id, thread_id=thread_id, **options)).data

    async def update(
        self,
        run_id: str,
        params: RunUpdateParams | None = None,
        *,
        thread_id: str,
        **fields: Unpack[UpdateOptions],
    ) -> Run:
        """Change a run's metadata, the only thing about it that can be changed.

        ``metadata=None`` sends null; leaving it out sends nothing.
        """
        answer = await self.with_response.update(run_id, params, thread_id=thread_id, **fields)
        return answer.data

    def list(
        self,
        thread_id: str,
        params: RunListParams | None = None,
        **fields: Unpack[ListOptions],
    ) -> PageRequest[RunsPage, Run]:
        """List a thread's runs: await the first page, or iterate over all of them."""

        async def fetch() -> RunsPage:
            return (await self.with_response.list(thread_id, params, **fields)).data

        return PageRequest(fetch)

    async def cancel(
        self, run_id: str, *, thread_id: str, **options: Unpack[RequestOptions]
    ) -> Run:
        """Ask for a run to be cancelled. It may end otherwise all the same: poll it."""
        return (await self.with_response.cancel(run_id, thread_id=thread_id, **options)).data

    @overload
    async def submit_tool_outputs(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: ToolOutputs,
        stream: Literal[False] | None = None,
        **options: Unpack[RequestOptions],
    ) -> Run: ...

    @overload
    async def submit_tool_outputs(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: ToolOutputs,
        stream: Literal[True],
        **options: Unpack[RequestOptions],
    ) -> EventStream: ...

    async def submit_tool_outputs(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: ToolOutputs,
        stream: Any = None,
        **options: Unpack[RequestOptions],
    ) -> Any:
        """Submit the outputs of all open calls, in one request.

        Args:
            run_id: The run that waits for them.
            thread_id: Its thread.
            tool_outputs: Less than 512,000 bytes together (the Assistants API reference, "Submit
                tool outputs to run").
            stream: Whether to answer with the run's events rather than with the run.
            **options: The options of the call.
        """
        answer = await self.with_response.submit_tool_outputs(
            run_id, thread_id=thread_id, tool_outputs=tool_outputs, stream=stream, **options
        )
        return answer.data

    async def poll(self, run_id: str, *, thread_id: str, **options: Unpack[PollOptions]) -> Run:
        """Look at a run until it has ended or wants tools called.

        It waits ``poll_interval_ms``, else what the latest answer's ``openai-poll-after-ms`` asks
        for, else 5,000 ms. A status nobody knows is waited out. There is no deadline.
        """
        return (await self.with_response.poll(run_id, thread_id=thread_id, **options)).data

    async def create_and_poll(
        self,
        thread_id: str,
        params: RunCreateParams | None = None,
        **fields: Unpack[CreatePollOptions],
    ) -> Run:
        """Create a run and :meth:`poll` it."""
        return (await self.with_response.create_and_poll(thread_id, params, **fields)).data

    async def submit_tool_outputs_and_poll(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: ToolOutputs,
        **options: Unpack[PollOptions],
    ) -> Run:
        """Submit the outputs of all open calls and :meth:`poll` the run."""
        answer = await self.with_response.submit_tool_outputs_and_poll(
            run_id, thread_id=thread_id, tool_outputs=tool_outputs, **options
        )
        return answer.data

    def stream(
        self,
        thread_id: str,
        params: RunCreateParamsBase | None = None,
        *,
        event_handler: AssistantEventHandler | None = None,
        **fields: Unpack[CreateOptions],
    ) -> AssistantStream:
        """Create a run and follow it.

        Args:
            thread_id: The thread it works on.
            params: The parameters as a model.
            event_handler: Hears of everything while the stream is read.
            **fields: The parameters as keywords, and the options of the call.
        """
        given, options = split(fields)
        checked: RunCreateParamsBase = params_of(RunCreateParamsBase, params, given)
        headers = _helper("create_and_stream", event_handler)

        async def start() -> EventStream:
            return await self.with_response.open_create(thread_id, checked, headers, options)

        return AssistantStream(start, event_handler)

    def create_and_stream(
        self,
        thread_id: str,
        params: RunCreateParamsBase | None = None,
        *,
        event_handler: AssistantEventHandler | None = None,
        **fields: Unpack[CreateOptions],
    ) -> AssistantStream:
        """Deprecated: the same as :meth:`stream`."""
        warnings.warn("create_and_stream is deprecated: use stream", DeprecationWarning, 2)
        return self.stream(thread_id, params, event_handler=event_handler, **fields)

    def submit_tool_outputs_stream(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: ToolOutputs,
        event_handler: AssistantEventHandler | None = None,
        **options: Unpack[RequestOptions],
    ) -> AssistantStream:
        """Submit the outputs of all open calls and follow the run."""
        checked = RunSubmitToolOutputsStreamParams(tool_outputs=tool_outputs_list(tool_outputs))
        headers = _helper("submit_tool_outputs_stream", event_handler)

        async def start() -> EventStream:
            return await self.with_response.open_submit(
                run_id, thread_id, checked, headers, options
            )

        return AssistantStream(start, event_handler)


def _helper(name: str, handler: AssistantEventHandler | None) -> dict[str, str]:
    return {
        "X-Stainless-Helper-Method": "stream",
        "X-Stainless-Stream-Helper": f"threads.runs.{name}",
        "X-Stainless-Custom-Event-Handler": "true" if handler is not None else "false",
    }
