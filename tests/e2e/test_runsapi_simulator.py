"""The client against the simulator in a process of its own: a run from create to its end."""

import httpx
import pytest

from runsapi import (
    APIStatusError,
    Assistants,
    FunctionToolCall,
    RunStatus,
    ToolOutput,
    active_run_id,
    cancel_refused_status,
    is_outputs_mismatch,
    submit_refused_status,
)
from tests.simulator_process import SimulatorProcess

TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
}


async def new_id(url: str, body: dict[str, object]) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(url, json=body)
        return str(answer.raise_for_status().json()["id"])


async def test_a_run_from_create_to_its_end(simulator: SimulatorProcess) -> None:
    """Create, poll, submit in a stream, steps and list agree about one run of one tool round."""
    assistant_id = await new_id(f"{simulator.url}/assistants", {"model": "m", "tools": [TOOL]})
    thread_id = await new_id(f"{simulator.url}/threads", {})
    async with Assistants(simulator.url) as upstream:
        runs = upstream.runs
        run = await runs.create_and_poll(
            thread_id, assistant_id=assistant_id, poll_interval_ms=100, metadata={"a": "b"}
        )
        assert RunStatus.REQUIRES_ACTION == run.status
        assert {"a": "b"} == run.metadata
        [call] = run.tool_calls

        follow = runs.submit_tool_outputs_stream(
            run.id,
            thread_id=thread_id,
            tool_outputs=[ToolOutput(tool_call_id=call.id, output="42")],
        )
        assert RunStatus.COMPLETED == (await follow.get_final_run()).status
        assert [1] == [message.text.count("42") for message in await follow.get_final_messages()]

        outputs = [
            answered.function.output
            async for step in runs.steps.list(run.id, thread_id=thread_id)
            for answered in step.tool_calls
            if isinstance(answered, FunctionToolCall)
        ]
        assert ["42"] == outputs
        assert [run.id] == [listed.id async for listed in runs.list(thread_id, limit=1)]


async def test_refusals_are_told_apart(simulator: SimulatorProcess) -> None:
    """A busy thread, outputs for other calls, and an ended run are refused recognisably."""
    assistant_id = await new_id(f"{simulator.url}/assistants", {"model": "m", "tools": [TOOL]})
    thread_id = await new_id(f"{simulator.url}/threads", {})
    async with Assistants(simulator.url) as upstream:
        runs = upstream.runs
        run = await runs.create_and_poll(thread_id, assistant_id=assistant_id, poll_interval_ms=100)
        with pytest.raises(APIStatusError) as busy:
            await runs.create(thread_id, assistant_id=assistant_id)
        assert run.id == active_run_id(busy.value)

        with pytest.raises(APIStatusError) as mismatch:
            await runs.submit_tool_outputs(
                run.id, thread_id=thread_id, tool_outputs=[{"tool_call_id": "x", "output": ""}]
            )
        assert is_outputs_mismatch(mismatch.value)

        await runs.cancel(run.id, thread_id=thread_id)
        cancelled = await runs.poll(run.id, thread_id=thread_id, poll_interval_ms=100)
        assert RunStatus.CANCELLED == cancelled.status
        with pytest.raises(APIStatusError) as late:
            await runs.cancel(run.id, thread_id=thread_id)
        assert "cancelled" == cancel_refused_status(late.value)
        with pytest.raises(APIStatusError) as closed:
            await runs.submit_tool_outputs(
                run.id,
                thread_id=thread_id,
                tool_outputs=[{"tool_call_id": run.tool_calls[0].id, "output": ""}],
            )
        assert "cancelled" == submit_refused_status(closed.value)
