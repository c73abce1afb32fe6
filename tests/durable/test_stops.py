"""The kill switch: nothing new begins while a stop stands, and all goes on when it is resumed."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from activities import stops
from activities.trail import LEDGER_DOWN
from ledger.stops import Scope, Stop
from runlane import Runlane, reading
from runlane.errors import InvalidRequest, RunEnded, RunNotFound
from runlane.orchestrator import Runs
from runlane.settings import Settings
from runlane.stops import NotStopped
from runlane.tools.context import ToolContext
from runlane.tools.functions import tool
from runlane.tools.registry import Registry
from runlane.tools.toolbox import RegisteredTools
from tests.clerk import Clerk, counted, send, waiting
from tests.histories import undisturbed
from tests.lab import Lab, LabRun, eventually
from tests.simulator_process import SimulatorProcess
from tests.till import Till, refund
from workflows.contract import RunView

SINCE = datetime(2026, 11, 23, 12, tzinfo=UTC)
SAID = "Stopped by ann since 2026-11-23 12:00:00 UTC"


@pytest.fixture
def lab(client: Client, simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab that the test serves itself, and whose workers look again soon."""
    monkeypatch.setattr(stops, "LOOK_AGAIN", timedelta(seconds=0.2))
    return Lab(client, simulator)


async def stop(lab: Lab, scope: Scope, target: str = "") -> None:
    """Order a stop."""
    wanted = Stop(scope=scope, target=target, by="ann", reason="prices", since=SINCE)
    assert wanted == await lab.ledger.stops.stop(wanted)


async def held_up(run: LabRun, client: Client) -> str:
    """Wait until the run says that it is stopped; return what it says."""

    async def said() -> str:
        return (await reading.read(client, run.id)).runlane.retrying or ""

    return await eventually(said, lambda text: SAID in text)


def a_call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


ASKS = [{"calls": [a_call("look_up", order_id="A-1")]}, {"says": "Done."}]


async def test_nothing_is_created_while_everything_is_stopped(lab: Lab) -> None:
    """The run waits, and says who, what and why; resumed, it is created once, at no event more."""
    await lab.scenario(rounds=ASKS)
    async with lab.worker():
        await stop(lab, Scope.ALL)
        run = await lab.start()
        said = await held_up(run, lab.client)
        await asyncio.sleep(0.5)
        requests = await lab.received("runs.create") + await lab.received("runs.list")
        await lab.ledger.stops.resume(Scope.ALL)
        await run.answer_all()
        result = await run.result()

    assert f"{SAID} (everything): prices" in said
    # Not even a question: a thousand runs that are stopped would ask it every 5 s.
    assert 0 == requests
    assert "completed" == result.run.status
    assert 1 == await lab.accepted("runs.create")
    history = list((await run.handle.fetch_history()).events)
    assert len(undisturbed(history)) <= 40


async def test_a_stopped_run_takes_answers_and_submits_none(lab: Lab) -> None:
    """What waits goes on waiting, whoever answers is heard; another run is not held up."""
    other = Lab(lab.client, lab.simulator)
    other.task_queue = lab.task_queue
    for each in (lab, other):
        await each.scenario(rounds=ASKS)
    async with lab.worker():
        run, free = await lab.start(), await other.start()
        await run.until_status("requires_action")
        await stop(lab, Scope.RUN, run.id)
        await run.answer_all()
        await held_up(run, lab.client)
        await free.answer_all()
        assert "completed" == (await free.result()).run.status
        assert 0 == await lab.received("runs.submit_tool_outputs")

        await lab.ledger.stops.resume(Scope.RUN, run.id)
        assert "completed" == (await run.result()).run.status

    assert 1 == await lab.accepted("runs.submit_tool_outputs")


async def test_a_stopped_tool_does_not_run_and_others_do(lab: Lab) -> None:
    """Nor is its intent written, for one that stands says that it may have run."""
    ran: list[str] = []

    @tool(policy="auto", at_most_once=True)
    async def refund(order_id: str) -> str:
        """Pay back."""
        ran.append("refund")
        return "paid"

    @tool(policy="auto", read_only=True)
    async def look_up(order_id: str) -> str:
        """Look up."""
        ran.append("look_up")
        return "shipped"

    calls = [a_call("refund", order_id="A-1"), a_call("look_up", order_id="A-1")]
    await lab.scenario(rounds=[{"calls": calls}, {"says": "Done."}])
    async with lab.worker(tools=RegisteredTools(Registry.of(refund, look_up))):
        await stop(lab, Scope.TOOL, "refund")
        run = await lab.start(with_tools=True)
        said = await held_up(run, lab.client)
        await run.until(lambda view: len(view.runlane.answers) == 1)
        assert ["look_up"] == ran
        assert [] == await lab.ledger.intents.of_run(run.id)
        await lab.ledger.stops.resume(Scope.TOOL, "refund")
        result = await run.result()

    assert "(tool refund): prices" in said
    assert ["look_up", "refund"] == ran
    assert "completed" == result.run.status


