"""What the events of a run carry: runs, steps and messages as they stood at that event. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from runlane.api import presenting
from runsapi import RunStatus, RunStep
from runsapi.steps import FunctionToolCall, ToolCallsStepDetails
from workflows.contract import AskView, RunView

Data = dict[str, Any]

_ENDED_AT = ("cancelled_at", "completed_at", "expired_at", "failed_at")


def run_at(view: RunView, status: RunStatus, action: Data | None = None) -> Data:
    """Return the run as it stood in an intermediate status."""
    deadline = view.runlane.deadline_at
    document = presenting.shown(view)
    return document | {
        "status": status.value,
        "required_action": action,
        "expires_at": document["expires_at"] if deadline is None else int(deadline),
        "started_at": None if status is RunStatus.QUEUED else document["started_at"],
        "cancelled_at": None,
        "completed_at": None,
        "failed_at": None,
        "incomplete_details": None,
        "last_error": None,
        "usage": None,
    }


def action(view: RunView, ask: AskView, step: RunStep | None, *, is_open: bool) -> Data | None:
    """Return what the caller was asked for, from the step that shows it or from what is known."""
    if step is None:
        if is_open:
            return dict(view.run.model_dump(mode="json"))["required_action"] or None
        names = {a.tool_call_id: a.name for a in view.runlane.answers}
        calls = [_call(each, names.get(each, ""), "") for each in ask.call_ids]
    else:
        calls = [
            _call(call.id, call.function.name, call.function.arguments)
            for call in step.tool_calls
            if isinstance(call, FunctionToolCall) and call.id in ask.call_ids
        ]
    return {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": calls}}


def step_begun(step: RunStep) -> Data:
    """Return a step as it stood at its beginning."""
    document: Data = step.model_dump(mode="json")
    begun = document | {"status": "in_progress", "last_error": None, "usage": None}
    begun |= dict.fromkeys(_ENDED_AT)
    if isinstance(step.step_details, ToolCallsStepDetails):
        begun["step_details"] = {"type": "tool_calls", "tool_calls": []}
    return begun


def calls_made(step: RunStep) -> Data:
    """Return the calls of a step as what came to it, none of them answered."""
    calls = []
    for index, call in enumerate(step.tool_calls):
        made: Data = {"index": index, **call.model_dump(mode="json")}
        if isinstance(call, FunctionToolCall):
            made["function"]["output"] = None
        calls.append(made)
    details = {"type": "tool_calls", "tool_calls": calls}
    return {
        "id": step.id,
        "object": "thread.run.step.delta",
        "delta": {"step_details": details},
    }


def message_begun(step: RunStep, message_id: str) -> Data:
    """Return the message of a step as it stood at its beginning: who reads it may read no more."""
    return {
        "id": message_id,
        "object": "thread.message",
        "created_at": step.created_at,
        "thread_id": step.thread_id,
        "status": "in_progress",
        "incomplete_details": None,
        "completed_at": None,
        "incomplete_at": None,
        "role": "assistant",
        "content": [],
        "assistant_id": step.assistant_id,
        "run_id": step.run_id,
        "attachments": [],
        "metadata": {},
    }


def message_text(message: Mapping[str, Any]) -> Data:
    """Return the whole content of a message as what came to it."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return message_delta(
        str(message["id"]),
        [
            {"index": index, **_numbered(part)}
            for index, part in enumerate(parts)
            if isinstance(part, dict)
        ],
    )


def message_delta(message_id: str, parts: Sequence[Data]) -> Data:
    """Return what came to a message."""
    return {
        "id": message_id,
        "object": "thread.message.delta",
        "delta": {"content": list(parts)},
    }


def text_delta(message_id: str, text: str) -> Data:
    """Return text that came to a message's first part."""
    part = {"index": 0, "type": "text", "text": {"value": text, "annotations": []}}
    return message_delta(message_id, [part])


def message_rest(whole: Data, told: str) -> Data | None:
    """Return what `message_text` holds beyond the text that was told before; None: nothing.

    What doesn't go on from that text can't be told as more of it: the completed message stands.
    """
    first, *others = whole["delta"]["content"]
    text = first.get("text")
    value = text.get("value") if isinstance(text, dict) else None
    if first["index"] != 0 or not isinstance(value, str) or not value.startswith(told):
        return None
    rest = {**first, "text": {**text, "value": value[len(told) :]}}
    has_more = rest["text"]["value"] or rest["text"].get("annotations")
    parts = [rest, *others] if has_more else others
    return message_delta(whole["id"], parts) if parts else None


def message_ended(message: Mapping[str, Any], run_id: str, status: str) -> Data:
    """Return a message as it is, under our run's id."""
    return {**message, "run_id": run_id, "status": status}


def _numbered(part: Data) -> Data:
    """Return a part whose annotations have the places that those of a stream have."""
    text = part.get("text")
    if not isinstance(text, dict) or not isinstance(text.get("annotations"), list):
        return part
    annotations = [
        {"index": index, **each} if isinstance(each, dict) else each
        for index, each in enumerate(text["annotations"])
    ]
    return {**part, "text": {**text, "annotations": annotations}}


def _call(call_id: str, name: str, arguments: str) -> Data:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
