"""Run steps: what a run did, and the increments a stream brings them in."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from runsapi.models import LastError, Usage
from runsapi.wire import (
    Metadata,
    OpenWireObject,
    OrEmpty,
    OrNone,
    Seconds,
    SecondsOrNone,
    Text,
    WireObject,
    or_default,
)


class CodeInterpreterLogs(WireObject):
    """Text the code wrote. ``index`` is its place among the outputs, in a stream."""

    type: Literal["logs"]
    index: int = 0
    logs: str | None = None


class CodeInterpreterImage(WireObject):
    """The file an image was stored in."""

    file_id: str | None = None


class CodeInterpreterOutputImage(WireObject):
    """An image the code drew."""

    type: Literal["image"]
    index: int = 0
    image: Annotated[CodeInterpreterImage | None, OrNone] = None


class UnknownCodeInterpreterOutput(OpenWireObject):
    """An output of a kind this package doesn't know."""

    type: Text = ""


CodeInterpreterOutput: TypeAlias = Annotated[
    CodeInterpreterLogs | CodeInterpreterOutputImage | UnknownCodeInterpreterOutput,
    Field(union_mode="left_to_right"),
]


class CodeInterpreter(WireObject):
    """The code and what it put out."""

    input: Text = ""
    outputs: Annotated[list[CodeInterpreterOutput], OrEmpty] = Field(default_factory=list)


class CodeInterpreterToolCall(WireObject):
    """Code the upstream ran."""

    id: Text = ""
    type: Literal["code_interpreter"]
    code_interpreter: Annotated[CodeInterpreter, or_default(CodeInterpreter)] = CodeInterpreter()


class FileSearchResultContent(WireObject):
    """A passage that was found; given only where ``include`` asked for it."""

    type: str | None = None
    text: str | None = None


class FileSearchResult(WireObject):
    """A file in which something was found; ``score`` is from 0 to 1."""

    file_id: Text = ""
    file_name: Text = ""
    score: float = 0.0
    content: list[FileSearchResultContent] | None = None


class FileSearchStepRanking(WireObject):
    """How the results were ranked."""

    ranker: Text = ""
    score_threshold: float = 0.0


class FileSearchStep(WireObject):
    """The search and its results."""

    ranking_options: Annotated[FileSearchStepRanking | None, OrNone] = None
    results: Annotated[list[FileSearchResult] | None, OrNone] = None


class FileSearchToolCall(WireObject):
    """A search of files by the upstream."""

    id: Text = ""
    type: Literal["file_search"]
    file_search: Annotated[FileSearchStep, or_default(FileSearchStep)] = FileSearchStep()


class FunctionCall(WireObject):
    """The function called; ``output`` is ``None`` until an output was taken."""

    name: Text = ""
    arguments: Text = ""
    output: str | None = None


class FunctionToolCall(WireObject):
    """A call of a function of ours."""

    id: Text = ""
    type: Literal["function"]
    function: Annotated[FunctionCall, or_default(FunctionCall)] = FunctionCall()


class UnknownToolCall(OpenWireObject):
    """A call of a kind this package doesn't know; all its fields are kept."""

    id: Text = ""
    type: Text = ""


ToolCall: TypeAlias = Annotated[
    CodeInterpreterToolCall | FileSearchToolCall | FunctionToolCall | UnknownToolCall,
    Field(union_mode="left_to_right"),
]


class MessageCreation(WireObject):
    """The message that was written."""

    message_id: Text = ""


class MessageCreationStepDetails(WireObject):
    """The step wrote a message."""

    type: Literal["message_creation"]
    message_creation: Annotated[MessageCreation, or_default(MessageCreation)] = MessageCreation()


class ToolCallsStepDetails(WireObject):
    """The step called tools."""

    type: Literal["tool_calls"]
    tool_calls: Annotated[list[ToolCall], OrEmpty] = Field(default_factory=list)


class UnknownStepDetails(OpenWireObject):
    """The step did something this package doesn't know."""

    type: Text = ""


StepDetails: TypeAlias = Annotated[
    MessageCreationStepDetails | ToolCallsStepDetails | UnknownStepDetails,
    Field(union_mode="left_to_right"),
]


class RunStep(WireObject):
    """One thing a run did. Times are Unix seconds.

    ``status`` is ``in_progress`` (also while tool outputs are awaited), ``cancelled``, ``failed``,
    ``completed`` or ``expired``; an upstream's own word is kept.
    """

    id: str = Field(min_length=1)
    object: str = "thread.run.step"
    type: Text = ""
    status: Text = ""
    assistant_id: Text = ""
    thread_id: Text = ""
    run_id: Text = ""
    created_at: Seconds = 0
    cancelled_at: SecondsOrNone = None
    completed_at: SecondsOrNone = None
    expired_at: SecondsOrNone = None
    failed_at: SecondsOrNone = None
    last_error: Annotated[LastError | None, OrNone] = None
    metadata: Metadata = None
    step_details: Annotated[StepDetails, or_default(UnknownStepDetails)] = UnknownStepDetails()
    usage: Annotated[Usage | None, OrNone] = None

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls of a step that called tools; empty for any other."""
        details = self.step_details
        return list(details.tool_calls) if isinstance(details, ToolCallsStepDetails) else []


class CodeInterpreterDelta(WireObject):
    """More of the code and of what it put out."""

    input: str | None = None
    outputs: list[CodeInterpreterOutput] | None = None


class CodeInterpreterToolCallDelta(WireObject):
    """More of a code interpreter call."""

    index: int
    type: Literal["code_interpreter"]
    id: str | None = None
    code_interpreter: CodeInterpreterDelta | None = None


class FileSearchToolCallDelta(WireObject):
    """More of a file search call."""

    index: int
    type: Literal["file_search"]
    id: str | None = None
    file_search: dict[str, Any] | None = None


class FunctionCallDelta(WireObject):
    """More of a function call."""

    name: str | None = None
    arguments: str | None = None
    output: str | None = None


class FunctionToolCallDelta(WireObject):
    """More of a function call, and which one."""

    index: int
    type: Literal["function"]
    id: str | None = None
    function: FunctionCallDelta | None = None


class UnknownToolCallDelta(OpenWireObject):
    """More of a call of a kind this package doesn't know."""

    index: int = 0
    type: Text = ""
    id: str | None = None


ToolCallDelta: TypeAlias = Annotated[
    CodeInterpreterToolCallDelta
    | FileSearchToolCallDelta
    | FunctionToolCallDelta
    | UnknownToolCallDelta,
    Field(union_mode="left_to_right"),
]


class MessageCreationDelta(WireObject):
    """The message being written."""

    message_id: str | None = None


class RunStepDeltaMessageDelta(WireObject):
    """More of a step that writes a message."""

    type: Literal["message_creation"]
    message_creation: MessageCreationDelta | None = None


class ToolCallDeltaObject(WireObject):
    """More of a step that calls tools."""

    type: Literal["tool_calls"]
    tool_calls: list[ToolCallDelta] | None = None


class RunStepDelta(WireObject):
    """What changed in a step."""

    step_details: Annotated[
        RunStepDeltaMessageDelta | ToolCallDeltaObject | UnknownStepDetails | None,
        Field(union_mode="left_to_right"),
    ] = None


class RunStepDeltaEvent(WireObject):
    """What changed in which step."""

    id: str
    object: str = "thread.run.step.delta"
    delta: Annotated[RunStepDelta, or_default(RunStepDelta)] = RunStepDelta()