async def test_a_stop_holds_between_two_tries_of_a_tool(lab: Lab) -> None:
    """What runs is not interrupted; its next try waits until it is resumed, under the same key."""
    keys: list[str] = []
    may_fail = threading.Event()

    @tool(policy="auto", retries=3)
    def pay_back(context: ToolContext, order_id: str) -> str:
        """Pay back."""
        keys.append(context.idempotency_key)
        if len(keys) == 1:
            assert may_fail.wait(60)
            raise ConnectionError
        return "paid"

    await lab.scenario(rounds=[{"calls": [a_call("pay_back", order_id="A-1")]}, {"says": "Done."}])
    async with lab.worker(tools=RegisteredTools(Registry.of(pay_back))):
        run = await lab.start(with_tools=True)
        await run.until(lambda _: len(keys) == 1)
        await stop(lab, Scope.ALL)
        may_fail.set()
        await held_up(run, lab.client)
        assert 1 == len(keys)
        await lab.ledger.stops.resume(Scope.ALL)
        result = await run.result()

    assert 2 == len(keys)
    assert 1 == len(set(keys))
    assert "completed" == result.run.status


async def test_a_run_that_is_cancelled_while_stopped_ends(lab: Lab) -> None:
    """Before it is created: without one. While answers wait to be submitted: cancelled upstream."""
    other = Lab(lab.client, lab.simulator)
    other.task_queue = lab.task_queue
    for each in (lab, other):
        await each.scenario(rounds=ASKS)
    async with lab.worker():
        asked = await other.start()
        await asked.until_status("requires_action")
        await stop(lab, Scope.ALL)
        new = await lab.start()
        await asked.answer_all()
        for run in (new, asked):
            await held_up(run, lab.client)
            await run.cancel()
        ended = [(await run.result(seconds=20)).run.status for run in (new, asked)]

    assert ["cancelled", "cancelled"] == ended
    assert 0 == await lab.received("runs.create")
    assert (0, 1) == (
        await other.received("runs.submit_tool_outputs"),
        await other.accepted("runs.cancel"),
    )


async def test_a_run_that_is_cancelled_while_its_tool_is_stopped_pays_nothing(lab: Lab) -> None:
    """Not then, and not when the tool is resumed before the run has ended."""
    paid: list[str] = []

    @tool(policy="auto")
    async def refund(order_id: str) -> str:
        """Pay back."""
        paid.append(order_id)
        return "paid"

    await lab.scenario(rounds=[{"calls": [a_call("refund", order_id="A-1")]}])
    cancel = await lab.fault("runs.cancel", "hold_before")
    async with lab.worker(tools=RegisteredTools(Registry.of(refund))):
        await stop(lab, Scope.TOOL, "refund")
        run = await lab.start(with_tools=True)
        await held_up(run, lab.client)
        await run.cancel()
        await lab.held(cancel)
        await asyncio.sleep(0.5)
        await lab.ledger.stops.resume(Scope.TOOL, "refund")
        await asyncio.sleep(0.5)
        await lab.release(cancel)
        result = await run.result()

    assert "cancelled" == result.run.status
    assert [] == paid


@pytest.mark.parametrize("read_only", [False, True])
async def test_what_was_revoked_while_its_tool_was_stopped_does_not_run(
    lab: Lab, read_only: bool
) -> None:
    """An approval for the rest of the run had let the call wait for its turn."""
    till, clerk = Till(read_only=read_only), Clerk()
    rounds = [{"calls": [refund(f"A-{number}")]} for number in (1, 2)]
    await lab.scenario(rounds=rounds)
    submit = await lab.fault("runs.submit_tool_outputs", "hold_before")
    async with lab.worker(tools=till.tools, verifier=clerk.verifier):
        run = await lab.start(with_tools=True)
        first = await waiting(run)
        given = clerk.made("approve", run, first, "ada", for_rest_of_run=True)
        assert "recorded" == await send(run, given)
        await lab.held(submit)
        await stop(lab, Scope.TOOL, "refund")
        await lab.release(submit)
        await held_up(run, lab.client)
        assert "recorded" == await send(run, clerk.made("revoke", run, first, "bob"))
        await counted(run)
        await lab.ledger.stops.resume(Scope.TOOL, "refund")
        assert "A-2" in (await waiting(run)).arguments
        await run.cancel()
        await run.result()

    assert [("A-1", 5)] == till.paid


