"""The API is killed in the middle of what the official SDK does, and the SDK goes on with it.

The SDK tries again by itself; nothing is done twice by that.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.types.beta import FunctionToolParam
from openai.types.beta.threads import Run

from tests.processes import ApiProcess, Plant

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The Assistants API is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:deprecated$:DeprecationWarning"),
]

TOOL: FunctionToolParam = {
    "type": "function",
    "function": {"name": "lookup_order", "parameters": {"type": "object"}},
}
CREATE, SUBMIT = "runs.create", "runs.submit_tool_outputs"

_T = TypeVar("_T")


@pytest_asyncio.fixture
async def api(plant: Plant) -> AsyncIterator[ApiProcess]:
    await plant.worker()
    yield await plant.api()


@pytest_asyncio.fixture
async def sdk(api: ApiProcess) -> AsyncIterator[AsyncOpenAI]:
    """The client with more patience than by default: a program takes seconds to start."""
    async with AsyncOpenAI(base_url=api.url, api_key="none", max_retries=8) as client:
        yield client


async def _through_a_kill(api: ApiProcess, doing: Awaitable[_T], *, after: float) -> _T:
    """Kill the API so many seconds into what is being done, and start it again."""
    task = asyncio.ensure_future(doing)
    await asyncio.sleep(after)
    await api.kill()
    await api.start()
    return await asyncio.wait_for(task, 60)


def _outputs(run: Run) -> list[Any]:
    assert run.required_action is not None
    calls = run.required_action.submit_tool_outputs.tool_calls
    return [{"tool_call_id": call.id, "output": "shipped"} for call in calls]


@pytest.mark.parametrize("after", [0.0, 0.05, 0.3])
async def test_create_and_poll(
    plant: Plant, api: ApiProcess, sdk: AsyncOpenAI, after: float
) -> None:
    """One run comes of it, whenever the API dies, for it lives when the SDK asks again."""
    lab, runs = plant.lab, sdk.beta.threads.runs

    asking = await _through_a_kill(
        api,
        runs.create_and_poll(thread_id=lab.thread_id, assistant_id=lab.assistant_id, tools=[TOOL]),
        after=after,
    )

    assert "requires_action" == asking.status
    assert 1 == await lab.accepted(CREATE)
    assert [asking.id] == [run.id async for run in runs.list(thread_id=lab.thread_id)]


async def test_a_key_names_a_run_that_has_ended_meanwhile(
    plant: Plant, api: ApiProcess, sdk: AsyncOpenAI
) -> None:
    """Without one, whoever asks again after the run's end would begin another."""
    lab, runs = plant.lab, sdk.beta.threads.runs
    await lab.scenario(rounds=[{"queued": 0, "in_progress": 0, "says": "Done."}])

    ended = await _through_a_kill(
        api,
        runs.create_and_poll(
            thread_id=lab.thread_id,
            assistant_id=lab.assistant_id,
            extra_headers={"Idempotency-Key": lab.thread_id},
        ),
        after=0.3,
    )

    assert "completed" == ended.status
    assert 1 == await lab.accepted(CREATE)


@pytest.mark.parametrize("after", [0.0, 0.05, 0.3])
async def test_submit_tool_outputs_and_poll(
    plant: Plant, api: ApiProcess, sdk: AsyncOpenAI, after: float
) -> None:
    """The outputs are submitted once, whenever the API dies."""
    lab, runs = plant.lab, sdk.beta.threads.runs
    asking = await runs.create_and_poll(
        thread_id=lab.thread_id, assistant_id=lab.assistant_id, tools=[TOOL]
    )
    assert "requires_action" == asking.status

    ended = await _through_a_kill(
        api,
        runs.submit_tool_outputs_and_poll(
            run_id=asking.id, thread_id=lab.thread_id, tool_outputs=_outputs(asking)
        ),
        after=after,
    )

    assert "completed" == ended.status
    assert 1 == await lab.accepted(SUBMIT)


async def test_paging_and_steps(plant: Plant, api: ApiProcess, sdk: AsyncOpenAI) -> None:
    """What only reads goes on where it was."""
    lab, runs = plant.lab, sdk.beta.threads.runs
    made = [
        (await runs.create_and_poll(thread_id=lab.thread_id, assistant_id=lab.assistant_id)).id
        for _ in range(4)
    ]

    async def listed() -> list[str]:
        found = []
        async for run in runs.list(thread_id=lab.thread_id, limit=1, order="asc"):
            found.append(run.id)
            steps = await runs.steps.list(run_id=run.id, thread_id=lab.thread_id)
            assert steps.data
            await asyncio.sleep(0.1)
        return found

    assert made == await _through_a_kill(api, listed(), after=0.25)


async def test_two_apis_know_the_same(plant: Plant, api: ApiProcess, sdk: AsyncOpenAI) -> None:
    """What one has begun the other one answers, reads and ends."""
    lab = plant.lab
    other = await plant.api()
    async with AsyncOpenAI(base_url=other.url, api_key="none", max_retries=0) as second:
        created = await sdk.beta.threads.runs.create(
            thread_id=lab.thread_id, assistant_id=lab.assistant_id, tools=[TOOL]
        )
        asking = await second.beta.threads.runs.poll(run_id=created.id, thread_id=lab.thread_id)
        ended = await second.beta.threads.runs.submit_tool_outputs_and_poll(
            run_id=asking.id, thread_id=lab.thread_id, tool_outputs=_outputs(asking)
        )
    assert (created.id, "completed") == (ended.id, ended.status)
    seen = await sdk.beta.threads.runs.retrieve(run_id=created.id, thread_id=lab.thread_id)
    assert ended.model_dump() == seen.model_dump()
