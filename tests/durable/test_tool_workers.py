"""Workers that are busy with tools, still judging calls, or told to stop while tools run."""

import asyncio
import threading
from typing import Any

import pytest
from temporalio.client import Client

import worker
from runlane.tools.context import ToolContext
from runlane.tools.functions import tool
from runlane.tools.registry import Registry
from runlane.tools.toolbox import RegisteredTools
from tests.clerk import undecided, waiting
from tests.lab import Lab, LabRun, eventually
from tests.simulator_process import SimulatorProcess
from tests.till import submitted


class Mill:
    """Tools whose judging and whose work the test lets end."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.keys: list[str] = []
        self.may_end = threading.Event()
        self.may_judge = threading.Event()
        self.may_judge.set()

        def judged(_: Any) -> str:
            # Longer than any wait of a test, and less than a policy has.
            self.may_judge.wait(15)
            return "approve"

        @tool(policy="auto")
        def grind(context: ToolContext) -> str:
            """Grind, as often as it is asked to."""
            self._begin("grind", context)
            return "ground"

        @tool(policy="auto", at_most_once=True)
        def sift(context: ToolContext) -> str:
            """Sift; nobody can do that twice."""
            self._begin("sift", context)
            return "sifted"

        @tool(policy=judged)
        def sell() -> str:
            """Sell."""
            return "sold"

        self.tools = RegisteredTools(Registry.of(grind, sift, sell))

    def _begin(self, what: str, context: ToolContext) -> None:
        self.did.append(what)
        self.keys.append(context.idempotency_key)
        self.may_end.wait(60)

    async def begun(self, count: int) -> None:
        """Wait until so many are at work."""

        async def did() -> int:
            return len(self.did)

        await eventually(did, lambda n: n >= count)


@pytest.fixture
def lab(client: Client, simulator: SimulatorProcess) -> Lab:
    """A lab that the test serves itself."""
    return Lab(client, simulator)


async def asking(lab: Lab, *names: str, thread: str = "") -> LabRun:
    """Start a run, on a thread of its own, that asks for tools."""
    calls = [{"name": name, "arguments": {}} for name in names]
    await lab.scenario(rounds=[{"queued": 0.02, "in_progress": 0.02, "calls": calls}, {}])
    return await lab.start(with_tools=True, thread_id=lab.thread_id + thread)


async def test_running_tools_hold_up_nobody_who_asks_for_people(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who answers a call is said although all slots for tools are taken."""
    monkeypatch.setattr(worker, "MAX_TOOLS", 1)
    mill = Mill()
    async with lab.worker(tools=mill.tools, workers=1):
        first = await asking(lab, "grind")
        await mill.begun(1)
        second = await asking(lab, "sell", thread="_2")
        assert "sell" == (await waiting(second)).name
        assert "in_progress" == (await first.view()).run.status
        await second.cancel()
        await second.result()
        mill.may_end.set()
        assert "completed" == (await first.result()).run.status


async def test_an_answer_comes_before_anybody_knows_whose_it_is(lab: Lab) -> None:
    """It is the caller's own call's answer, and none to what a person must decide."""
    mill = Mill()
    mill.may_judge.clear()
    async with lab.worker(tools=mill.tools):
        run = await asking(lab, "unheard_of", "sell")
        await run.until(lambda view: view.runlane.rounds == 1)
        own, sell = await upstream_calls(lab)
        assert ["early", "early"] == await run.submit((own, "mine"), (sell, "sold out"))
        assert ["duplicate", "conflict"] == await run.submit((own, "mine"), (sell, "other"))
        assert [] == (await run.view()).runlane.answers
        mill.may_judge.set()
        view = await run.until(lambda view: len(undecided(view)) == 1)
        await run.cancel()
        await run.result()

    assert [(own, None)] == [(each.tool_call_id, each.by) for each in view.runlane.answers]
    assert [sell] == [each.tool_call_id for each in view.runlane.pending]
    assert [(sell, "held")] == [(r.tool_call_id, r.reason) for r in view.runlane.rejected]
    assert [] == view.runlane.early


async def upstream_calls(lab: Lab) -> list[str]:
    """Return the ids of the calls for which the lab's upstream run waits."""
    thread = await asyncio.to_thread(lab.simulator.thread, lab.thread_id)
    [run] = thread["runs"]
    return [each["id"] for each in run["required_action"]["submit_tool_outputs"]["tool_calls"]]


async def test_a_worker_that_is_told_to_stop_runs_its_tools_through(lab: Lab) -> None:
    """What ends in time is not handed on; the next worker has the outputs."""
    mill = Mill()
    async with lab.worker(tools=mill.tools):
        run = await asking(lab, "grind", "sift")
        await mill.begun(2)
        ends = threading.Timer(0.5, mill.may_end.set)
        ends.start()
    ends.join()
    async with lab.worker(tools=mill.tools):
        result = await run.result()

    assert "completed" == result.run.status
    assert ["grind", "sift"] == sorted(mill.did)
    assert ["ground", "sifted"] == sorted(await submitted(lab))


async def test_what_a_worker_leaves_is_handed_on_or_left_to_people(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time to stop is over: what must not run twice doesn't, the other has its old key."""
    mill = Mill()
    with monkeypatch.context() as patched:
        patched.setattr(worker, "GRACE", worker.GRACE / 50)
        async with lab.worker(tools=mill.tools):
            run = await asking(lab, "grind", "sift")
            await mill.begun(2)
    mill.may_end.set()
    async with lab.worker(tools=mill.tools):
        view = await run.until(
            lambda view: len(undecided(view)) == 1 and len(view.runlane.answers) == 1
        )
        await run.cancel()
        await run.result()

    assert ["grind", "grind", "sift"] == sorted(mill.did)
    assert 2 == len(set(mill.keys))
    assert [("sift", "uncertain")] == [(each.name, each.state) for each in undecided(view)]
    assert ["tool:grind"] == [each.by for each in view.runlane.answers]
