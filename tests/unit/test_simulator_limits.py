"""What the simulator refuses in a request, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from runsapi.simulator.checks import check_body, limit_of, order_of
from runsapi.simulator.errors import ApiError

KILOBYTE = 1024


def refusal(operation: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the `error` object with which a body is refused."""
    with pytest.raises(ApiError) as refused:
        check_body(operation, body)
    assert refused.value.status == 400
    error: dict[str, Any] = refused.value.body["error"]
    return error


def run(**fields: Any) -> dict[str, Any]:
    """Return the body of a create."""
    return {"assistant_id": "asst_1", **fields}


@pytest.mark.parametrize(
    ("operation", "body", "message", "param", "code"),
    [
        (
            "runs.create",
            run(idempotency_key="x"),
            "Unknown parameter: 'idempotency_key'.",
            "idempotency_key",
            "unknown_parameter",
        ),
        (
            "runs.create",
            {},
            "Missing required parameter: 'assistant_id'.",
            "assistant_id",
            "missing_required_parameter",
        ),
        (
            "runs.create",
            run(metadata=[]),
            "Invalid type for 'metadata': expected an object, but got an array instead.",
            "metadata",
            "invalid_type",
        ),
        (
            "runs.create",
            run(temperature=True),
            "Invalid type for 'temperature': expected a number, but got a boolean instead.",
            "temperature",
            "invalid_type",
        ),
        (
            "runs.create",
            run(metadata={"a": 1}),
            "Invalid type for 'metadata.a': expected a string, but got an integer instead.",
            "metadata.a",
            "invalid_type",
        ),
        (
            "runs.create",
            run(metadata={str(n): "" for n in range(17)}),
            "Invalid 'metadata': too many properties. Expected an object with at most 16 "
            "properties, but got an object with 17 properties instead.",
            "metadata",
            "object_above_max_properties",
        ),
        (
            "runs.create",
            run(metadata={"a": "x" * 513}),
            "Invalid 'metadata.a': string too long. Expected a string with maximum length 512, "
            "but got a string with length 513 instead.",
            "metadata.a",
            "string_above_max_length",
        ),
        (
            "runs.create",
            run(max_prompt_tokens=255),
            "Invalid 'max_prompt_tokens': integer below minimum value. "
            "Expected a value >= 256, but got 255 instead.",
            "max_prompt_tokens",
            "integer_below_min_value",
        ),
        (
            "runs.create",
            run(temperature=2.5),
            "Invalid 'temperature': decimal above maximum value. "
            "Expected a value <= 2, but got 2.5 instead.",
            "temperature",
            "decimal_above_max_value",
        ),
        (
            "runs.create",
            run(tools=[{"type": "code_interpreter"}] * 21),
            "Invalid 'tools': array too long. Expected an array with maximum length 20, "
            "but got an array with length 21 instead.",
            "tools",
            "array_above_max_length",
        ),
        (
            "runs.create",
            run(tools=[{"type": "function", "function": {"name": "a b"}}]),
            "Invalid 'tools[0].function.name': string does not match pattern. "
            "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
            "tools[0].function.name",
            "invalid_value",
        ),
        (
            "runs.create",
            run(additional_messages=[{"role": "system", "content": "x"}]),
            "Invalid value: 'system'. Supported values are: 'user' and 'assistant'.",
            "additional_messages[0].role",
            "invalid_value",
        ),
        (
            "messages.create",
            {"role": "user", "content": "x" * 256_001},
            "Invalid 'content': string too long. Expected a string with maximum length 256000, "
            "but got a string with length 256001 instead.",
            "content",
            "string_above_max_length",
        ),
        (
            "messages.create",
            {"role": "user", "content": ["x"]},
            "Invalid type for 'content[0]': expected an object, but got a string instead.",
            "content[0]",
            "invalid_type",
        ),
        (
            "runs.update",
            {"status": "completed"},
            "Unknown parameter: 'status'.",
            "status",
            "unknown_parameter",
        ),
        (
            "runs.submit_tool_outputs",
            {"stream": False},
            "Missing required parameter: 'tool_outputs'.",
            "tool_outputs",
            "missing_required_parameter",
        ),
        (
            "runs.submit_tool_outputs",
            {"tool_outputs": [{"tool_call_id": "call_1", "name": "x"}]},
            "Unknown parameter: 'tool_outputs[0].name'.",
            "tool_outputs[0].name",
            "unknown_parameter",
        ),
        (
            "threads.create_and_run",
            run(thread={"messages": [{"role": "user"}]}),
            "Missing required parameter: 'messages[0].content'.",
            "messages[0].content",
            "missing_required_parameter",
        ),
    ],
)
def test_a_refusal_names_the_parameter(
    operation: str, body: dict[str, Any], message: str, param: str, code: str
) -> None:
    """Message, parameter and code are those of the API."""
    assert refusal(operation, body) == {
        "message": message,
        "type": "invalid_request_error",
        "param": param,
        "code": code,
    }


def test_outputs_together_stay_below_512_kilobytes() -> None:
    """The limit is on the sum of the outputs, in bytes, and is itself too much."""
    half = {"tool_call_id": "call_1", "output": "ä" * (128 * KILOBYTE)}
    less = {"tool_call_id": "call_2", "output": "x" * (256 * KILOBYTE - 1)}
    more = {"tool_call_id": "call_2", "output": "x" * (256 * KILOBYTE)}
    check_body("runs.submit_tool_outputs", {"tool_outputs": [half, less]})

    error = refusal("runs.submit_tool_outputs", {"tool_outputs": [half, more]})
    assert error["message"] == (
        "body -> tool_outputs\n  Combined tool outputs must be less than 512kb (type=value_error)"
    )


def test_everything_a_run_can_be_created_with_is_taken() -> None:
    """Each parameter of the protocol passes, null included where it may be."""
    check_body(
        "runs.create",
        run(
            additional_instructions="x",
            additional_messages=[{"role": "user", "content": [{"type": "text", "text": "x"}]}],
            instructions=None,
            max_completion_tokens=256,
            max_prompt_tokens=256,
            metadata={"k" * 64: "v" * 512},
            model="m",
            parallel_tool_calls=False,
            reasoning_effort="low",
            response_format={"type": "json_object"},
            stream=False,
            temperature=2,
            tool_choice={"type": "function", "function": {"name": "f"}},
            tools=[{"type": "file_search"}],
            top_p=0.5,
            truncation_strategy={"type": "auto"},
        ),
    )


@pytest.mark.parametrize("limit", ["0", "101", "many"])
def test_a_page_has_one_to_a_hundred_entries(limit: str) -> None:
    """20 without a limit, and nothing outside of 1 to 100."""
    assert limit_of({}) == 20
    assert limit_of({"limit": "100"}) == 100
    with pytest.raises(ApiError, match="limit"):
        limit_of({"limit": limit})


def test_a_list_has_one_of_two_orders() -> None:
    """Newest first unless asked otherwise."""
    assert order_of({}) == "desc"
    with pytest.raises(ApiError, match="'asc' and 'desc'"):
        order_of({"order": "random"})
