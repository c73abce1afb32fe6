"""Upstreams that number calls anew, break emoji, tell no time, or answer for another run."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from temporalio.client import Client

from activities.runs import RunActivities
from runsapi import Assistants
from tests.lab import QUICK, Lab, eventually
from tests.simulator_process import SimulatorProcess
from worker import build_workers, shut_down
from workflows import progress
from workflows.contract import AnswerOutcome, CancelRequest

NOW = 2_000_000_000
Call = tuple[str, str, str]


class Clone:
    """An upstream in this process, with one thread; its run asks for `rounds`, then completes."""

    def __init__(self, *rounds: list[Call]) -> None:
        self.rounds = list(rounds)
        self.runs: list[dict[str, Any]] = []
        self.created_at: object = NOW
        self.submitted: list[dict[str, str]] = []
        self.requests: list[str] = []
        self.instead: Callable[[str], httpx.Response | None] = lambda _: None
        """What to answer instead, by method and last word of the path."""
        self.after: Callable[[str], httpx.Response | None] = lambda _: None
        """The same, after the request has taken effect."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        parts = request.url.path.split("/")[3:]
        what = f"{request.method} {parts[-1]}"
        self.requests.append(what)
        return self.instead(what) or self._effect(request, parts, what)

    def received(self, what: str) -> int:
        return self.requests.count(what)

    def _effect(self, request: httpx.Request, parts: list[str], what: str) -> httpx.Response:
        body = json.loads(request.content) if request.content else {}
        if what == "POST runs":
            run: dict[str, Any] = {
                "id": f"run_up_{len(self.runs)}",
                "object": "thread.run",
                "metadata": {},
            }
            run |= {"created_at": self.created_at, "metadata": body.get("metadata", {})}
            self.runs.append(run)
            self.ask(run)
            answer: Any = run
        elif what == "GET runs":
            answer = {"object": "list", "data": self.runs[::-1], "has_more": False}
        elif what == "GET steps":
            answer = {"object": "list", "data": [], "has_more": False}
        else:
            run = next(run for run in self.runs if run["id"] == parts[2])
            if what == "POST submit_tool_outputs":
                outputs = body["tool_outputs"]
                self.submitted.append({o["tool_call_id"]: o["output"] for o in outputs})
                self.ask(run)
            elif what == "POST cancel":
                run["status"] = "cancelled"
            answer = run
        return self.after(what) or httpx.Response(200, content=json.dumps(answer))

    def ask(self, run: dict[str, Any]) -> None:
        """Let the run ask for the next round, or complete."""
        if not self.rounds:
            run |= {"status": "completed", "required_action": None}
            return
        calls = [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}
            for call_id, name, text in self.rounds.pop(0)
        ]
        action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": calls}}
        run |= {"status": "requires_action", "required_action": action}


@pytest.fixture
def served(client: Client, simulator: SimulatorProcess) -> Callable[[Clone], Any]:
    """Serve a lab of the test's own with a worker whose upstream is the clone."""

    @asynccontextmanager
    async def serve(clone: Clone) -> AsyncIterator[Lab]:
        lab = Lab(client, simulator)
        http = httpx.AsyncClient(transport=httpx.MockTransport(clone))
        upstream = Assistants("http://clone/v1", http_client=http)
        async with lab.open_ledger() as ledger:
            activities = RunActivities(upstream, ledger)
            workers = build_workers(client, activities, ledger=ledger, task_queue=lab.task_queue)
            serving = [asyncio.create_task(worker.run()) for worker in workers]
            try:
                yield lab
            finally:
                await shut_down(workers, serving)

    return serve


async def test_another_round_under_the_same_ids(served: Callable[[Clone], Any]) -> None:
    """An answer isn't applied to other arguments, although they come under its call's id."""
    clone = Clone([("call_0", "f", "{}")], [("call_0", "f", '{"n":2}'), ("call_1", "f", "{}")])
    clone.rounds.append([("call_0", "g", "{}"), ("call_1", "g", "{}")])
    async with served(clone) as lab:
        run = await lab.start()
        for number, calls in enumerate((1, 2, 2), 1):
            view = await run.until(lambda view, number=number: view.runlane.rounds == number)
            assert len(view.runlane.pending) == calls
            await run.submit(*((c.tool_call_id, f"{number}") for c in view.runlane.pending))
        result = await run.result()
    assert result.run.status == "completed"
    assert clone.submitted == [
        {"call_0": "1"},
        {"call_0": "2", "call_1": "2"},
        {"call_0": "3", "call_1": "3"},
    ]


