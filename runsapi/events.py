"""What a stream brings: typed events, and those of a kind nobody has heard of."""

import json
from typing import Any, Literal, TypeAlias, get_args

from pydantic import ValidationError

from runsapi.messages import Message, MessageDeltaEvent, Thread
from runsapi.models import Run
from runsapi.steps import RunStep, RunStepDeltaEvent
from runsapi.wire import Text, WireObject


class ThreadCreated(WireObject):
    """The thread was made."""

    event: Literal["thread.created"]
    data: Thread


class ThreadRunEvent(WireObject):
    """The run has a new status, or was created."""

    event: Literal[
        "thread.run.created",
        "thread.run.queued",
        "thread.run.in_progress",
        "thread.run.requires_action",
        "thread.run.completed",
        "thread.run.incomplete",
        "thread.run.failed",
        "thread.run.cancelling",
        "thread.run.cancelled",
        "thread.run.expired",
    ]
    data: Run


class ThreadRunStepEvent(WireObject):
    """A step began or ended."""

    event: Literal[
        "thread.run.step.created",
        "thread.run.step.in_progress",
        "thread.run.step.completed",
        "thread.run.step.failed",
        "thread.run.step.cancelled",
        "thread.run.step.expired",
    ]
    data: RunStep


class ThreadRunStepDelta(WireObject):
    """A step has more to it."""

    event: Literal["thread.run.step.delta"]
    data: RunStepDeltaEvent


class ThreadMessageEvent(WireObject):
    """A message began or ended."""

    event: Literal[
        "thread.message.created",
        "thread.message.in_progress",
        "thread.message.completed",
        "thread.message.incomplete",
    ]
    data: Message


class ThreadMessageDelta(WireObject):
    """A message has more to it."""

    event: Literal["thread.message.delta"]
    data: MessageDeltaEvent


class ErrorObject(WireObject):
    """What went wrong on the server, in the fields of its error envelope."""

    message: Text = ""
    type: str | None = None
    param: str | None = None
    code: str | None = None


class ErrorEvent(WireObject):
    """The server broke down or gave up waiting. The run itself may go on: retrieve it."""

    event: Literal["error"]
    data: ErrorObject


class UnknownEvent(WireObject):
    """An event of a kind this package doesn't know, or whose data it can't read.

    ``data`` is the decoded JSON, or the text where it is none.
    """

    event: str
    data: Any = None


AssistantStreamEvent: TypeAlias = (
    ThreadCreated
    | ThreadRunEvent
    | ThreadRunStepEvent
    | ThreadRunStepDelta
    | ThreadMessageEvent
    | ThreadMessageDelta
    | ErrorEvent
    | UnknownEvent
)

_KINDS: tuple[type[WireObject], ...] = (
    ThreadCreated,
    ThreadRunEvent,
    ThreadRunStepEvent,
    ThreadRunStepDelta,
    ThreadMessageEvent,
    ThreadMessageDelta,
    ErrorEvent,
)
_TYPES = {name: kind for kind in _KINDS for name in get_args(kind.model_fields["event"].annotation)}


def read_event(name: str, text: str) -> AssistantStreamEvent:
    """An event as it stands on the wire, typed as far as it can be."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return UnknownEvent(event=name, data=text)
    return typed_event(name, data)


def typed_event(name: str, data: Any) -> AssistantStreamEvent:
    """An event whose data is decoded, typed as far as it can be."""
    kind = _TYPES.get(name)
    if kind is ErrorEvent and isinstance(data, dict) and isinstance(data.get("error"), dict):
        data = data["error"]  # some servers send the whole envelope
    if kind is not None:
        try:
            return kind.model_validate({"event": name, "data": data})  # type: ignore[return-value]
        except ValidationError:
            pass
    return UnknownEvent(event=name, data=data)
