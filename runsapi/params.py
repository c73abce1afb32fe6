"""The parameters of every call, checked before anything is sent."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypedDict

from pydantic import AfterValidator, StrictBool, StrictStr

from runsapi.limits import (
    MAX_PAGE,
    MAX_TOOL_OUTPUTS_BYTES,
    MAX_TOOLS,
    Float,
    Id,
    Int,
    LongText,
    RunMetadata,
    Tokens,
    between,
    count,
    limit,
)
from runsapi.parts import (
    AdditionalMessage,
    AssistantResponseFormatOptionParam,
    AssistantToolChoiceOptionParam,
    AssistantToolParam,
    TruncationStrategyParam,
)
from runsapi.tools import ReasoningEffort
from runsapi.wire import Params, plain

RunStepInclude: TypeAlias = Literal["step_details.tool_calls[*].file_search.results[*].content"]
"""What a step can be asked to include: the content of file search results."""


class RunCreateParamsBase(Params):
    """What a run is created with. ``include`` goes to the query, all else to the body.

    Attributes:
        assistant_id: The assistant that works.
        include: What the steps of a streamed run are to include.
        additional_instructions: Appended to the run's instructions.
        additional_messages: Put on the thread before the run starts.
        instructions: In place of the assistant's; at most 256,000 characters.
        max_completion_tokens: Over the whole run, at least 256; beyond it the run is incomplete.
        max_prompt_tokens: As above, for what the model reads.
        metadata: At most 14 pairs besides Runlane's stamps; keys of 64 characters, values of 512.
        model: In place of the assistant's; any word.
        parallel_tool_calls: Whether several tools may be called at once.
        reasoning_effort: For models that reason.
        response_format: ``auto``, or a format of the answer.
        stream: Whether the answer is a stream of events rather than the run.
        temperature: From 0 to 2.
        tool_choice: ``none``, ``auto``, ``required``, or the tool that must be used.
        tools: In place of the assistant's; at most 20.
        top_p: From 0 to 1.
        truncation_strategy: How the thread is cut to fit.
    """

    assistant_id: Id
    include: list[RunStepInclude] | None = None
    additional_instructions: LongText | None = None
    additional_messages: list[AdditionalMessage] | None = None
    instructions: LongText | None = None
    max_completion_tokens: Tokens | None = None
    max_prompt_tokens: Tokens | None = None
    metadata: RunMetadata = None
    model: StrictStr | None = None
    parallel_tool_calls: StrictBool | None = None
    reasoning_effort: ReasoningEffort | None = None
    response_format: AssistantResponseFormatOptionParam | None = None
    stream: StrictBool | None = None
    temperature: Annotated[Float, AfterValidator(between(0, 2))] | None = None
    tool_choice: AssistantToolChoiceOptionParam | None = None
    tools: Annotated[list[AssistantToolParam], AfterValidator(count(MAX_TOOLS))] | None = None
    top_p: Annotated[Float, AfterValidator(between(0, 1))] | None = None
    truncation_strategy: TruncationStrategyParam | None = None

    def body(self) -> dict[str, Any]:
        """The JSON body: the fields that were given, null where null was given."""
        return self.model_dump(mode="json", exclude_unset=True, exclude={"include"})


class RunCreateParams(RunCreateParamsBase):
    """What a run is created with, to be answered with the run."""


class RunCreateParamsNonStreaming(RunCreateParams):
    """What a run is created with, certainly to be answered with the run."""

    stream: Literal[False] | None = None


class RunCreateParamsStreaming(RunCreateParamsBase):
    """What a run is created with, to be answered with a stream of events."""

    stream: Literal[True]


class RunCreateAndPollParams(RunCreateParamsNonStreaming):
    """What a run is created with that is then polled."""


class RunStreamParams(RunCreateParamsBase):
    """What a run is created with that the streaming helper follows."""

    stream: Literal[True] | None = None


class RunCreateAndStreamParams(RunStreamParams):
    """The same, under the helper's deprecated name."""


class RunUpdateParams(Params):
    """What can be changed on a run: its metadata."""

    metadata: RunMetadata = None


class RunListParams(Params):
    """Which runs of a thread to list.

    Attributes:
        after: The id after which the page starts.
        before: The id before which the page ends.
        limit: Runs a page, from 1 to 100; the protocol's default is 20.
        order: By creation; the protocol's default is ``desc``.
    """

    after: Id | None = None
    before: Id | None = None
    limit: Annotated[Int, AfterValidator(between(1, MAX_PAGE))] | None = None
    order: Literal["asc", "desc"] | None = None


class StepListParams(RunListParams):
    """Which steps of a run to list, and what they are to include."""

    include: list[RunStepInclude] | None = None


class StepRetrieveParams(Params):
    """What the step is to include."""

    include: list[RunStepInclude] | None = None


class ToolOutput(Params):
    """The output for one tool call. The seed's type lets both fields be left out, and so do we."""

    tool_call_id: Id | None = None
    output: StrictStr | None = None


