"""Registered tools, handed to a run from the shell and from Python; the upstream gets to see them.

The simulator calls each declared function once, with arguments that it makes from the schema.
"""

import json

import pytest
from temporalio.client import Client

import runlane
from runlane import Registry, Runlane, ToolContext
from runlane.settings import Settings
from runlane.tools.answer import AnswerKind
from tests.e2e.test_cli import Shell, bare, shell
from tests.lab import Lab
from tests.simulator_process import SimulatorProcess

__all__ = ["bare", "shell"]

MODULE = '''
import runlane

@runlane.tool(policy="auto", read_only=True)
def lookup_order(order_id: str, lines: int = 3) -> dict:
    """Look an order up.

    Args:
        order_id: The number on the invoice.
    """
    return {"order": order_id}
'''

pytestmark = pytest.mark.slow


async def test_a_run_is_created_with_the_registered_tools(shell: Shell) -> None:
    """A run calls one of them; a person answers, for no worker runs tools yet."""
    (shell.directory / "shop.py").write_text(MODULE)
    shell.environ["RUNLANE_TOOLS"] = "shop"
    run_id = await shell.create("--with-tools", tools=False)
    waits = await shell("poll", run_id, "--json", code=4)
    (call,) = waits.document["runlane"]["pending"]
    await shell("submit", run_id, f"{call['tool_call_id']}=shipped", "--wait", code=0)

    (handed,) = waits.document["tools"]
    assert "lookup_order" == handed["function"]["name"]
    handed_order_id = handed["function"]["parameters"]["properties"]["order_id"]
    assert {"type": "string", "description": "The number on the invoice."} == handed_order_id
    assert "lookup_order" == call["name"]
    assert isinstance(json.loads(call["arguments"])["order_id"], str)


async def test_a_call_fits_the_tool_that_was_handed_over(
    client: Client, simulator: SimulatorProcess
) -> None:
    """From Python: what the upstream asks for can be invoked, and its output be submitted."""

    @runlane.tool(policy="auto")
    def lookup_order(order_id: str, context: ToolContext, lines: int = 3) -> list[str]:
        """Look an order up."""
        return [context.call_id, type(order_id).__name__, type(lines).__name__]

    registry = Registry.of(lookup_order)
    lab = Lab(client, simulator)
    settings = Settings(task_queue=lab.task_queue, upstream_url=simulator.url)
    runs = Runlane(client, settings).runs
    async with lab.worker():
        run = await runs.create(lab.thread_id, assistant_id=lab.assistant_id, with_tools=registry)
        (call,) = (await runs.poll(run.id, timeout=60)).tool_calls
        context = ToolContext(run_id=run.id, call_id=call.id, idempotency_key="k")
        answer = await registry.invoke(call.function.name, call.function.arguments, context)
        outputs = [{"tool_call_id": call.id, "output": answer.output}]
        done = await runs.submit_tool_outputs_and_poll(run.id, tool_outputs=outputs, timeout=60)

    assert AnswerKind.RETURNED == answer.kind
    assert [call.id, "str", "int"] == json.loads(answer.output)
    assert "completed" == done.status
