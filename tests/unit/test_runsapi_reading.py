"""Reading forgives what servers of the protocol are known to send."""

import time
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_core import to_json

from runsapi import (
    FunctionTool,
    FunctionToolCall,
    Message,
    Run,
    RunStatus,
    RunStep,
    TextContentBlock,
    ToolCallsStepDetails,
    UnknownTool,
    UnknownToolCall,
)
from tests.wire import run

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def waiting(**action: Any) -> Run:
    return Run.model_validate(run(status="requires_action", required_action=action))


def test_an_id_and_a_status_are_a_run() -> None:
    """Every other field may be missing."""
    read = Run.model_validate({"id": "run_1", "status": "completed"})
    assert (RunStatus.COMPLETED, None, None, []) == (
        read.status,
        read.usage,
        read.expires_at,
        read.tools,
    )


@pytest.mark.parametrize("field", ["id", "status"])
def test_without_id_or_status_it_is_no_run(field: str) -> None:
    """What can't be acted on isn't taken for a run."""
    answer = run()
    del answer[field]
    with pytest.raises(ValidationError):
        Run.model_validate(answer)


def test_an_unknown_status_is_kept_as_it_came() -> None:
    """A word nobody knows is neither an error nor one of the nine."""
    read = Run.model_validate(run(status="generating"))
    assert read.status == "generating"
    assert not isinstance(read.status, RunStatus)


def test_nulls_empty_objects_and_unknown_fields() -> None:
    """`instructions: null`, `{}` for null, and fields of other versions do no harm."""
    read = Run.model_validate(
        run(
            instructions=None,
            model=None,
            tools=None,
            required_action={},
            last_error={},
            usage={},
            incomplete_details={},
            truncation_strategy={},
            tool_resources={},
            file_ids=[],
        )
    )
    assert read.required_action is None
    assert read.last_error is None
    assert read.usage is None
    assert [] == read.tools


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (1_710_331_240, 1_710_331_240),
        (1_710_331_240_123, 1_710_331_240),
        (1_710_331_240.9, 1_710_331_240),
        ("1710331240", 1_710_331_240),
        ("2024-03-13T12:00:40", 1_710_331_240),
        ("2024-03-13T12:00:40Z", 1_710_331_240),
        ("2024-03-13T13:00:40+01:00", 1_710_331_240),
        (0, None),
        (None, None),
        ("soon", None),
        ({}, None),
    ],
)
def test_times_in_every_form(given: object, seconds: int | None) -> None:
    """Seconds, milliseconds, fractions, strings and ISO dates are the same instant; 0 is none."""
    assert seconds == Run.model_validate(run(expires_at=given)).expires_at


def test_a_datetime_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this process runs doesn't change when an upstream's run expires."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert 1_710_331_240 == Run.model_validate(run(created_at="2024-03-13T12:00:40")).created_at
    finally:
        monkeypatch.undo()
        time.tzset()


def test_open_calls_are_there_only_while_the_run_waits() -> None:
    """A server that leaves the action standing after the run went on doesn't reopen its calls."""
    action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": [CALL]}}
    assert ["call_1"] == [call.id for call in waiting(**action).tool_calls]
    assert [] == Run.model_validate(run(status="in_progress", required_action=action)).tool_calls
    assert [] == Run.model_validate(run(status="requires_action")).tool_calls


def test_an_unknown_action_keeps_its_calls() -> None:
    """Foundry's approval of an MCP call is readable: type, id, name and server."""
    call = {"id": "call_1", "type": "mcp", "name": "n", "arguments": "{}", "server_label": "s"}
    read = waiting(type="submit_tool_approval", submit_tool_approval={"tool_calls": [call]})
    assert read.required_action is not None
    assert "submit_tool_approval" == read.required_action.type
    [open_call] = read.tool_calls
    assert ("mcp", "call_1", "") == (open_call.type, open_call.id, open_call.function.name)
    assert {"name": "n", "arguments": "{}", "server_label": "s"} == open_call.model_extra


