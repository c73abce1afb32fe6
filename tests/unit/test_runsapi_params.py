"""Sending is strict: null differs from absent, and what is wrong is refused by name and limit."""

from typing import Any

import pytest
from pydantic import BaseModel

from runsapi import (
    MAX_TOOL_OUTPUTS_BYTES,
    FunctionTool,
    InvalidParameter,
    Run,
    RunCreateParams,
    RunCreateParamsNonStreaming,
    RunCreateParamsStreaming,
    RunListParams,
    RunSubmitToolOutputsParams,
    RunUpdateParams,
    ToolOutput,
)

INCLUDE = "step_details.tool_calls[*].file_search.results[*].content"

EVERYTHING: dict[str, Any] = {
    "assistant_id": "asst_1",
    "additional_instructions": "briefly",
    "additional_messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                {"type": "image_file", "image_file": {"file_id": "file_1"}},
            ],
            "attachments": [
                {"file_id": "file_2", "tools": [{"type": "file_search"}]},
                {"file_id": "file_3", "tools": [{"type": "code_interpreter"}]},
            ],
            "metadata": {"a": "b"},
        },
        {"role": "assistant", "content": "I did", "metadata": None},
    ],
    "instructions": "be kind",
    "max_completion_tokens": 256,
    "max_prompt_tokens": 20_000,
    "metadata": {"order": "7"},
    "model": "a-model-nobody-knows",
    "parallel_tool_calls": False,
    "reasoning_effort": "xhigh",
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
    },
    "stream": False,
    "temperature": 0.5,
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "tools": [
        {"type": "code_interpreter"},
        {"type": "file_search", "file_search": {"max_num_results": 5}},
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
    ],
    "top_p": 1.0,
    "truncation_strategy": {"type": "last_messages", "last_messages": 3},
}


def test_every_parameter_reaches_the_body_unchanged() -> None:
    """What was given is what is sent, `include` apart."""
    params = RunCreateParams(**EVERYTHING, include=[INCLUDE])
    assert params.body() == EVERYTHING


def test_null_differs_from_absent_even_after_json() -> None:
    """A given null is sent as null, an absent field isn't sent, and JSON keeps the difference."""
    params = RunCreateParams(assistant_id="asst_1", instructions=None, metadata=None)
    expected = {"assistant_id": "asst_1", "instructions": None, "metadata": None}
    assert expected == params.body()
    text = params.model_dump_json(exclude_unset=True)
    assert expected == RunCreateParams.model_validate_json(text).body()