async def test_a_lost_answer_and_the_next_round_under_the_same_id(
    served: Callable[[Clone], Any],
) -> None:
    """Outputs whose answer was lost aren't sent again to the round that came of them."""
    clone = Clone([("call_0", "f", "{}")], [("call_0", "f", '{"n":2}')])
    lost = [httpx.Response(503, json={"error": {"message": "gone"}})]
    clone.after = lambda what: lost.pop() if "submit" in what and lost else None
    async with served(clone) as lab:
        run = await lab.start()
        await run.answer_all("first")
        await run.until(lambda view: view.runlane.rounds == 2)
        assert clone.submitted == [{"call_0": "first"}]
        await run.answer_all("second")
        assert (await run.result()).run.status == "completed"
    assert clone.submitted == [{"call_0": "first"}, {"call_0": "second"}]


async def test_an_old_round_and_the_next_one_under_the_same_id(
    served: Callable[[Clone], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer to a round that was answered meanwhile, by others or in a history undone since, is
    not sent to the next round.
    """
    monkeypatch.setattr(progress, "LOOK_AFTER", 0.2)
    clone = Clone([("call_0", "f", "{}")], [("call_0", "f", '{"n":2}')])
    async with served(clone) as lab:
        # By itself it doesn't look in time.
        run = await lab.start(timing=QUICK.model_copy(update={"look_floor": 60.0}))
        await run.until(lambda view: view.runlane.rounds == 1)
        clone.ask(clone.runs[0])
        await asyncio.sleep(0.5)
        await run.answer_all("first")
        await run.until(lambda view: view.runlane.rounds == 2)
        assert clone.submitted == []
        await run.answer_all("second")
        assert (await run.result()).run.status == "completed"
    assert clone.submitted == [{"call_0": "second"}]


@pytest.mark.parametrize(
    "arguments", ['{"t":"\\ud83d"}', '{"t":"\ud83d"}', "[" * 20_000], ids=["escaped", "raw", "deep"]
)
async def test_arguments_that_no_reader_likes(
    served: Callable[[Clone], Any], arguments: str
) -> None:
    """Half an emoji or endless brackets in a call's arguments don't stop the run."""
    clone = Clone([("call_0", "f", arguments)])
    async with served(clone) as lab:
        run = await lab.start()
        await run.answer_all()
        assert (await run.result()).run.status == "completed"


@pytest.mark.parametrize("created_at", [None, 0, "yesterday"])
async def test_a_lost_create_where_the_upstream_tells_no_time(
    served: Callable[[Clone], Any], created_at: object
) -> None:
    """Without a time of creation the stamp alone tells that the run is ours."""
    clone = Clone([("call_0", "f", "{}")])
    clone.created_at = created_at
    lost = [httpx.Response(503, json={})]
    clone.after = lambda what: lost.pop() if what == "POST runs" and lost else None
    async with served(clone) as lab:
        run = await lab.start()
        await run.answer_all()
        assert (await run.result()).run.status == "completed"
    assert clone.received("POST runs") == 1


async def test_blocked_twice_after_a_lost_create(served: Callable[[Clone], Any]) -> None:
    """What a create may have done is not forgotten because the next try couldn't even look."""
    clone = Clone([("call_0", "f", "{}")])
    refused = httpx.Response(401, json={"error": {"message": "no"}})
    locked = [False]

    def after(what: str) -> httpx.Response | None:
        if what == "POST runs" and len(clone.runs) == 2:
            locked[0] = True
            return httpx.Response(503, json={})
        return None

    clone.after = after
    clone.instead = lambda _: refused if locked[0] else None
    async with served(clone) as lab:
        run = await lab.start(timing=QUICK.model_copy(update={"look_floor": 0.2}))
        await run.until(lambda view: bool(view.runlane.pending))
        clone.runs[0]["status"] = "expired"
        await run.until(lambda view: view.runlane.parked)
        await run.submit(("call_0", "ok"))
        await run.until(lambda view: view.runlane.blocked is not None)
        looks = clone.received("GET runs")

        async def looked() -> int:
            return clone.received("GET runs")

        await eventually(looked, lambda count: count > looks + 1)
        locked[0] = False
        assert (await run.result()).run.status == "completed"
    assert clone.received("POST runs") == 2


async def test_a_final_refusal_while_blocked_makes_no_hot_loop(
    served: Callable[[Clone], Any],
) -> None:
    """A cancel that is refused for good isn't sent again and again, blocked or not before."""
    clone = Clone([("call_0", "f", "{}")])

    def instead(what: str) -> httpx.Response | None:
        if what == "POST cancel":
            return httpx.Response(422, json={"error": {"message": "no"}})
        return httpx.Response(401, json={}) if what.startswith("GET run_") else None

    clone.instead = instead
    async with served(clone) as lab:
        run = await lab.start(timing=QUICK.model_copy(update={"look_floor": 0.2, "cancel_for": 3}))
        await run.until(lambda view: view.runlane.blocked is not None)
        await run.cancel()
        result = await run.result()
    assert result.runlane.uncertain
    assert clone.received("POST cancel") == 1


async def test_a_submit_that_stays_unsettled_is_uncertain(
    served: Callable[[Clone], Any],
) -> None:
    """Outputs that may have been taken aren't called unused, however the run ends."""
    clone = Clone([("call_0", "f", "{}")])
    locked = [False]

    def after(what: str) -> httpx.Response | None:
        locked[0] = locked[0] or "submit" in what
        return httpx.Response(503, json={}) if "submit" in what else None

    clone.after = after
    clone.instead = lambda _: httpx.Response(401, json={}) if locked[0] else None
    async with served(clone) as lab:
        run = await lab.start(timing=QUICK.model_copy(update={"cancel_for": 1.0}))
        await run.answer_all()
        await run.until(lambda view: view.runlane.blocked is not None)
        await run.handle.execute_update("cancel", CancelRequest())
        result = await run.result()
    assert [answer.outcome for answer in result.runlane.answers] == [AnswerOutcome.UNCERTAIN]


async def test_an_answer_for_another_run(served: Callable[[Clone], Any]) -> None:
    """What a cache says of another run neither ends nor answers ours."""
    clone = Clone([("call_0", "f", "{}")])
    other = [httpx.Response(200, json={"id": "run_other", "status": "completed"})]
    clone.instead = lambda what: other.pop() if what.startswith("GET run_") and other else None
    async with served(clone) as lab:
        run = await lab.start(timing=QUICK.model_copy(update={"look_floor": 0.2}))
        await run.until(lambda view: bool(view.runlane.pending))

        async def looked() -> int:
            return clone.received("GET run_up_0")

        await eventually(looked, lambda count: count > 1)
        await run.answer_all()
        result = await run.result()
    assert result.runlane.upstream_run_id == "run_up_0"
    assert clone.submitted == [{"call_0": "ok"}]


@pytest.mark.parametrize("ids", [("",), ("call_0", "call_0")])
async def test_calls_that_no_id_tells_apart(
    served: Callable[[Clone], Any], ids: tuple[str, ...]
) -> None:
    """Calls without an id, or under one id, are answered by nobody, and `view` says why."""
    clone = Clone([(call_id, "f", f"[{n}]") for n, call_id in enumerate(ids)])
    async with served(clone) as lab:
        run = await lab.start()
        view = await run.until(lambda view: view.runlane.needs_attention is not None)
        assert "id" in (view.runlane.needs_attention or "")
        await run.cancel()
        assert (await run.result()).run.status == "cancelled"


async def test_a_found_run_is_told_the_metadata_of_meanwhile(
    served: Callable[[Clone], Any],
) -> None:
    """An update between a lost create and the finding of its run reaches the upstream."""
    clone = Clone([("call_0", "f", "{}")], [("call_0", "f", "{}")])
    locked = [False]

    def after(what: str) -> httpx.Response | None:
        if what == "POST runs" and len(clone.runs) == 2:
            locked[0] = True
            return httpx.Response(503, json={})
        return None

    clone.after = after
    clone.instead = lambda _: httpx.Response(401, json={}) if locked[0] else None
    async with served(clone) as lab:
        run = await lab.start(timing=QUICK.model_copy(update={"look_floor": 0.2}))
        await run.until(lambda view: bool(view.runlane.pending))
        clone.runs[0]["status"] = "expired"
        await run.until(lambda view: view.runlane.parked)
        await run.submit(("call_0", "ok"))
        await run.until(lambda view: view.runlane.blocked is not None)
        await run.handle.execute_update("update_metadata", {"metadata": {"k": "new"}})
        locked[0] = False
        assert (await run.result()).run.status == "completed"
    assert clone.received("POST run_up_1") == 1


async def test_garbage_in_a_signal_reaches_no_log(
    served: Callable[[Clone], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A signal that can't be read is dropped, its content isn't logged, and the run lives on."""
    clone = Clone([("call_0", "f", "{}")])
    caplog.set_level(logging.DEBUG)
    async with served(clone) as lab:
        run = await lab.start()
        await run.until(lambda view: bool(view.runlane.pending))
        output = {"tool_call_id": "call_0", "output": {"card": "4111-1111"}}
        await run.handle.signal("tool_outputs", {"tool_outputs": [output]})
        await run.handle.signal("tool_outputs", "4111-1111")
        with pytest.raises(Exception, match=r".*") as refusal:
            await run.handle.execute_update("submit_tool_outputs", {"tool_outputs": [output]})
        await run.answer_all()
        assert (await run.result()).run.status == "completed"
    assert "4111" not in caplog.text
    assert "4111" not in f"{refusal.value} {refusal.value.__cause__}"
