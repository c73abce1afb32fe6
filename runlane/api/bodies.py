"""What the routes of runs are sent and answer with, as the OpenAPI document describes it.

The bodies are described loosely here and checked in full where every face's are, by
`runlane.requests` and `runlane.receipts`.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from runlane.api.plain import Plain
from runsapi import Run, RunStep


class _Body(Plain):
    model_config = ConfigDict(extra="allow")


class RunlaneOptions(BaseModel):
    """What a run may be told beyond the protocol: SDKs send it as `extra_body`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    with_tools: StrictBool = Field(
        default=False, description="Add the tools that this server knows; workers answer them."
    )
    poll_interval_ms: StrictInt | None = Field(
        default=None, description="Between two looks at the upstream run."
    )
    on_expiry: Literal["recreate", "fail"] = "recreate"
    deadline: float | None = Field(default=None, description="Seconds; default: 90 days.")
    max_rounds: StrictInt = 50


class RunCreate(_Body):
    """The protocol's create body."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"assistant_id": "asst_orders"}]},
    )

    assistant_id: StrictStr = Field(min_length=1, max_length=255)
    stream: StrictBool | None = None
    metadata: dict[str, str] | None = None
    tools: list[dict[str, Any]] | None = Field(default=None, max_length=20)
    instructions: str | None = None
    runlane: RunlaneOptions | None = None


class ThreadRunCreate(RunCreate):
    """The protocol's body for a thread and a run on it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "assistant_id": "asst_orders",
                    "thread": {"messages": [{"role": "user", "content": "Where is my order?"}]},
                }
            ]
        }
    )

    thread: dict[str, Any] | None = None
    tool_resources: dict[str, Any] | None = None

    def new_thread(self) -> dict[str, Any]:
        """Return the body of the thread: its tools have the resources, a run has none."""
        resources = self.tool_resources
        return {
            **({} if resources is None else {"tool_resources": resources}),
            **(self.thread or {}),
        }


class RunUpdate(_Body):
    """The protocol's update body: the run's metadata is replaced."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"metadata": {"ticket": "7"}}]})

    metadata: dict[str, str] | None = None


class ToolOutput(_Body):
    """The output of one tool call."""

    tool_call_id: StrictStr = ""
    output: StrictStr = ""


class ToolOutputsSubmit(_Body):
    """The protocol's submit body: all outputs that are asked for, in one request."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"tool_outputs": [{"tool_call_id": "call_1", "output": "It has shipped."}]}
            ]
        }
    )

    tool_outputs: list[ToolOutput]
    stream: StrictBool | None = None


class RunPage(BaseModel):
    """A page of runs."""

    object: Literal["list"] = "list"
    data: list[Run]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool


class StepPage(BaseModel):
    """A page of a run's steps."""

    object: Literal["list"] = "list"
    data: list[RunStep]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool
