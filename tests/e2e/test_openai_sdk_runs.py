"""The official SDK drives the simulator: had ours alone done so, both could misread alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import openai
import pytest
from openai import AsyncOpenAI, AzureOpenAI, OpenAI
from openai.types.beta.threads import Run

from tests.simulator_process import SimulatorProcess

# The SDK marks the whole Assistants surface as deprecated; it is the surface we are about.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The Assistants API is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:deprecated$:DeprecationWarning"),
]

FAST = {"queued": 0.02, "in_progress": 0.05}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture
def client(simulator: SimulatorProcess) -> Iterator[OpenAI]:
    """The SDK as its users build it, but without retries."""
    with OpenAI(base_url=simulator.url, api_key="x", max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def assistant_id(simulator: SimulatorProcess) -> str:
    """An assistant whose runs make two calls and then report."""
    name = f"asst_{uuid4().hex}"
    calls = [
        {"name": "lookup_order", "arguments": {"order_id": "A-1042"}},
        {"name": "lookup_order", "arguments": {"order_id": "B-7"}},
    ]
    simulator.scenario(
        assistant_id=name,
        # By retrieves, so that a second submit finds it still queued however late it comes.
        rounds=[{**FAST, "calls": calls}, {"polls": 1, "says": "It is {state}."}],
    )
    return name


def outputs_for(run: Run, state: str = "sent") -> list[Any]:
    """Answer every call the run waits for."""
    assert run.required_action is not None
    calls = run.required_action.submit_tool_outputs.tool_calls
    return [{"tool_call_id": c.id, "output": json.dumps({"state": state})} for c in calls]


def test_a_run_is_created_answered_and_polled_to_its_end(client: OpenAI, assistant_id: str) -> None:
    """Create, poll, submit, poll: the run completes, and its message tells the outputs."""
    thread = client.beta.threads.create(messages=[{"role": "user", "content": "Where is it?"}])
    run = client.beta.threads.runs.create_and_poll(
        thread_id=thread.id, assistant_id=assistant_id, poll_interval_ms=20
    )

    assert run.status == "requires_action"
    assert run.usage is None
    assert run.expires_at == run.created_at + 600

    done = client.beta.threads.runs.submit_tool_outputs_and_poll(
        run_id=run.id, thread_id=thread.id, tool_outputs=outputs_for(run), poll_interval_ms=20
    )

    assert done.status == "completed"
    assert done.expires_at is None
    assert done.required_action is None
    assert done.usage is not None
    assert done.completed_at is not None
    messages = client.beta.threads.messages.list(thread.id, run_id=run.id)
    (message,) = messages.data
    assert message.content[0].type == "text"
    assert message.content[0].text.value == "It is sent."
    assert message.assistant_id == assistant_id
    assert len(client.beta.threads.messages.list(thread.id).data) == 2


async def test_the_async_client_sees_the_same(
    simulator: SimulatorProcess, assistant_id: str
) -> None:
    """With the asynchronous client the same calls give the same run."""
    async with AsyncOpenAI(base_url=simulator.url, api_key="x", max_retries=0) as sdk:
        runs = sdk.beta.threads.runs
        thread = await sdk.beta.threads.create()
        run = await runs.create_and_poll(
            thread_id=thread.id, assistant_id=assistant_id, poll_interval_ms=20
        )
        done = await runs.submit_tool_outputs_and_poll(
            run_id=run.id, thread_id=thread.id, tool_outputs=outputs_for(run), poll_interval_ms=20
        )

        assert (await runs.retrieve(run.id, thread_id=thread.id)) == done
        assert done.status == "completed"


def test_the_azure_client_sees_the_same(simulator: SimulatorProcess, assistant_id: str) -> None:
    """Azure's paths, key header and `api-version` reach the same service."""
    with AzureOpenAI(
        azure_endpoint=simulator.url.removesuffix("/v1"),
        api_version="2024-08-01-preview",
        api_key="x",
        max_retries=0,
    ) as sdk:
        run = sdk.beta.threads.create_and_run_poll(assistant_id=assistant_id, poll_interval_ms=20)

    assert run.status == "requires_action"
    (asked, *_) = simulator.requests(thread_id=run.thread_id)["data"]
    assert asked["path"] == "/openai/threads/runs"
    assert asked["query"] == {"api-version": "2024-08-01-preview"}


def test_with_no_scenario_each_declared_function_is_called_once(client: OpenAI) -> None:
    """Without a scenario the model calls what is declared, then reports the outputs."""
    assistant = client.beta.assistants.create(model="gpt-4.1", tools=[WEATHER], name="Wetter")
    run = client.beta.threads.create_and_run_poll(
        assistant_id=assistant.id,
        thread={"messages": [{"role": "user", "content": "Rain?"}]},
        poll_interval_ms=50,
    )
    assert run.required_action is not None
    (call,) = run.required_action.submit_tool_outputs.tool_calls

    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "city-1"}
    assert run.model == "gpt-4.1"

    done = client.beta.threads.runs.submit_tool_outputs_and_poll(
        run_id=run.id,
        thread_id=run.thread_id,
        tool_outputs=[{"tool_call_id": call.id, "output": "rain"}],
        poll_interval_ms=50,
    )

    assert done.status == "completed"
    (message, _) = client.beta.threads.messages.list(run.thread_id).data
    assert message.content[0].type == "text"
    assert message.content[0].text.value == "get_weather: rain"


def test_steps_show_the_outputs_once_they_are_in(client: OpenAI, assistant_id: str) -> None:
    """A function call's output is null in the step until the submit, then what was given."""
    runs = client.beta.threads.runs
    thread = client.beta.threads.create()
    run = runs.create_and_poll(thread_id=thread.id, assistant_id=assistant_id, poll_interval_ms=20)
    (step,) = runs.steps.list(run.id, thread_id=thread.id).data

    assert step.status == "in_progress"
    assert step.step_details.type == "tool_calls"
    first = step.step_details.tool_calls[0]
    assert first.type == "function"
    assert first.function.output is None

    runs.submit_tool_outputs_and_poll(
        run_id=run.id, thread_id=thread.id, tool_outputs=outputs_for(run), poll_interval_ms=20
    )
    step = runs.steps.retrieve(step.id, thread_id=thread.id, run_id=run.id)

    assert step.status == "completed"
    assert step.step_details.type == "tool_calls"
    first = step.step_details.tool_calls[0]
    assert first.type == "function"
    assert first.function.output == '{"state": "sent"}'
    newest, oldest = runs.steps.list(run.id, thread_id=thread.id).data
    assert (newest.type, oldest.id) == ("message_creation", step.id)


def test_lists_page_in_both_orders(client: OpenAI, simulator: SimulatorProcess) -> None:
    """Every run comes once and in order, newest or oldest first, however small the pages."""
    assistant = f"asst_{uuid4().hex}"
    simulator.scenario(assistant_id=assistant, queued=0, in_progress=0)
    runs = client.beta.threads.runs
    thread = client.beta.threads.create()
    made = [
        runs.create(thread_id=thread.id, assistant_id=assistant, metadata={"n": str(n)}).id
        for n in range(5)
    ]

    def pages(order: Any) -> list[str]:
        return [run.id for run in runs.list(thread.id, limit=2, order=order)]

    assert pages("asc") == made
    assert pages("desc") == made[::-1]
    page = runs.list(thread.id, before=made[1], limit=2, order="desc")
    assert [run.id for run in page.data] == [made[3], made[2]]
    assert page.has_more is True


def test_metadata_is_replaced_by_update(client: OpenAI, assistant_id: str) -> None:
    """An update replaces the metadata and nothing else."""
    thread = client.beta.threads.create()
    runs = client.beta.threads.runs
    run = runs.create(thread_id=thread.id, assistant_id=assistant_id, metadata={"a": "1"})
    updated = runs.update(run.id, thread_id=thread.id, metadata={"b": "2"})

    assert updated.metadata == {"b": "2"}
    assert updated.created_at == run.created_at


def test_a_cancelled_run_ends_cancelled(client: OpenAI, assistant_id: str) -> None:
    """Cancel answers `cancelling` at once; polling then finds `cancelled`."""
    thread = client.beta.threads.create()
    runs = client.beta.threads.runs
    run = runs.create_and_poll(thread_id=thread.id, assistant_id=assistant_id, poll_interval_ms=20)

    assert runs.cancel(run.id, thread_id=thread.id).status == "cancelling"
    assert runs.poll(run.id, thread_id=thread.id, poll_interval_ms=20).status == "cancelled"


