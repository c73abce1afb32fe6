"""The seed's routes of runs, asked by the official SDK."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from openai.types.beta import FunctionToolParam

from tests.api import Api, serving
from tests.lab import Lab

pytestmark = [
    pytest.mark.filterwarnings("ignore:The Assistants API is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:deprecated$:DeprecationWarning"),
]

TOOL: FunctionToolParam = {
    "type": "function",
    "function": {"name": "lookup_order", "parameters": {"type": "object"}},
}


@pytest_asyncio.fixture
async def api(lab: Lab) -> AsyncIterator[Api]:
    async with serving(lab) as served:
        yield served


async def test_a_run_with_a_tool_is_driven_by_the_sdk_as_it_stands(api: Api, lab: Lab) -> None:
    """`create_and_poll`, `submit_tool_outputs_and_poll` and `steps` end in a completed run."""
    runs = api.sdk().beta.threads.runs
    run = await runs.create_and_poll(
        thread_id=lab.thread_id, assistant_id=lab.assistant_id, tools=[TOOL]
    )
    assert "requires_action" == run.status
    assert run.required_action is not None
    [call] = run.required_action.submit_tool_outputs.tool_calls
    done = await runs.submit_tool_outputs_and_poll(
        run.id,
        thread_id=lab.thread_id,
        tool_outputs=[{"tool_call_id": call.id, "output": "shipped"}],
    )
    assert "completed" == done.status
    assert done.usage is not None
    steps = await runs.steps.list(run_id=run.id, thread_id=lab.thread_id)
    assert {run.id} == {step.run_id for step in steps.data}