def test_tools_of_a_run_can_be_sent_again() -> None:
    """Objects that were read are taken as parameters, with the fields they were given."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    read = Run.model_validate({"id": "run_1", "status": "queued", "tools": tools})
    assert isinstance(read.tools[0], FunctionTool)
    assert tools == RunCreateParams(assistant_id="a", tools=read.tools).body()["tools"]


def test_iterables_become_lists() -> None:
    """A generator of messages is sent as the list it yields."""
    messages = ({"role": "user", "content": text} for text in "ab")
    sent = RunCreateParams.model_validate({"assistant_id": "a", "additional_messages": messages})
    assert ["a", "b"] == [message["content"] for message in sent.body()["additional_messages"]]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"temperature": 3}, "temperature", "must be between 0 and 2, got 3"),
        ({"temperature": -0.5}, "temperature", "must be between 0 and 2, got -0.5"),
        ({"temperature": "1"}, "temperature", "must be a number, got a string"),
        ({"temperature": True}, "temperature", "must be a number, got a boolean"),
        ({"temperature": float("nan")}, "temperature", "must be a finite number"),
        ({"top_p": 1.5}, "top_p", "must be between 0 and 1, got 1.5"),
        ({"max_prompt_tokens": 255}, "max_prompt_tokens", "must be at least 256, got 255"),
        ({"max_completion_tokens": 1}, "max_completion_tokens", "must be at least 256, got 1"),
        ({"instructions": "x" * 256_001}, "instructions", "at most 256000 characters, got 256001"),
        ({"assistant_id": ""}, "assistant_id", "must have 1 to 255 characters, got 0"),
        ({"colour": "red"}, "colour", "is not a parameter of RunCreateParams"),
        ({"stream": "yes"}, "stream", "must be true or false, got a string"),
        ({"tools": [{"type": "code_interpreter"}] * 21}, "tools", "at most 20 entries, got 21"),
        ({"tools": [{"type": "mcp"}]}, "tools[0]", "code_interpreter, file_search, function"),
        (
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            "tools[0].function.name",
            "must have 1 to 64 characters out of",
        ),
        ({"tool_choice": "maybe"}, "tool_choice", "must be 'none', 'auto' or 'required'"),
        ({"tool_choice": {"type": "function"}}, "tool_choice", "must name the function"),
        ({"response_format": "json"}, "response_format", "must be 'auto'"),
        ({"reasoning_effort": "huge"}, "reasoning_effort", "must be 'none', 'minimal'"),
        ({"include": ["everything"]}, "include[0]", f"must be '{INCLUDE}'"),
        ({"metadata": {"a": 1}}, "metadata.a", "must be a string, got a number"),
        ({"metadata": {"k" * 65: "v"}}, "metadata", "1 to 64 characters, key 0 has 65"),
        ({"metadata": {"k": "v" * 513}}, "metadata", "at most 512 characters, value 0 has 513"),
        (
            {"truncation_strategy": {"type": "last_messages", "last_messages": 0}},
            "truncation_strategy.last_messages",
            "must be at least 1, got 0",
        ),
        (
            {"additional_messages": [{"role": "user", "content": [{"type": "video"}]}]},
            "additional_messages[0].content[0]",
            "text, image_file, image_url",
        ),
    ],
)
def test_a_bad_parameter_is_refused_by_name_and_limit(
    fields: dict[str, Any], param: str, words: str
) -> None:
    """The error says which parameter, and what it may be."""
    with pytest.raises(InvalidParameter) as caught:
        RunCreateParams(**{"assistant_id": "asst_1", **fields})
    assert param == caught.value.param
    assert str(caught.value).startswith(param)
    assert words in str(caught.value)


def test_a_missing_assistant_is_named() -> None:
    """A required parameter that is absent is named."""
    with pytest.raises(InvalidParameter, match=r"^assistant_id is required$"):
        RunCreateParams.model_validate({})


@pytest.mark.parametrize(
    "fields",
    [
        {"instructions": ["hush-hush"]},
        {"additional_messages": [{"role": "hush-hush", "content": "hush-hush"}]},
        {"additional_messages": [{"role": "user", "content": {"hush-hush": "hush-hush"}}]},
        {"metadata": {"a": "hush-hush" * 100}},
        {"tool_choice": "hush-hush"},
    ],
)
def test_errors_never_show_contents(fields: dict[str, Any]) -> None:
    """What stood in a refused parameter is neither in the error nor in what it was raised from."""
    with pytest.raises(InvalidParameter) as caught:
        RunCreateParams(**{"assistant_id": "asst_1", **fields})
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_the_caller_has_14_metadata_pairs_and_the_stamps_come_on_top() -> None:
    """14 pairs of the caller's and both stamps fit the protocol's 16; 15 of the caller's don't."""
    pairs = {f"key{number}": "v" for number in range(14)}
    stamped = {**pairs, "runlane_run_id": "run_x", "runlane_attempt": "1"}
    assert 16 == len(RunCreateParams(assistant_id="a", metadata=stamped).body()["metadata"])
    for refused in (RunUpdateParams, lambda **f: RunCreateParams(assistant_id="a", **f)):
        with pytest.raises(InvalidParameter, match="at most 14 pairs, got 15"):
            refused(metadata={**pairs, "one": "more"})


def test_outputs_are_measured_together_in_bytes() -> None:
    """512,000 bytes of UTF-8 are too much, one byte less is not, however few the characters are."""
    half = "é" * (MAX_TOOL_OUTPUTS_BYTES // 4)
    with pytest.raises(InvalidParameter, match="less than 512000 bytes together, got 512000"):
        RunSubmitToolOutputsParams(
            tool_outputs=[ToolOutput(tool_call_id=call, output=half) for call in "ab"]
        )
    fits = [{"tool_call_id": "a", "output": half}, {"tool_call_id": "b", "output": half[:-1] + "e"}]
    assert {"tool_outputs": fits} == RunSubmitToolOutputsParams(tool_outputs=fits).body()


def test_an_empty_round_of_outputs_is_refused() -> None:
    """No request is made that submits nothing."""
    with pytest.raises(InvalidParameter, match="at least one entry"):
        RunSubmitToolOutputsParams(tool_outputs=[])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"limit": 0}, "limit must be between 1 and 100, got 0"),
        ({"limit": 101}, "limit must be between 1 and 100, got 101"),
        ({"order": "up"}, "order must be 'asc' or 'desc'"),
    ],
)
def test_list_parameters_are_held_to_their_limits(fields: dict[str, Any], words: str) -> None:
    """A page has 1 to 100 objects and one of two orders."""
    with pytest.raises(InvalidParameter, match=words):
        RunListParams(**fields)


def test_the_streaming_variants_pin_stream() -> None:
    """Streaming parameters must say so, non-streaming ones can't."""
    assert RunCreateParamsStreaming(assistant_id="a", stream=True).body()["stream"] is True
    with pytest.raises(InvalidParameter, match=r"^stream"):
        RunCreateParamsStreaming.model_validate({"assistant_id": "a", "stream": False})
    with pytest.raises(InvalidParameter, match=r"^stream"):
        RunCreateParamsNonStreaming.model_validate({"assistant_id": "a", "stream": True})


def test_parameters_live_inside_other_models() -> None:
    """A model that holds parameters keeps null and absent apart, and reports a bad one in words."""

    class Request(BaseModel):
        params: RunCreateParams

    request = Request.model_validate({"params": {"assistant_id": "a", "model": None}})
    again = Request.model_validate_json(request.model_dump_json(exclude_unset=True))
    assert {"assistant_id": "a", "model": None} == again.params.body()
    with pytest.raises(ValueError, match="temperature must be between 0 and 2, got 9"):
        Request.model_validate({"params": {"assistant_id": "a", "temperature": 9}})