class TestRefusals:
    """Every refusal reaches the SDK as the error class its users catch."""

    def test_a_locked_thread(self, client: OpenAI, assistant_id: str) -> None:
        """Neither a second run nor a message is taken while a run is active."""
        thread = client.beta.threads.create()
        run = client.beta.threads.runs.create(thread_id=thread.id, assistant_id=assistant_id)

        with pytest.raises(openai.BadRequestError) as second:
            client.beta.threads.runs.create(thread_id=thread.id, assistant_id=assistant_id)
        assert error_of(second.value) == {
            "message": f"Thread {thread.id} already has an active run {run.id}.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
        with pytest.raises(openai.BadRequestError) as message:
            client.beta.threads.messages.create(thread.id, role="user", content="And?")
        assert error_of(message.value)["message"] == (
            f"Can't add messages to {thread.id} while a run {run.id} is active."
        )

    def test_outputs_that_are_not_all(self, client: OpenAI, assistant_id: str) -> None:
        """A submit that lacks an output changes nothing, and a second full one is refused."""
        thread = client.beta.threads.create()
        runs = client.beta.threads.runs
        run = runs.create_and_poll(
            thread_id=thread.id, assistant_id=assistant_id, poll_interval_ms=20
        )
        both = outputs_for(run)
        ids = [part["tool_call_id"] for part in both]

        with pytest.raises(openai.BadRequestError) as partial:
            runs.submit_tool_outputs(run.id, thread_id=thread.id, tool_outputs=both[:1])
        assert error_of(partial.value)["message"] == (
            f"Expected tool outputs for call_ids ['{ids[0]}', '{ids[1]}'], got ['{ids[0]}']"
        )
        assert runs.retrieve(run.id, thread_id=thread.id).status == "requires_action"
        answered = runs.submit_tool_outputs(run.id, thread_id=thread.id, tool_outputs=both)
        assert answered.status == "queued"
        with pytest.raises(openai.BadRequestError) as again:
            runs.submit_tool_outputs(run.id, thread_id=thread.id, tool_outputs=both)
        assert error_of(again.value)["message"] == (
            'Runs in status "queued" do not accept tool outputs.'
        )

    def test_cancelling_what_has_ended(self, client: OpenAI, simulator: SimulatorProcess) -> None:
        """A run that has ended can't be cancelled, and says how it ended."""
        assistant = f"asst_{uuid4().hex}"
        simulator.scenario(assistant_id=assistant, queued=0, in_progress=0)
        thread = client.beta.threads.create()
        run = client.beta.threads.runs.create(thread_id=thread.id, assistant_id=assistant)

        with pytest.raises(openai.BadRequestError) as refused:
            client.beta.threads.runs.cancel(run.id, thread_id=thread.id)
        assert error_of(refused.value)["message"] == "Cannot cancel run with status 'completed'."

    def test_an_unknown_run(self, client: OpenAI) -> None:
        """A run that isn't there is a 404."""
        with pytest.raises(openai.NotFoundError) as missing:
            client.beta.threads.runs.retrieve("run_none", thread_id="thread_any")
        assert error_of(missing.value)["message"] == "No run found with id 'run_none'."

    @pytest.mark.parametrize(
        ("kind", "expected", "code"),
        [
            ("rate_limit", openai.RateLimitError, "rate_limit_exceeded"),
            ("quota", openai.RateLimitError, "insufficient_quota"),
            ("server_error", openai.InternalServerError, None),
            ("unauthorized", openai.AuthenticationError, "invalid_api_key"),
            ("lost_answer", openai.APIConnectionError, None),
            ("reset", openai.APIConnectionError, None),
        ],
    )
    def test_faults(
        self,
        client: OpenAI,
        simulator: SimulatorProcess,
        kind: str,
        expected: type[openai.APIError],
        code: str | None,
    ) -> None:
        """An ordered fault is the SDK's error of that sort."""
        thread_id = f"thread_{uuid4().hex}"
        simulator.fault("runs.create", kind, thread_id=thread_id, retry_after=7)
        with pytest.raises(expected) as failed:
            client.beta.threads.runs.create(thread_id=thread_id, assistant_id="asst_any")

        assert failed.value.code == code
        made = simulator.requests(thread_id=thread_id)["accepted"].get("runs.create", 0)
        assert made == (1 if kind == "lost_answer" else 0)


def error_of(error: openai.APIError) -> dict[str, Any]:
    """Return the `error` object of the body; the SDK strips the envelope."""
    assert isinstance(error.body, dict)
    return error.body
