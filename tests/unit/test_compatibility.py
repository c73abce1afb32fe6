"""What stands in histories and goes between releases: older and newer code read each other's."""

import inspect
import json
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from activities import batch_contract as lanes
from activities import contract as effects
from activities import decision, decisions, notify, schedule, scheduled_batch_contract, tools
from runsapi import Run
from workflows import approval, batch_contract, contract, notice, scheduled_contract, state

CALL = {"id": "c", "type": "function", "function": {"name": "pay", "arguments": "{}"}}
RUN = {
    "id": "run_1",
    "object": "thread.run",
    "created_at": 1,
    "thread_id": "t",
    "assistant_id": "a",
    "status": "requires_action",
    "required_action": {
        "type": "submit_tool_outputs",
        "submit_tool_outputs": {"tool_calls": [CALL]},
    },
    "last_error": {"code": "server_error", "message": "m"},
    "incomplete_details": {"reason": "max_prompt_tokens"},
    "model": "m",
    "tools": [{"type": "function", "function": {"name": "pay", "parameters": {}}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    "truncation_strategy": {"type": "last_messages", "last_messages": 1},
    "tool_choice": {"type": "function", "function": {"name": "pay"}},
    "metadata": {"k": "v"},
}
MODULES = (
    contract, state, approval, notice, effects, tools, decision, decisions, notify, lanes,
    batch_contract, schedule, scheduled_batch_contract, scheduled_contract,
)  # fmt: skip
LATER = "a_field_of_a_later_release"

# Never add to a list: histories and processes of older releases have no such field. Give it a
# default, and add it to no list.
REQUIRED = {
    "Acknowledged": ["status"],
    "Answer": [
        "tool_call_id", "name", "arguments", "key", "output", "output_digest", "attempt", "round",
        "answered_at",
    ],
    "AnswerView": ["tool_call_id", "name", "attempt", "round", "outcome", "output_digest"],
    "Approval": [],
    "Approvals": [],
    "AskView": ["attempt", "round"],
    "Asked": ["created_at", "digest"],
    "AskedBatch": ["file_id", "filename", "digest", "total"],
    "AskedCall": ["notice"],
    "AttemptView": ["attempt", "upstream_run_id", "status"],
    "BeginBatchInput": ["name", "scheduled_at", "batch"],
    "BegunBatch": ["batch_id", "status", "lanes", "window"],
    "Beside": ["name", "arguments", "outcome", "at"],
    "BatchInput": ["batch_id"],
    "BatchItem": ["batch_id", "index", "custom_id"],
    "BatchOptions": [],
    "BatchResult": ["status"],
    "BatchTiming": [],
    "BlockedView": ["kind", "message", "since_at"],
    "Call": ["id", "name", "arguments"],
    "CallInput": ["call", "rule"],
    "Called": [],
    "CancelInput": ["target"],
    "CancelOrder": [],
    "CancelRequest": [],
    "CheckInput": ["batch_id"],
    "Classified": ["calls"],
    "ClassifyInput": ["calls"],
    "ClockTime": ["hour", "minute", "zone"],
    "CreateInput": ["run_id", "attempt", "thread_id", "params", "age"],
    "Created": ["run", "upstream"],
    "Decision": [
        "id", "kind", "run_id", "tool_call_id", "arguments_digest", "tool_digest", "by", "at",
    ],
    "DecisionReceipt": ["status", "message"],
    "DecisionView": ["id", "kind", "tool_call_id", "by", "at", "recorded_at", "state"],
    "EarlyAnswer": ["output", "at"],
    "Execution": [
        "tool_call_id", "name", "arguments", "key", "attempt", "round", "begun_at", "intent",
        "arguments_digest", "ordinal", "rule", "timeout", "room",
    ],
    "Handling": ["by"],
    "KeptApproval": ["key", "tool_digest", "tool_call_id", "attempt", "approval"],
    "KnownCall": ["attempt", "round"],
    "LaneDone": ["why"],
    "LaneInput": ["batch_id", "lane", "window"],
    "LapseInput": ["call", "rule", "outcome", "at"],
    "LeftNotices": ["notices"],
    "LookInput": ["batch_id"],
    "Looked": ["status"],
    "MadeThread": ["thread_id"],
    "MetadataUpdate": [],
    "Notice": [
        "id", "event", "at", "run_id", "tool_call_id", "tool", "since", "arguments_digest",
        "tool_digest",
    ],
    "Observed": ["run"],
    "OpenCall": ["id", "name", "arguments", "key", "since_at"],
    "OpenNotice": ["notice", "until_at"],
    "Output": ["tool_call_id", "output"],
    "PauseOrder": ["reason", "by"],
    "PendingCall": ["tool_call_id", "name", "arguments", "arguments_digest"],
    "Receipt": ["tool_call_id", "status"],
    "Receipts": ["receipts"],
    "RecordInput": ["item", "run"],
    "RejectedAnswer": ["tool_call_id", "reason", "at"],
    "RequestMemo": ["digest", "created_at"],
    "RetrieveInput": ["target"],
    "Rule": ["tool_digest", "arguments_digest"],
    "RunInput": ["request"],
    "RunOptions": [],
    "RunRequest": ["thread_id", "params", "created_at"],
    "RunState": [],
    "RunView": ["run", "runlane"],
    "RunlaneView": [],
    "RunningTool": ["tool_call_id", "name", "begun_at"],
    "ScheduledBatchInput": ["schedule", "batch"],
    "ScheduledBatchResult": ["batch_id"],
    "ScheduledInput": ["schedule", "params"],
    "ScheduledResult": ["run_id"],
    "StandingApproval": ["decision", "tool", "rule"],
    "StoppedView": ["scope", "target", "by", "reason", "since_at"],
    "SubmitInput": ["target", "tool_outputs"],
    "Submitted": ["run", "outcome"],
    "Target": ["upstream", "thread_id", "run_id"],
    "Timing": [],
    "ToolOutputMessage": ["tool_call_id", "output"],
    "ToolOutputs": ["tool_outputs"],
    "UnreadableView": ["message", "key_id"],
    "UpdateInput": ["target", "metadata"],
    "Upstream": ["name", "url"],
    "UpstreamView": ["name", "url"],
    "Verified": [],
    "VerifyInput": ["decision", "call", "rule"],
}  # fmt: skip


def models() -> list[type[BaseModel]]:
    """Return the models of the contracts, found by looking."""
    found = [
        member
        for module in MODULES
        for name, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, BaseModel)
        and member.__module__ == module.__name__
        and not name.startswith("_")
    ]
    return sorted(found, key=lambda model: model.__name__)


by_name = pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)