def _fits(outputs: list[ToolOutput]) -> list[ToolOutput]:
    if not outputs:
        raise limit("must have at least one entry")
    size = sum(len((output.output or "").encode(errors="surrogatepass")) for output in outputs)
    if size >= MAX_TOOL_OUTPUTS_BYTES:
        raise limit(
            f"must be less than {MAX_TOOL_OUTPUTS_BYTES} bytes together, got {size} bytes"
            " (the Assistants API reference, 'Submit tool outputs to run')"
        )
    return outputs


class RunSubmitToolOutputsParamsBase(Params):
    """The outputs of a round: those of all open calls, in one request, below 512,000 bytes."""

    tool_outputs: Annotated[list[ToolOutput], AfterValidator(_fits)]
    stream: StrictBool | None = None


class RunSubmitToolOutputsParams(RunSubmitToolOutputsParamsBase):
    """The outputs of a round, to be answered with the run."""


class RunSubmitToolOutputsParamsNonStreaming(RunSubmitToolOutputsParams):
    """The outputs of a round, certainly to be answered with the run."""

    stream: Literal[False] | None = None


class RunSubmitToolOutputsParamsStreaming(RunSubmitToolOutputsParamsBase):
    """The outputs of a round, to be answered with a stream of events."""

    stream: Literal[True]


class RunSubmitToolOutputsAndPollParams(RunSubmitToolOutputsParamsNonStreaming):
    """The outputs of a round of a run that is then polled."""


class RunSubmitToolOutputsStreamParams(RunSubmitToolOutputsParamsBase):
    """The outputs of a round of a run that the streaming helper follows."""

    stream: Literal[True] | None = None


class RequestOptions(TypedDict, total=False):
    """What every call takes besides its parameters.

    Attributes:
        extra_headers: They beat the client's own; ``None`` leaves a header out.
        extra_query: They beat the client's own of the same name; a list repeats the name.
        timeout: Seconds in which the answer must be there, from the connection to its end, or to
            the beginning of a stream; ``None`` waits for ever. To wait for its turn under the
            connection's limits doesn't count.
        background: Whether others go first under the connection's limits, as polls let them.
        before_send: Awaited when the turn has come; what it raises is raised, and nothing is sent.
        on_send: Called in the moment from which on the request may have arrived.
    """

    extra_headers: Mapping[str, str | None]
    extra_query: Mapping[str, str | int | list[str]]
    timeout: float | None
    background: bool
    before_send: Callable[[], Awaitable[None]]
    on_send: Callable[[], None]


class PollOptions(RequestOptions, total=False):
    """What every polling helper takes besides its parameters.

    Attributes:
        poll_interval_ms: Milliseconds between two looks, kept within 100 ms and one hour. 0, less
            than 0 and what is no number are ignored.
    """

    poll_interval_ms: float | None


class _CreateFields(TypedDict, total=False):
    assistant_id: str
    include: list[RunStepInclude]
    additional_instructions: str | None
    additional_messages: Iterable[AdditionalMessage | Mapping[str, Any]] | None
    instructions: str | None
    max_completion_tokens: int | None
    max_prompt_tokens: int | None
    metadata: Mapping[str, str] | None
    model: str | None
    parallel_tool_calls: bool
    reasoning_effort: ReasoningEffort | None
    response_format: AssistantResponseFormatOptionParam | Mapping[str, Any] | None
    temperature: float | None
    tool_choice: AssistantToolChoiceOptionParam | Mapping[str, Any] | None
    tools: Iterable[AssistantToolParam | Mapping[str, Any]] | None
    top_p: float | None
    truncation_strategy: TruncationStrategyParam | Mapping[str, Any] | None


class CreateOptions(_CreateFields, RequestOptions, total=False):
    """The fields of a run's creation as keywords, and the options of the call."""


class CreatePollOptions(_CreateFields, PollOptions, total=False):
    """The fields of a run's creation as keywords, and the options of a polling helper."""


class ListOptions(RequestOptions, total=False):
    """The fields of :class:`RunListParams` as keywords, and the options of the call."""

    after: str
    before: str
    limit: int
    order: Literal["asc", "desc"]


class StepListOptions(ListOptions, total=False):
    """The fields of :class:`StepListParams` as keywords, and the options of the call."""

    include: list[RunStepInclude]


class UpdateOptions(RequestOptions, total=False):
    """The field of :class:`RunUpdateParams` as a keyword, and the options of the call."""

    metadata: Mapping[str, str] | None


ToolOutputs: TypeAlias = Iterable[ToolOutput | Mapping[str, Any]]
"""Outputs as models or as plain mappings with ``tool_call_id`` and ``output``."""


def tool_outputs_list(outputs: ToolOutputs) -> list[Any]:
    """The outputs as the plain objects that go into the body."""
    return [plain(output) for output in outputs]
