"""Policies, checks and tools are anybody's code: what they do stays with the one call."""

import asyncio
import io
import logging
import threading
import time
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator
from temporalio.client import Client

from runlane import reading
from runlane.monitoring import logs
from runlane.settings import LogFormat
from runlane.temporal import data_converter
from runlane.tools import loop, toolbox
from runlane.tools.context import ToolContext
from runlane.tools.functions import tool
from runlane.tools.registry import Registry
from runlane.tools.toolbox import RegisteredTools
from tests.lab import Lab, eventually
from tests.simulator_process import SimulatorProcess
from workflows.contract import RunningTool

SECRET = "4111-secret"
ENDS = {"queued": 0.02, "in_progress": 0.02, "says": "Done."}


@pytest.fixture
def lab(client: Client, simulator: SimulatorProcess) -> Lab:
    """A lab that the test serves itself."""
    return Lab(client, simulator)


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Everything that a worker logs, as both formats have it."""
    out = io.StringIO()
    handlers = [logs.handler(form, out) for form in LogFormat]
    for handler in handlers:
        logging.getLogger().addHandler(handler)
    yield out
    for handler in handlers:
        logging.getLogger().removeHandler(handler)


def asks(*calls: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    made = [{"name": name, "arguments": arguments} for name, arguments in calls]
    return {"queued": 0.02, "in_progress": 0.02, "calls": made}


class Panic(BaseException):
    """As extensions raise them."""


async def test_what_a_policy_does_is_its_own_calls_affair(
    lab: Lab, logged: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that fails, ends the program or hangs leaves its call to people, and others in peace."""
    monkeypatch.setattr(toolbox, "_POLICY_WITHIN", 1.0)
    release = threading.Event()

    def leaving(_: Any) -> str:
        raise SystemExit(SECRET)

    def hanging(_: Any) -> str:
        release.wait(60)
        return "auto"

    def checked(value: str) -> str:
        raise KeyError(value)

    @tool(policy=leaving)
    def leave() -> str:
        """Leave."""
        return "left"

    @tool(policy=hanging)
    def hang() -> str:
        """Hang."""
        return "hung"

    @tool(policy="auto")
    def check(value: Annotated[str, AfterValidator(checked)]) -> str:
        """Check."""
        return value

    @tool(policy="auto")
    def work() -> str:
        """Work."""
        return "worked"

    tools = RegisteredTools(Registry.of(leave, hang, check, work))
    calls = [("leave", {}), ("hang", {}), ("check", {"value": SECRET}), ("work", {})]
    await lab.scenario(rounds=[asks(*calls)])
    async with lab.worker(tools=tools):
        run = await lab.start(with_tools=True)
        view = await run.until(lambda view: bool(view.runlane.answers))
        release.set()
        await run.cancel()
        await run.result()

    assert {
        "leave": "its policy failed: SystemExit",
        "hang": "its policy failed: it took too long",
        "check": "its policy failed: KeyError",
    } == {call.name: call.reason for call in view.runlane.pending}
    assert ["work"] == [answer.name for answer in view.runlane.answers]
    assert SECRET not in logged.getvalue()


async def test_what_a_tool_does_is_its_own_calls_affair(
    lab: Lab, logged: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that blocks the event loop, panics or interrupts is answered, and others in peace."""
    monkeypatch.setattr(loop, "SLACK", 0.5)
    release = threading.Event()

    @tool(policy="auto", timeout=0.5)
    async def block() -> str:
        """Block."""
        release.wait(60)
        return SECRET

    @tool(policy="auto")
    def panic() -> str:
        """Panic."""
        raise Panic(SECRET)

    @tool(policy="auto")
    async def interrupt() -> str:
        """Interrupt."""
        raise KeyboardInterrupt(SECRET)

    @tool(policy="auto")
    def work() -> str:
        """Work."""
        return "worked"

    @tool(policy="auto")
    async def later() -> str:
        """Work after the others."""
        await asyncio.sleep(0)
        return "worked too"

    tools = RegisteredTools(Registry.of(block, panic, interrupt, work, later))
    first = asks(("panic", {}), ("interrupt", {}), ("work", {}))
    await lab.scenario(rounds=[first, asks(("block", {})), asks(("later", {})), ENDS])
    async with lab.worker(tools=tools):
        run = await lab.start(with_tools=True)
        result = await run.result()
        release.set()

    assert "completed" == result.run.status
    assert {
        "panic": "Panic",
        "interrupt": "KeyboardInterrupt",
        "block": "TimeoutError",
        "work": None,
        "later": None,
    } == {answer.name: answer.failure for answer in result.runlane.answers}
    assert SECRET not in logged.getvalue()


async def test_a_tool_at_work_is_seen(lab: Lab) -> None:
    """With what it says of its progress, and what went wrong before."""
    release = threading.Event()
    tried: list[float] = []

    @tool(policy="auto", read_only=True, retries=1)
    def look(context: ToolContext) -> str:
        """Look."""
        tried.append(time.monotonic())
        if len(tried) == 1:
            raise ConnectionError(SECRET)
        context.report("half way")
        release.wait(60)
        return "seen"

    await lab.scenario(rounds=[asks(("look", {})), ENDS])
    async with lab.worker(tools=RegisteredTools(Registry.of(look))):
        run = await lab.start(with_tools=True)

        async def shown() -> list[RunningTool]:
            running = (await reading.read(lab.client, run.id)).runlane.running
            return [each for each in running if each.progress is not None]

        (found,) = await eventually(shown, bool)
        release.set()
        await run.result()

    assert ("look", "half way", "ConnectionError, try 1 of 2") == (
        found.name,
        found.progress,
        found.failure,
    )


async def test_big_outputs_fit_a_history_without_a_store(
    client: Client, simulator: SimulatorProcess
) -> None:
    """What is too large for its round is answered by a few words, control characters too."""
    config = client.config()
    config["data_converter"] = data_converter()
    lab = Lab(Client(**config), simulator)

    @tool(policy="auto", read_only=True)
    def look(n: int, text: str) -> str:
        """Look."""
        return text * n

    tools = RegisteredTools(Registry.of(look))
    many = [("look", {"n": 400_000 + n, "text": "x"}) for n in range(8)]
    control = [("look", {"n": 90_000 + n, "text": "\x01"}) for n in range(5)]
    small = [("look", {"n": 300_000, "text": "y"})]
    await lab.scenario(rounds=[asks(*many), asks(*control), asks(*small), ENDS])
    async with lab.worker(tools=tools):
        run = await lab.start(with_tools=True)
        result = await run.result()

    journal = await asyncio.to_thread(lambda: simulator.requests(thread_id=lab.thread_id))
    submits = [e for e in journal["data"] if e["operation"] == "runs.submit_tool_outputs"]
    outputs = [[each["output"] for each in e["body"]["tool_outputs"]] for e in submits]
    assert "completed" == result.run.status
    assert [8, 5, 1] == [len(each) for each in outputs]
    assert {"The tool ran. Its output is too large for this round of calls."} == {*outputs[0]}
    assert [300_000] == [len(each) for each in outputs[2]]