async def test_a_ledger_that_is_down_stops_too(lab: Lab) -> None:
    """Whether somebody has stopped it can't be known, so nothing begins."""
    async with lab.open_ledger() as ledger:
        pass

    with pytest.raises(ApplicationError) as caught:
        await stops.check(ledger, "run_1")

    assert LEDGER_DOWN == caught.value.type
    assert not caught.value.non_retryable


async def test_what_can_not_be_stopped_or_resumed_is_said(lab: Lab) -> None:
    """A run that isn't there or has ended, a stop that isn't there; and a second stop is told."""
    await lab.scenario(rounds=[{"says": "Done."}])
    async with lab.worker():
        run = await lab.start()
        await run.result()
    settings = Settings(data_dir=lab.ledger.location.file.parent, person="ann")
    face = Runlane(lab.client, settings).stops

    with pytest.raises(RunNotFound, match="run_nobody"):
        await face.stop(run_id="run_nobody", reason="x")
    with pytest.raises(RunEnded, match="has ended"):
        await face.stop(run_id=run.id, reason="x")
    for wrong in ({"reason": "x"}, {"reason": "x", "all": True, "tool": "t"}):
        with pytest.raises(InvalidRequest, match="Say one of"):
            await face.stop(**wrong)
    for wrong in ({"tool": "two words", "reason": "x"}, {"all": True, "reason": " "}):
        with pytest.raises(InvalidRequest):
            await face.stop(**wrong)

    first = await face.stop(tool="refund", reason="prices")
    second = await face.stop(tool="refund", reason="another", by="bob")
    assert (True, False) == (first.is_new, second.is_new)
    assert ("ann", "prices") == (second.stop.by, second.stop.reason)
    with pytest.raises(NotStopped, match=r"no stop of everything\. Stopped: tool refund\."):
        await face.resume(all=True)
    assert first.stop == await face.resume(tool="refund")
    assert [] == list(await face.list())


async def test_lists_say_what_holds_a_run_up(lab: Lab) -> None:
    """On each page, from Temporal and from the ledger; of the runs that are held up alone."""
    await lab.scenario(rounds=ASKS)
    async with lab.worker():
        place = lab.ledger.location.file.parent
        runs = Runlane(lab.client, Settings(data_dir=place, task_queue=lab.task_queue)).runs
        run = await runs.create(lab.thread_id, assistant_id=lab.assistant_id)
        await eventually(lambda: lab.accepted("runs.create"), bool)
        # Its thread is taken, so it isn't there upstream, and the ledger doesn't know it.
        free = await runs.create(lab.thread_id, assistant_id=lab.assistant_id)
        await stop(lab, Scope.RUN, run.id)

        async def listed() -> dict[str, str | None]:
            return {view.run.id: reason(view) for view in await pages(runs, lab)}

        await eventually(listed, lambda found: found == {free.id: None, run.id: "prices"})
        (recorded,) = (await runs.list(lab.thread_id, all_ages=True)).as_json()["data"]
        for each in (run, free):
            await runs.cancel(each.id)
            await runs.poll(each.id)

    assert (run.id, "ann") == (recorded["id"], recorded["runlane"]["stopped"]["by"])


async def test_lists_go_on_without_the_ledger(lab: Lab) -> None:
    """What is stopped can't be told then; the first page says so, and the next asks no more."""
    away = Settings(database_url="postgresql://ann@127.0.0.1:1/ledger", task_queue=lab.task_queue)
    runs = Runlane(lab.client, away).runs
    ids = {(await runs.create(lab.thread_id, assistant_id="asst_1")).id for _ in range(2)}

    async def listed() -> set[str]:
        return {view.run.id for view in await pages(runs, lab)}

    await eventually(listed, lambda found: found == ids)
    first = await runs.list(lab.thread_id, limit=1)
    second = await first.get_next_page()
    for run_id in ids:
        await lab.client.get_workflow_handle(run_id).terminate()

    assert "127.0.0.1:1/ledger" in (first.stops.problem or "")
    assert first.stops is second.stops
    assert [None] == [reason(view) for view in second.views]


async def pages(runs: Runs, lab: Lab) -> list[RunView]:
    """Return the runs of the lab's thread, one on each page."""
    page = await runs.list(lab.thread_id, limit=1)
    views = list(page.views)
    while page.has_next_page():
        page = await page.get_next_page()
        views += page.views
    return views


def reason(view: RunView) -> str | None:
    """Return why a run is stopped; nothing where it isn't."""
    return None if view.runlane.stopped is None else view.runlane.stopped.reason
