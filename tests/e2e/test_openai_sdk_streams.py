"""The official SDK's event handlers accept the simulator's streams, event by event."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from openai import AssistantEventHandler, OpenAI
from openai.types.beta import AssistantStreamEvent
from openai.types.beta.threads import Message, Run, Text
from openai.types.beta.threads.runs import ToolCall

from tests.simulator_process import SimulatorProcess

# The SDK marks the whole Assistants surface as deprecated; it is the surface we are about.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The Assistants API is deprecated:DeprecationWarning"
)

FAST = {"queued": 0.02, "in_progress": 0.05}


class Recorder(AssistantEventHandler):
    """Keeps what the SDK's handler is told."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.texts: list[str] = []
        self.calls: list[ToolCall] = []
        self.messages: list[Message] = []

    def on_event(self, event: AssistantStreamEvent) -> None:
        self.names.append(event.event)

    def on_text_done(self, text: Text) -> None:
        self.texts.append(text.value)

    def on_tool_call_done(self, tool_call: ToolCall) -> None:
        self.calls.append(tool_call)

    def on_message_done(self, message: Message) -> None:
        self.messages.append(message)


@pytest.fixture
def client(simulator: SimulatorProcess) -> Iterator[OpenAI]:
    """The SDK as its users build it, but without retries."""
    with OpenAI(base_url=simulator.url, api_key="x", max_retries=0) as sdk:
        yield sdk


def assistant_with(simulator: SimulatorProcess, *rounds: dict[str, Any]) -> str:
    """Register a scenario under an assistant id of its own, and return the id."""
    name = f"asst_{uuid4().hex}"
    simulator.scenario(assistant_id=name, **FAST, rounds=list(rounds))
    return name


def test_a_stream_tells_the_run_from_created_to_done(
    client: OpenAI, simulator: SimulatorProcess
) -> None:
    """The events come in the protocol's order, and the deltas add up to the message."""
    assistant = assistant_with(simulator, {"says": "All is well."})
    thread = client.beta.threads.create()
    told = Recorder()
    with client.beta.threads.runs.stream(
        thread_id=thread.id, assistant_id=assistant, event_handler=told
    ) as stream:
        stream.until_done()

    assert told.names == [
        "thread.run.created",
        "thread.run.queued",
        "thread.run.in_progress",
        "thread.run.step.created",
        "thread.run.step.in_progress",
        "thread.message.created",
        "thread.message.in_progress",
        "thread.message.delta",
        "thread.message.delta",
        "thread.message.delta",
        "thread.message.completed",
        "thread.run.step.completed",
        "thread.run.completed",
    ]
    assert told.texts == ["All is well."]
    assert [m.content[0].type for m in told.messages] == ["text"]


def test_a_stream_ends_at_requires_action_and_outputs_open_a_new_one(
    client: OpenAI, simulator: SimulatorProcess
) -> None:
    """The first stream ends with the calls; the second begins with their step completed."""
    assistant = assistant_with(
        simulator,
        {"calls": [{"name": "add", "arguments": {"a": 1}}, {"name": "add", "arguments": {}}]},
        {"says": "Sum: {outputs}"},
    )
    thread = client.beta.threads.create()
    asked = Recorder()
    with client.beta.threads.runs.stream(
        thread_id=thread.id, assistant_id=assistant, event_handler=asked
    ) as stream:
        stream.until_done()
        run = stream.current_run

    assert run is not None
    assert run.status == "requires_action"
    assert asked.names[-1] == "thread.run.requires_action"
    assert [call.function.name for call in asked.calls if call.type == "function"] == ["add"] * 2
    assert run.required_action is not None
    calls = run.required_action.submit_tool_outputs.tool_calls
    told = Recorder()
    with client.beta.threads.runs.submit_tool_outputs_stream(
        run_id=run.id,
        thread_id=thread.id,
        tool_outputs=[{"tool_call_id": call.id, "output": str(n)} for n, call in enumerate(calls)],
        event_handler=told,
    ) as stream:
        final = stream.get_final_run()

    assert final.status == "completed"
    assert told.names[:3] == [
        "thread.run.step.completed",
        "thread.run.queued",
        "thread.run.in_progress",
    ]
    assert "thread.run.created" not in told.names
    assert told.texts == ["Sum: 0; 1"]


@pytest.mark.parametrize("ends", ["failed", "incomplete", "expired", "cancelled"])
def test_a_stream_ends_however_the_run_ends(
    client: OpenAI, simulator: SimulatorProcess, ends: str
) -> None:
    """Each way to end is the last event of the stream."""
    assistant = assistant_with(simulator, {"ends": ends})
    thread = client.beta.threads.create()
    told = Recorder()
    with client.beta.threads.runs.stream(
        thread_id=thread.id, assistant_id=assistant, event_handler=told
    ) as stream:
        stream.until_done()

    assert told.names[-1] == f"thread.run.{ends}"


def test_a_thread_and_its_run_are_streamed_together(
    client: OpenAI, simulator: SimulatorProcess
) -> None:
    """`create_and_run` tells of the thread first."""
    assistant = assistant_with(simulator, {"says": "Hello."})
    told = Recorder()
    with client.beta.threads.create_and_run_stream(
        assistant_id=assistant, event_handler=told
    ) as stream:
        stream.until_done()

    assert told.names[:2] == ["thread.created", "thread.run.created"]
    assert told.texts == ["Hello."]


def test_dropping_a_stream_does_not_cancel_the_run(
    client: OpenAI, simulator: SimulatorProcess
) -> None:
    """A reader that goes away leaves the run to complete."""
    assistant = assistant_with(simulator, {"says": "Done all the same."})
    thread = client.beta.threads.create()
    run: Run | None = None
    with client.beta.threads.runs.create(
        thread_id=thread.id, assistant_id=assistant, stream=True
    ) as stream:
        for event in stream:
            if event.event == "thread.run.created":
                run = event.data
                break

    assert run is not None
    done = client.beta.threads.runs.poll(run.id, thread_id=thread.id, poll_interval_ms=20)
    assert done.status == "completed"


def test_what_the_model_calls_reaches_the_handler_whole(
    client: OpenAI, simulator: SimulatorProcess
) -> None:
    """Arguments put together from deltas are those of `required_action`."""
    wanted = {"order_id": "Ä-1042", "items": [1, 2]}
    assistant = assistant_with(simulator, {"calls": [{"name": "order", "arguments": wanted}]})
    thread = client.beta.threads.create()
    told = Recorder()
    with client.beta.threads.runs.stream(
        thread_id=thread.id, assistant_id=assistant, event_handler=told
    ) as stream:
        stream.until_done()
    (call,) = told.calls

    assert call.type == "function"
    assert json.loads(call.function.arguments) == wanted
