"""Tools at work while rounds change: ids come again, rounds go and come back, histories go on."""

import asyncio
import json
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from temporalio.client import Client

from runlane.tools.context import ToolContext
from runlane.tools.functions import tool
from runlane.tools.registry import Registry
from runlane.tools.toolbox import RegisteredTools
from tests.durable.test_hostile_upstream import Clone
from tests.histories import attribute, chain_length
from tests.lab import QUICK, Lab, eventually
from tests.restless import LAST, Noise
from tests.simulator_process import SimulatorProcess
from workflows.contract import RunView

OFTEN = QUICK.model_copy(update={"look_floor": 0.3})

Serve = Callable[..., AbstractAsyncContextManager[Lab]]


class Desk:
    """Tools whose work the test lets end."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.keys: list[str] = []
        self.paid: list[int] = []
        self.go = threading.Event()
        self.held = {1}
        """The numbers whose work waits."""

        @tool(policy="auto", read_only=True)
        def look(n: int, context: ToolContext) -> str:
            """Look a number up."""
            self.asked.append(n)
            self.keys.append(context.idempotency_key)
            self._wait(n)
            return f"answer {n}"

        @tool(policy="auto")
        def pay(n: int) -> str:
            """Pay."""
            self.paid.append(n)
            self._wait(n)
            return f"paid {n}"

        @tool(policy="approve")
        def drop(n: int) -> str:
            """Drop."""
            return f"dropped {n}"

        self.tools = RegisteredTools(Registry.of(look, pay, drop))

    def _wait(self, n: int) -> None:
        if n in self.held:
            self.go.wait(60)

    async def begun(self, count: int = 1) -> None:
        """Wait until so many tools have been at work."""

        async def seen() -> int:
            return len(self.asked) + len(self.paid)

        await eventually(seen, lambda n: n >= count)


def ask(name: str, n: int, call_id: str = "call_0") -> tuple[str, str, str]:
    return call_id, name, json.dumps({"n": n})


@pytest.fixture
def serve(client: Client, simulator: SimulatorProcess) -> Serve:
    """Serve a lab whose upstream is the clone, and whose worker has the desk's tools."""

    @asynccontextmanager
    async def served(clone: Clone, desk: Desk) -> Any:
        lab = Lab(client, simulator)
        http = httpx.AsyncClient(transport=httpx.MockTransport(clone))
        async with lab.worker(
            upstream_url="http://clone/v1", http_client=http, tools=desk.tools, workers=1
        ):
            yield lab

    return served


async def test_an_id_that_comes_again_is_another_call(serve: Serve) -> None:
    """It runs, with another key, and so does an equal call of a later round."""
    desk = Desk()
    desk.held = set()
    clone = Clone([ask("look", 1)], [ask("look", 2)], [ask("look", 1)])
    async with serve(clone, desk) as lab:
        run = await lab.start(with_tools=True)
        result = await run.result()

    assert "completed" == result.run.status
    assert [{"call_0": f"answer {n}"} for n in (1, 2, 1)] == clone.submitted
    assert [1, 2, 1] == desk.asked
    assert 3 == len(set(desk.keys))


@pytest.mark.parametrize("then", ["look", "drop"])
async def test_what_a_tool_gives_is_no_answer_to_another_call(serve: Serve, then: str) -> None:
    """Somebody else answered the round; under the same id the next one asks otherwise."""
    desk = Desk()
    clone = Clone([ask("look", 1)], [ask(then, 2)])

    def is_next(view: RunView) -> bool:
        return view.runlane.rounds == 2 and (then == "look" or bool(view.runlane.pending))

    async with serve(clone, desk) as lab:
        run = await lab.start(with_tools=True, timing=OFTEN)
        await desk.begun()
        clone.ask(clone.runs[0])
        await run.until(is_next)
        desk.go.set()
        if then == "drop":
            # Nothing says that an output is not coming.
            await asyncio.sleep(0.5)
            await run.cancel()
        await run.result()

    assert ([{"call_0": "answer 2"}] if then == "look" else []) == clone.submitted