@pytest.mark.parametrize("function", [None, {}, "text", {"name": None, "arguments": None}])
def test_a_malformed_call_does_not_hide_the_action(function: object) -> None:
    """A call without a readable function is still an open call."""
    calls = {"tool_calls": [{**CALL, "function": function}]}
    read = waiting(type="submit_tool_outputs", submit_tool_outputs=calls)
    assert ["call_1"] == [call.id for call in read.tool_calls]


def test_arguments_sent_as_an_object_become_their_json() -> None:
    """A server that forgets to encode the arguments is read all the same."""
    calls = {"tool_calls": [{**CALL, "function": {"name": "f", "arguments": {"a": 1}}}]}
    read = waiting(type="submit_tool_outputs", submit_tool_outputs=calls)
    assert '{"a": 1}' == read.tool_calls[0].function.arguments


def test_unknown_tools_keep_their_fields() -> None:
    """A tool of an unknown kind, and a malformed one of a known kind, are kept whole."""
    tools = [
        {"type": "function", "function": {"name": "f"}},
        {"type": "mcp", "server_label": "s"},
        {"type": "function"},
    ]
    known, unknown, malformed = Run.model_validate(run(tools=tools)).tools
    assert isinstance(known, FunctionTool)
    assert isinstance(unknown, UnknownTool)
    assert tools[1] == unknown.model_dump()
    assert tools[2] == malformed.model_dump()


def test_a_run_survives_json() -> None:
    """What a run held, unknown parts included, is there after a round through JSON."""
    call = {"id": "call_1", "type": "mcp", "server_label": "s"}
    read = Run.model_validate(
        run(
            status="requires_action",
            required_action={"type": "approve", "approve": {"tool_calls": [call]}},
            tools=[{"type": "mcp", "server_label": "s"}],
            metadata={"n": 1},
        )
    )
    again = Run.model_validate_json(to_json(read))
    assert again == read
    assert isinstance(again.status, RunStatus)
    assert {"n": "1"} == again.metadata


def test_a_step_tells_whether_an_output_was_taken() -> None:
    """A function call's output is null until one was submitted; an unknown call is kept."""
    calls = [
        {
            "id": "a",
            "type": "function",
            "function": {"name": "f", "arguments": "{}", "output": None},
        },
        {
            "id": "b",
            "type": "function",
            "function": {"name": "f", "arguments": "{}", "output": "3"},
        },
        {"id": "c", "type": "mcp", "server_label": "s"},
        {"id": "d", "type": "file_search", "file_search": {"results": [{"file_id": "f"}]}},
        {"id": "e", "type": "code_interpreter", "code_interpreter": {"input": "1", "outputs": []}},
    ]
    step = RunStep.model_validate(
        {"id": "step_1", "step_details": {"type": "tool_calls", "tool_calls": calls}}
    )
    assert isinstance(step.step_details, ToolCallsStepDetails)
    assert [None, "3"] == [
        call.function.output for call in step.tool_calls if isinstance(call, FunctionToolCall)
    ]
    assert isinstance(step.tool_calls[2], UnknownToolCall)
    assert ["a", "b", "c", "d", "e"] == [call.id for call in step.tool_calls]


@pytest.mark.parametrize("details", [None, {}, {"type": "thinking"}, "x"])
def test_a_step_with_unknown_details_is_still_a_step(details: object) -> None:
    """Details nobody can read leave a step without tool calls."""
    step = RunStep.model_validate({"id": "step_1", "step_details": details})
    assert [] == step.tool_calls


def test_a_message_with_unknown_parts() -> None:
    """Text is found among parts of any kind."""
    message = Message.model_validate(
        {
            "id": "msg_1",
            "content": [
                {"type": "text", "text": {"value": "a", "annotations": [{"type": "new"}]}},
                {"type": "hologram", "url": "x"},
                {"type": "text", "text": {"value": "b"}},
            ],
        }
    )
    assert "ab" == message.text
    assert isinstance(message.content[0], TextContentBlock)
