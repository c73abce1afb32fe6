"""Everything the SDK's runs module exports exists here by its name."""

import inspect

import pytest

import runsapi

EXPORTS = [
    "Runs",
    "RequiredActionFunctionToolCall",
    "Run",
    "RunStatus",
    "RunsPage",
    "RunCreateParams",
    "RunCreateParamsBase",
    "RunCreateParamsNonStreaming",
    "RunCreateParamsStreaming",
    "RunUpdateParams",
    "RunListParams",
    "RunCreateAndPollParams",
    "RunCreateAndStreamParams",
    "RunStreamParams",
    "RunSubmitToolOutputsParams",
    "RunSubmitToolOutputsParamsBase",
    "RunSubmitToolOutputsParamsNonStreaming",
    "RunSubmitToolOutputsParamsStreaming",
    "RunSubmitToolOutputsAndPollParams",
    "RunSubmitToolOutputsStreamParams",
    "Steps",
    "CodeInterpreterLogs",
    "CodeInterpreterOutputImage",
    "CodeInterpreterToolCall",
    "CodeInterpreterToolCallDelta",
    "FileSearchToolCall",
    "FileSearchToolCallDelta",
    "FunctionToolCall",
    "FunctionToolCallDelta",
    "MessageCreationStepDetails",
    "RunStep",
    "RunStepDelta",
    "RunStepDeltaEvent",
    "RunStepDeltaMessageDelta",
    "RunStepInclude",
    "ToolCall",
    "ToolCallDelta",
    "ToolCallDeltaObject",
    "ToolCallsStepDetails",
    "RunStepsPage",
    "StepRetrieveParams",
    "StepListParams",
]

METHODS = [
    "create",
    "retrieve",
    "update",
    "list",
    "cancel",
    "create_and_poll",
    "create_and_stream",
    "poll",
    "stream",
    "submit_tool_outputs",
    "submit_tool_outputs_and_poll",
    "submit_tool_outputs_stream",
]


@pytest.mark.parametrize("name", EXPORTS)
def test_every_exported_type_exists(name: str) -> None:
    """A type of the SDK's runs module can be imported from `runsapi` by the same name."""
    assert hasattr(runsapi, name)
    assert name in runsapi.__all__


@pytest.mark.parametrize("name", METHODS)
def test_every_method_exists(name: str) -> None:
    """A method of the SDK's `Runs` exists on ours, in Python's spelling."""
    assert inspect.isfunction(getattr(runsapi.Runs, name))


@pytest.mark.parametrize("name", ["retrieve", "list"])
def test_every_step_method_exists(name: str) -> None:
    """A method of the SDK's `Steps` exists on ours."""
    assert inspect.isfunction(getattr(runsapi.Steps, name))


def test_all_names_what_there_is() -> None:
    """`__all__` is sorted, without doubles, and every name in it exists."""
    assert sorted(set(runsapi.__all__)) == sorted(runsapi.__all__)
    assert [] == [name for name in runsapi.__all__ if not hasattr(runsapi, name)]


def test_the_nine_statuses() -> None:
    """The statuses are the protocol's nine, and every one but the pause is in exactly one set."""
    nine = {
        *("queued", "in_progress", "requires_action", "cancelling", "cancelled"),
        *("failed", "completed", "incomplete", "expired"),
    }
    assert nine == {str(status) for status in runsapi.RunStatus}
    assert not runsapi.INTERMEDIATE & runsapi.TERMINAL
    assert nine - (runsapi.INTERMEDIATE | runsapi.TERMINAL) == {"requires_action"}