def test_each_model_is_pinned() -> None:
    """No model of the contracts is left out of what follows, and none has gone."""
    assert sorted(REQUIRED) == [model.__name__ for model in models()]


@by_name
def test_no_field_becomes_required(model: type[BaseModel]) -> None:
    """What an older release wrote lacks the fields that came later."""
    fields = model.model_fields.items()

    assert REQUIRED[model.__name__] == [name for name, field in fields if field.is_required()]


def strewn(value: Any) -> Any:
    """Return a value as JSON, with an unknown field in each object that is a model."""
    if isinstance(value, BaseModel):
        # By alias and without what a model leaves out: as it stands in a payload.
        fields = value.model_dump(mode="json")
        known = {name: strewn(getattr(value, name)) for name in type(value).model_fields}
        return {**fields, **known, LATER: {"and": ["more", {"of": "it"}]}}
    if isinstance(value, dict):
        return {key: strewn(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strewn(item) for item in value]
    return to_jsonable_python(value)


def bare(value: Any) -> Any:
    """Return JSON without the unknown fields: the upstream's own objects may keep them."""
    if isinstance(value, dict):
        return {key: bare(item) for key, item in value.items() if key != LATER}
    return [bare(item) for item in value] if isinstance(value, list) else value


def example(kind: Any) -> Any:  # noqa: PLR0911  # a table of kinds
    """Return a value of a field's type, with something at every level below it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return example(arguments[0])
    if origin in (Union, UnionType):
        return example(next(each for each in arguments if each is not NoneType))
    if origin is tuple:
        return tuple(example(each) for each in arguments)
    if origin is list:
        return [example(arguments[0])]
    if origin is dict:
        return {"key": example(arguments[1])}
    if origin is Literal:
        return arguments[0]
    if kind is Any:
        return {"any": [1, None]}
    if kind is Run:
        return Run.model_validate(RUN)
    if issubclass(kind, BaseModel):
        fields = kind.model_fields.items()
        return kind(**{name: example(field.annotation) for name, field in fields})
    if issubclass(kind, Enum):
        return next(iter(kind))
    return {str: "text", int: 1, float: 1.5, bool: True}[kind]


@by_name
def test_unknown_fields_are_ignored_at_every_level(model: type[BaseModel]) -> None:
    """What a newer release wrote is read as if the fields that came later weren't there."""
    sample = example(model)
    text = json.dumps(strewn(sample))
    assert LATER in text

    read = model.model_validate_json(text)

    assert sample.model_dump(mode="json") == bare(read.model_dump(mode="json"))
