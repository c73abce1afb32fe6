"""The run: what it is, where it stands, and what it waits for."""

from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from runsapi.tools import AssistantResponseFormatOption, AssistantTool, AssistantToolChoiceOption
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


class RunStatus(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    """Entered on create and when outputs are submitted; left when the upstream takes it up."""

    IN_PROGRESS = "in_progress"
    """Entered when the upstream takes it up; left to ask for tools, to end, or to be cancelled."""

    REQUIRES_ACTION = "requires_action"
    """Entered when the model wants tools called; left by submitting all outputs, cancel, expiry."""

    CANCELLING = "cancelling"
    """Entered by cancel; left for ``cancelled``, or for another end that came first."""

    CANCELLED = "cancelled"
    """Entered when a cancel took effect; never left."""

    FAILED = "failed"
    """Entered when the upstream gave up, ``last_error`` says why; never left."""

    COMPLETED = "completed"
    """Entered when the model has answered; never left."""

    INCOMPLETE = "incomplete"
    """Entered when a token limit was reached, ``incomplete_details`` says which; never left."""

    EXPIRED = "expired"
    """Entered when ``expires_at`` passed first, typically 600 s after create; never left."""


INTERMEDIATE: frozenset[RunStatus] = frozenset(
    {RunStatus.QUEUED, RunStatus.IN_PROGRESS, RunStatus.CANCELLING}
)
"""The run moves on by itself: look again later."""

TERMINAL: frozenset[RunStatus] = frozenset(
    {
        RunStatus.CANCELLED,
        RunStatus.FAILED,
        RunStatus.COMPLETED,
        RunStatus.INCOMPLETE,
        RunStatus.EXPIRED,
    }
)
"""The run never changes again. ``requires_action`` is in neither set: it is a pause."""

StatusWord: TypeAlias = Annotated[RunStatus | str, Field(union_mode="left_to_right")]
"""One of the nine, or a word of the upstream's own, kept as it came."""


class Function(WireObject):
    """The function to call; ``arguments`` is the JSON the model wrote, which need not be valid."""

    name: Text = ""
    arguments: Text = ""


class RequiredActionFunctionToolCall(OpenWireObject):
    """A tool call whose output the run waits for.

    Only calls of type ``function`` are answered with an output. Others (Foundry's ``mcp``, say)
    are kept with all their fields, and with an empty ``function``.
    """

    id: Text = ""
    type: Text = "function"
    function: Annotated[Function, or_default(Function)] = Function()


class SubmitToolOutputs(WireObject):
    """The calls whose outputs must be submitted, all in one request."""

    tool_calls: Annotated[list[RequiredActionFunctionToolCall], OrEmpty] = Field(
        default_factory=list
    )


class RequiredAction(OpenWireObject):
    """What the run waits for; a ``type`` of the upstream's own is kept with its fields."""

    type: Text = ""
    submit_tool_outputs: Annotated[SubmitToolOutputs | None, OrNone] = None

    @property
    def tool_calls(self) -> list[RequiredActionFunctionToolCall]:
        """The open calls, those of an unknown type of action included."""
        if self.submit_tool_outputs is not None:
            return list(self.submit_tool_outputs.tool_calls)
        # Foundry's `submit_tool_approval` keeps its calls under its own name, in the same shape.
        other: Any = (self.model_extra or {}).get(self.type)
        calls = other.get("tool_calls") if isinstance(other, dict) else None
        return SubmitToolOutputs.model_validate({"tool_calls": calls}).tool_calls


class LastError(WireObject):
    """Why a run failed: ``server_error``, ``rate_limit_exceeded``, ``invalid_prompt``; in words."""

    code: Text = ""
    message: Text = ""


class IncompleteDetails(WireObject):
    """Why a run is incomplete: ``max_completion_tokens`` or ``max_prompt_tokens``."""

    reason: str | None = None


class TruncationStrategy(WireObject):
    """How the thread is cut before the run: ``auto``, or to its most recent messages."""

    type: Text = "auto"
    last_messages: int | None = None


class Usage(WireObject):
    """Tokens used."""

    completion_tokens: int = 0
    prompt_tokens: int = 0
    total_tokens: int = 0


class Run(WireObject):
    """An execution of an assistant on a thread.

    Times are Unix seconds. Only ``id`` and ``status`` must be there: an answer without them is no
    run, and everything else some server leaves out.
    """

    id: str = Field(min_length=1)
    status: StatusWord
    object: Literal["thread.run"] | str = "thread.run"
    assistant_id: Text = ""
    thread_id: Text = ""
    created_at: Seconds = 0
    started_at: SecondsOrNone = None
    expires_at: SecondsOrNone = None
    completed_at: SecondsOrNone = None
    cancelled_at: SecondsOrNone = None
    failed_at: SecondsOrNone = None
    required_action: Annotated[RequiredAction | None, OrNone] = None
    last_error: Annotated[LastError | None, OrNone] = None
    incomplete_details: Annotated[IncompleteDetails | None, OrNone] = None
    model: Text = ""
    instructions: Annotated[str | None, OrNone] = None
    tools: Annotated[list[AssistantTool], OrEmpty] = Field(default_factory=list)
    tool_choice: Annotated[AssistantToolChoiceOption | None, OrNone] = None
    parallel_tool_calls: Annotated[bool | None, OrNone] = None
    response_format: Annotated[AssistantResponseFormatOption | None, OrNone] = None
    truncation_strategy: Annotated[TruncationStrategy | None, OrNone] = None
    max_completion_tokens: Annotated[int | None, OrNone] = None
    max_prompt_tokens: Annotated[int | None, OrNone] = None
    metadata: Metadata = None
    temperature: Annotated[float | None, OrNone] = None
    top_p: Annotated[float | None, OrNone] = None
    usage: Annotated[Usage | None, OrNone] = None

    @property
    def tool_calls(self) -> list[RequiredActionFunctionToolCall]:
        """The calls this run waits for; empty unless its status is ``requires_action``."""
        # Some servers leave the action standing after the run has gone on.
        if self.status != RunStatus.REQUIRES_ACTION or self.required_action is None:
            return []
        return self.required_action.tool_calls