@pytest.mark.parametrize("name", ["look", "pay"])
async def test_a_round_that_comes_back_is_answered(serve: Serve, name: str) -> None:
    """A replica lags. What may change something has gone on meanwhile, and isn't run again."""
    desk = Desk()
    clone = Clone([ask(name, 1)])
    async with serve(clone, desk) as lab:
        run = await lab.start(with_tools=True, timing=OFTEN)
        await desk.begun()
        up = clone.runs[0]
        there = dict(up)
        up |= {"status": "in_progress", "required_action": None}
        await run.until(lambda view: view.runlane.upstream_status == "in_progress")
        desk.go.set()
        if name == "pay":
            await run.until(lambda view: bool(view.runlane.answers))
        up |= there
        result = await run.result()

    assert "completed" == result.run.status
    assert [{"call_0": "answer 1" if name == "look" else "paid 1"}] == clone.submitted
    assert ([1, 1] if name == "look" else []) == desk.asked
    assert ([1] if name == "pay" else []) == desk.paid


async def test_a_call_that_the_workers_hand_back_is_shown(serve: Serve) -> None:
    """Also in lists: a name that no worker has is the caller's."""
    clone = Clone([ask("unheard_of", 1)])
    async with serve(clone, Desk()) as lab:
        run = await lab.start(with_tools=True)
        await run.until_status("requires_action")

        async def listed() -> str | None:
            return await attribute(run, "RunlaneStatus")

        await eventually(listed, lambda status: status == "requires_action")
        await run.cancel()
        await run.result()


async def test_a_run_that_ends_waits_for_what_may_change_something(serve: Serve) -> None:
    """The upstream has moved on; what the tool did is known all the same."""
    desk = Desk()
    clone = Clone([ask("pay", 1)])
    async with serve(clone, desk) as lab:
        run = await lab.start(with_tools=True, timing=OFTEN)
        await desk.begun()
        clone.ask(clone.runs[0])
        view = await run.until(lambda view: view.runlane.upstream_status == "completed")
        assert ("in_progress", ["pay"]) == (view.run.status, [t.name for t in view.runlane.running])
        desk.go.set()
        result = await run.result()

    assert ("completed", None) == (result.run.status, result.runlane.uncertain)
    assert [("tool:pay", "overtaken")] == [(a.by, a.outcome) for a in result.runlane.answers]


async def test_a_run_that_cannot_wait_longer_says_so(serve: Serve) -> None:
    """It ends, and names the call of which nobody knows what it did."""
    desk = Desk()
    clone = Clone([ask("pay", 1)])
    timing = OFTEN.model_copy(update={"cancel_for": 1.0})
    async with serve(clone, desk) as lab:
        run = await lab.start(with_tools=True, timing=timing)
        await desk.begun()
        await run.cancel()
        result = await run.result()
        desk.go.set()

    assert "cancelled" == result.run.status
    assert "pay did for the call call_0 is not known" in str(result.runlane.uncertain)


@pytest.mark.parametrize("name", ["look", "pay"])
async def test_a_history_goes_on_while_tools_run(
    restless: Client, simulator: SimulatorProcess, name: str
) -> None:
    """What only reads is run again in the next one; for what may change something it waits."""
    desk = Desk()
    lab = Lab(restless, simulator)
    calls = [{"name": name, "arguments": {"n": 1}}, {"name": name, "arguments": {"n": 2}}]
    await lab.scenario(rounds=[{"queued": 0.02, "in_progress": 0.02, "calls": calls}, LAST])
    async with lab.worker(tools=desk.tools):
        run = await lab.start(with_tools=True)
        await desk.begun(2)
        noise = Noise(run)
        since = await chain_length(restless, run)
        if name == "look":
            await noise.until_continued(lab)
        else:
            for _ in range(20):
                await noise.send()
                # Answered once the signal has been taken.
                await run.view()
        before = await chain_length(restless, run)
        desk.go.set()
        result = await run.result()

    assert "completed" == result.run.status
    assert {"tool:" + name} == {answer.by for answer in result.runlane.answers}
    assert (before == since) == (name == "pay")
    if name == "pay":
        assert [1, 2] == sorted(desk.paid)
        assert before < await chain_length(restless, run)
