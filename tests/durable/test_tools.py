"""Tools that the worker runs: those that only read and need nobody. All others wait as ever."""

import asyncio
import threading
from typing import Any

import pytest
from temporalio.client import Client

from runlane.tools.functions import tool
from runlane.tools.registry import Registry
from runlane.tools.toolbox import RegisteredTools
from tests.histories import undisturbed
from tests.lab import QUICK, Lab, LabRun, eventually
from tests.simulator_process import SimulatorProcess

EVENTS = 46
"""Of a run with one round that a tool answers."""
SELDOM = QUICK.model_copy(update={"look_floor": 60.0})
"""A busy machine takes so long that the upstream would be looked at meanwhile."""


class Shop:
    """Tools of a test's own, and what was done with them."""

    def __init__(self) -> None:
        self.looked: list[str] = []
        self.refunded: list[str] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.fails = 0

        @tool(policy="auto", read_only=True, retries=1)
        async def look_up(order_id: str) -> str:
            """Look an order up."""
            self.looked.append(order_id)
            while not self.may_answer.is_set():
                await asyncio.sleep(0.01)
            if self.fails:
                self.fails -= 1
                raise ConnectionError("the secret word")
            return f"{order_id} has shipped"

        @tool(policy="auto")
        async def refund(order_id: str) -> str:
            """Pay an order back."""
            self.refunded.append(order_id)
            return "paid"

        @tool(policy="approve", read_only=True)
        async def read_file(path: str) -> str:
            """Read a customer's file."""
            return path

        self.tools = RegisteredTools(Registry.of(look_up, refund, read_file))


@pytest.fixture
def lab(client: Client, simulator: SimulatorProcess) -> Lab:
    """A lab that the test serves itself."""
    return Lab(client, simulator)


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


async def events(run: LabRun) -> list[Any]:
    return list((await run.handle.fetch_history()).events)


async def test_a_tool_that_only_reads_is_answered_by_the_worker(lab: Lab) -> None:
    """Nobody submits, and the run goes on to its end."""
    shop = Shop()
    await lab.scenario(rounds=[{"calls": [call("look_up", order_id="A-1")]}, {"says": "Done."}])
    async with lab.worker(tools=shop.tools):
        run = await lab.start(with_tools=True, timing=SELDOM)
        result = await run.result()

    assert result.run.status == "completed"
    assert shop.looked == ["A-1"]
    assert [(a.by, a.outcome) for a in result.runlane.answers] == [("tool:look_up", "submitted")]
    assert len(undisturbed(await events(run))) == EVENTS


async def test_each_call_is_answered_by_whom_it_needs(lab: Lab) -> None:
    """Side by side in one round: the worker's, a person's, the caller's."""
    shop = Shop()
    calls = [
        call("refund", order_id="A-1"),
        call("read_file", path="x"),
        call("look_up", order_id="A-1"),
        call("unheard_of"),
    ]
    await lab.scenario(rounds=[{"calls": calls}, {"says": "Done."}])
    async with lab.worker(tools=shop.tools):
        run = await lab.start(with_tools=True)
        view = await run.until(lambda view: len(view.runlane.answers) == 2)
        waiting = {each.name: each.tool_call_id for each in view.runlane.pending}
        assert waiting.keys() == {"read_file", "unheard_of"}
        assert ["accepted"] == await run.submit((waiting["unheard_of"], "ok"))
        assert ["held"] == await run.submit((waiting["read_file"], "ok"))
        view = await run.view()
        await run.cancel()
        await run.result()

    assert "requires_action" == view.run.status
    assert ["A-1"] == shop.refunded


async def test_a_run_without_tools_is_left_to_its_caller(lab: Lab) -> None:
    """A worker's tools are no concern of a run that wasn't created with them."""
    shop = Shop()
    await lab.scenario(rounds=[{"calls": [call("look_up", order_id="A-1")]}, {"says": "Done."}])
    async with lab.worker(tools=shop.tools):
        run = await lab.start()
        view = await run.until_status("requires_action")
        await run.submit((view.runlane.pending[0].tool_call_id, "ok"))
        await run.result()

    assert shop.looked == []


async def test_arguments_that_do_not_fit_go_back_to_the_model(lab: Lab) -> None:
    """Whatever the tool's policy: it never ran, and the model can mend its call."""
    shop = Shop()
    await lab.scenario(rounds=[{"calls": [call("refund", order="A-1")]}, {"says": "Sorry."}])
    async with lab.worker(tools=shop.tools):
        run = await lab.start(with_tools=True)
        result = await run.result()

    assert result.run.status == "completed"
    assert shop.refunded == []
    journal = await asyncio.to_thread(lambda: lab.simulator.requests(thread_id=lab.thread_id))
    (submit,) = [e for e in journal["data"] if e["operation"] == "runs.submit_tool_outputs"]
    assert "order_id" in submit["body"]["tool_outputs"][0]["output"]


async def test_a_tool_that_fails_is_tried_again_and_then_answered(lab: Lab) -> None:
    """As often as its options say; the model learns the error's class and nothing else."""
    shop = Shop()
    shop.fails = 3
    rounds = [{"calls": [call("look_up", order_id=each)]} for each in ("A-1", "A-2")]
    await lab.scenario(rounds=[*rounds, {"says": "Done."}])
    async with lab.worker(tools=shop.tools):
        run = await lab.start(with_tools=True)
        result = await run.result()

    assert result.run.status == "completed"
    assert shop.looked == ["A-1", "A-1", "A-2", "A-2"]
    journal = await asyncio.to_thread(lambda: lab.simulator.requests(thread_id=lab.thread_id))
    submits = [e for e in journal["data"] if e["operation"] == "runs.submit_tool_outputs"]
    outputs = [submit["body"]["tool_outputs"][0]["output"] for submit in submits]
    assert outputs == ["The tool look_up failed: ConnectionError.", "A-2 has shipped"]


async def test_a_cancel_does_not_wait_for_a_tool(lab: Lab) -> None:
    """What only reads is given up."""
    shop = Shop()
    shop.may_answer.clear()
    await lab.scenario(rounds=[{"calls": [call("look_up", order_id="A-1")]}])
    async with lab.worker(tools=shop.tools):
        run = await lab.start(with_tools=True)
        await eventually(lambda: _looked(shop), bool)
        await run.cancel()
        result = await run.result()
        shop.may_answer.set()

    assert result.run.status == "cancelled"


async def _looked(shop: Shop) -> int:
    return len(shop.looked)
