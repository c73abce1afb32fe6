"""Any order of answers, evictions and upstream events: nothing twice, nothing lost, an end.

Hypothesis writes scripts; each is played by a run of its own, on Temporal's own server and over
real HTTP. Many are at play at once, on workers that keep none, few or all of the runs in memory,
and the server suggests to continue as new after a few events. Afterwards the upstream's journal,
the receipts and the run's result must agree, and every history must replay.

No script asks a worker for its view: a worker that keeps no run drops a query that meets a task of
the same run. What is pending is read where lists read it, from the memo.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHistory
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, Worker

from activities.contract import SubmitInput
from activities.runs import RunActivities
from runlane.embedded import EmbeddedTemporal
from runlane.errors import NoWorker
from runlane.messages import NothingNew, RunClosed, send
from runlane.temporal import connect
from tests.histories import chain
from tests.lab import Lab, LabRun
from tests.outsider import Outsider
from tests.simulator_process import SimulatorProcess
from tests.temporal_server import encrypting
from worker import MAX_CACHED_WORKFLOWS, WORKFLOWS
from workflows import answers
from workflows.contract import (
    CANCEL_UPDATE,
    PENDING_MEMO,
    SUBMIT_TOOL_OUTPUTS_UPDATE,
    UPDATE_METADATA_UPDATE,
    Acknowledged,
    AnswerOutcome,
    CancelRequest,
    MetadataUpdate,
    PendingCall,
    Receipt,
    Receipts,
    ReceiptStatus,
    RunOptions,
    RunView,
    Timing,
    ToolOutputMessage,
    ToolOutputs,
    content_digest,
)
from workflows.run import RunWorkflow
from workflows.state import Answer, RunState

EXAMPLES = 200
"""Scripts that are played."""
SEED_VARIABLE = "RUNLANE_PROPERTY_SEED"
"""Set it to play the scripts of an earlier run of this test."""
SUGGESTED_AT = 60
"""Events from which on the server suggests to continue as new."""

_PLAYERS = {0: (2, 2), 2: (1, 6), MAX_CACHED_WORKFLOWS: (1, 10)}
"""By what a worker keeps: how many pairs of workers there are, and the runs at play on each.

A worker that keeps none does one task at a time, and those of more runs would time out unheeded."""
_CACHES = tuple(_PLAYERS)
_TIMING = Timing(poll_floor=0.1, look_floor=0.5, blocked_floor=0.2, settle_for=1.0)
_DEADLINE = 4.0
"""Seconds that runs have which get no answers after their script is over."""
_LOOK_EVERY = 0.25
"""Seconds between two looks at a run; each costs the server, and many runs are at play."""
_JOURNAL_EVERY = 3.0
_STUCK = 120.0
"""Seconds after its script is over from which on a run counts as one that never ends."""

_CALLS = (
    {"name": "look_up", "arguments": '{"order": 1, "part": 2}'},
    {"name": "look_up", "arguments": '{"part": 2, "order": 1}'},
    {"name": "look_up", "arguments": '{"order": 2}'},
    {"name": "refund", "arguments": '{"order": 1, "part": 2}'},
)
"""The first two are the same call, written otherwise."""
_FAULTS = (
    ("runs.submit_tool_outputs", "server_error"),
    ("runs.submit_tool_outputs", "reset"),
    ("runs.retrieve", "rate_limit"),
    ("runs.retrieve", "not_found"),
)
_HOLDS = ("hold_before", "hold_after")
_ENDS = ("completed", "failed", "cancelled", "incomplete")
_TERMINAL = ("completed", "failed", "cancelled", "expired", "incomplete")
_UNSANDBOXED = UnsandboxedWorkflowRunner()
_STATUS = "RunlaneStatus"
_OTHERS = "another's"
"""The output by which somebody answers the upstream past Runlane."""

Rounds = tuple[tuple[int, ...], ...]
"""Indexes into `_CALLS`: what is asked for, round by round."""


@dataclass(frozen=True)
class Deed:
    """One thing that happens to a run, from outside or upstream."""

    kind: str
    pick: int
    """Which of several: calls, faults, ends."""
    how: str
    """How answers are delivered."""


@dataclass(frozen=True)
class Script:
    """All that happens to one run."""

    rounds: Rounds
    reworded: Rounds | None
    """What the second upstream run asks for instead."""
    polls: int
    """How often a leg is looked at before it is over."""
    cache: int
    """How many runs the worker keeps; any number evicts, as many runs are at play."""
    create_lost: bool
    """Whether the first create is answered by nothing."""
    opening: Deed | None
    """Happens before the other deeds."""
    deeds: tuple[Deed, ...]
    ending: str


_rounds: st.SearchStrategy[Rounds] = st.lists(
    st.lists(st.sampled_from([0, 1, 0, 1, 2, 3]), min_size=1, max_size=3).map(tuple),
    min_size=1,
    max_size=3,
).map(tuple)
_deeds = st.builds(
    Deed,
    kind=st.sampled_from(
        ["answer"] * 4
        + ["all", "again", "expire", "hold"] * 2
        + [
            "early",
            "late",
            "unknown",
            "lose",
            "fail",
            "release",
            "nudge",
            "label",
            "overtake",
            "finish",
        ]
    ),
    pick=st.integers(0, 3),
    how=st.sampled_from(["update", "signal", "twice", "rivals", "mixed"]),
)
scripts = st.builds(
    Script,
    rounds=_rounds,
    reworded=st.none() | _rounds,
    polls=st.integers(0, 2),
    cache=st.sampled_from([MAX_CACHED_WORKFLOWS] * 2 + [2, 0]),
    create_lost=st.booleans(),
    # What the de-duplication is there for must come often.
    opening=st.sampled_from([None, None, Deed("lose", 1, "update"), Deed("late", 0, "update")]),
    deeds=st.lists(_deeds, max_size=8).map(tuple),
    ending=st.sampled_from(["answered"] * 6 + ["cancelled", "cancelled by Temporal", "abandoned"]),
)


def _write(number: int, examples: int) -> list[Script]:
    """Return the scripts that belong to a seed.

    They are written first and played afterwards, many at once; so nothing is shrunk, which would
    take minutes. What fails is played again by its seed.
    """
    written: list[Script] = []

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        # Writing is all that hypothesis sees here, and it takes a second or two.
        suppress_health_check=list(HealthCheck),
    )
    @given(scripts)
    def write(script: Script) -> None:
        written.append(script)

    write()
    return written


class PropertyBroken(AssertionError):
    """The property doesn't hold: not the laboratory failed, but Runlane."""


@contextlib.contextmanager
def _property() -> Iterator[None]:
    try:
        yield
    except AssertionError as error:
        raise PropertyBroken(str(error)) from error


class Play:
    """One script at play: what was delivered, and what must be true of it in the end."""

    def __init__(self, script: Script, lab: Lab, run: LabRun) -> None:
        self._script = script
        self._lab = lab
        self._run = run
        self._serial = 0
        self._held: list[str] = []
        self._interfered = False
        self._expired = False
        self._stopped = script.ending == "abandoned"
        self.offered: dict[str, list[str]] = {}
        """By call id all outputs that may have arrived, in the order in which they were sent."""
        self.certain: set[str] = set()
        """Calls for which an answer did arrive."""
        self.accepted: dict[str, list[str]] = {}
        """By call id the outputs that a receipt calls accepted, or kept."""

    async def perform(self) -> None:
        """Play the script to the run's end, and hold what must be true."""
        result = asyncio.create_task(self._run.handle.result())
        try:
            while not result.done() and not await self._lab.accepted("runs.create"):
                await asyncio.sleep(_LOOK_EVERY)
            opening = () if self._script.opening is None else (self._script.opening,)
            for deed in (*opening, *self._script.deeds):
                if result.done():
                    break
                await getattr(self, f"do_{deed.kind}")(deed)
            await self._end(result)
            view = await result
            journal = await _journal(self._lab)
            with _property():
                self._hold(view, journal)
        except BaseException:
            await self._release_all()
            with contextlib.suppress(RPCError):
                await self._run.handle.terminate()
            raise
        finally:
            result.cancel()

    # Deeds

    async def do_answer(self, deed: Deed) -> None:
        pending = await self._pending()
        if pending:
            await self._deliver(pending[deed.pick % len(pending)], deed.how)

    async def do_all(self, deed: Deed) -> None:
        """Answer every call, all at once."""
        pending = await self._pending()
        await asyncio.gather(*(self._deliver(call_id, deed.how) for call_id in pending))

    async def do_again(self, deed: Deed) -> None:
        if self.offered:
            call_id = list(self.offered)[deed.pick % len(self.offered)]
            output = self.offered[call_id][0] if deed.pick % 2 else None
            await self._deliver(call_id, deed.how, output)

    async def do_early(self, deed: Deed) -> None:
        """Answer what the upstream asks for already, whether or not the run has seen it."""
        _, calls = await self._living()
        await asyncio.gather(*(self._deliver(c, deed.how) for c in calls[: deed.pick + 1]))

    async def do_unknown(self, deed: Deed) -> None:
        await self._deliver(f"call_nobody_{deed.pick}", deed.how)

    async def do_expire(self, deed: Deed) -> None:
        if deed.pick:
            await self._pending()
        run_id, _ = await self._living()
        if run_id is not None:
            self._expired = True
            await self._lab.force(run_id, "expired")
            if deed.pick == 3:
                await asyncio.sleep(_TIMING.look_floor + 0.2)

    async def do_finish(self, deed: Deed) -> None:
        run_id, _ = await self._living()
        if run_id is not None:
            self._interfered = True
            await self._lab.force(run_id, _ENDS[deed.pick % len(_ENDS)])

    async def do_overtake(self, deed: Deed) -> None:
        """Answer the upstream past Runlane."""
        run_id, calls = await self._living()
        if run_id is not None and calls:
            self._interfered = True
            await self._release_all()
            await asyncio.to_thread(self._submit_past_runlane, run_id, calls)

    async def do_lose(self, deed: Deed) -> None:
        operation = "runs.create" if deed.pick == 0 else "runs.submit_tool_outputs"
        await self._lab.fault(operation, "lost_answer")

    async def do_fail(self, deed: Deed) -> None:
        operation, kind = _FAULTS[deed.pick % len(_FAULTS)]
        await self._lab.fault(operation, kind, times=1 + deed.pick % 2)

    async def do_hold(self, deed: Deed) -> None:
        """Hold the next submit, before or after the upstream takes it; the next deeds meet it."""
        kind = _HOLDS[deed.pick % len(_HOLDS)]
        self._held.append(await self._lab.fault("runs.submit_tool_outputs", kind))

    async def do_release(self, deed: Deed) -> None:
        if self._held:
            await self._lab.release(self._held.pop(), answer=deed.pick % 2 == 0)

    async def do_late(self, deed: Deed) -> None:
        """Answer all, and let the upstream expire at the very submit."""
        fault = await self._lab.fault("runs.submit_tool_outputs", "hold_before")
        self._held.append(fault)
        await self.do_all(deed)
        for _ in range(8):
            state = await asyncio.to_thread(self._lab.simulator.fault_state, fault)
            if state["waiting"]:
                break
            await asyncio.sleep(_LOOK_EVERY)
        run_id, _ = await self._living()
        if run_id is not None:
            self._expired = True
            await self._lab.force(run_id, "expired")
        await self._release_all()

    async def do_nudge(self, deed: Deed) -> None:
        with _unless_ended():
            await self._run.handle.signal(RunWorkflow.nudge)

    async def do_label(self, deed: Deed) -> None:
        update = MetadataUpdate(metadata={"label": self._output()})
        with _unless_ended():
            await self._send(UPDATE_METADATA_UPDATE, update, Acknowledged)

    async def _end(self, result: asyncio.Task[RunView]) -> None:
        """Let everything be mended, and give every answer, unless the run is to end otherwise."""
        if self._script.ending == "cancelled":
            self._stopped = True
            with _unless_ended():
                await self._send(CANCEL_UPDATE, CancelRequest(), Acknowledged)
        elif self._script.ending == "cancelled by Temporal":
            self._stopped = True
            with _unless_ended():
                await self._run.handle.cancel()
        await self._release_all()
        began = seen_at = time.monotonic()
        while not result.done():
            with _property():
                assert time.monotonic() < began + _STUCK, "it doesn't end"
            if time.monotonic() > seen_at + _JOURNAL_EVERY:
                # Who submits again and again doesn't end either; this says so sooner.
                journal = await _journal(self._lab)
                with _property():
                    _taken(journal)
                seen_at = time.monotonic()
            if self._script.ending == "answered":
                for call_id in await self._waiting():
                    await self._deliver(call_id, "update")
            await asyncio.wait([result], timeout=_LOOK_EVERY)

    # What they need

    def _output(self) -> str:
        self._serial += 1
        return f"output {self._serial}"

    async def _deliver(self, call_id: str, how: str, output: str | None = None) -> None:
        """Give a call an answer: once, or two messages at the same moment."""
        first = output or self._output()
        second = first if how == "twice" else self._output()
        ways: dict[str, list[Coroutine[Any, Any, None]]] = {
            "update": [self._update(call_id, first)],
            "signal": [self._signal(call_id, first)],
            "twice": [self._update(call_id, first), self._signal(call_id, second)],
            "rivals": [self._update(call_id, first), self._update(call_id, second)],
            "mixed": [self._signal(call_id, first), self._update(call_id, second)],
        }
        chosen = ways.pop(how)
        for coroutines in ways.values():
            for coroutine in coroutines:
                coroutine.close()
        await asyncio.gather(*chosen)

    async def _signal(self, call_id: str, output: str) -> None:
        with _unless_ended():
            self.offered.setdefault(call_id, []).append(output)
            await self._run.signal((call_id, output))
            self.certain.add(call_id)

    async def _update(self, call_id: str, output: str) -> None:
        self.offered.setdefault(call_id, []).append(output)
        message = ToolOutputs(tool_outputs=[ToolOutputMessage(tool_call_id=call_id, output=output)])
        try:
            receipts = await self._send(SUBMIT_TOOL_OUTPUTS_UPDATE, message, Receipts)
        except NothingNew as refused:
            receipts = refused.receipts
        except (RunClosed, NoWorker):
            return
        if receipts.is_new():
            self.certain.add(call_id)
            self.accepted.setdefault(call_id, []).append(output)

    async def _send(self, name: str, message: object, answer: type[Any]) -> Any:
        queue = self._lab.task_queue
        return await send(self._lab.client, self._run.id, name, message, answer, task_queue=queue)

    async def _pending(self) -> list[str]:
        """Return the calls that wait, once there are any."""
        for _ in range(4):
            calls = await self._waiting()
            if calls:
                return calls
            await asyncio.sleep(_LOOK_EVERY)
        return []

    async def _waiting(self) -> list[str]:
        described = await self._run.handle.describe()
        statuses = [p.value for p in described.typed_search_attributes if p.key.name == _STATUS]
        if statuses != ["requires_action"]:
            return []
        calls: list[PendingCall] = await described.memo_value(
            PENDING_MEMO, [], type_hint=list[PendingCall]
        )
        return [call.tool_call_id for call in calls]

    async def _living(self) -> tuple[str | None, list[str]]:
        """Return the upstream run that lives on our thread, and the calls that it waits for."""
        thread = await asyncio.to_thread(self._lab.simulator.thread, self._lab.thread_id)
        for run in thread["runs"]:
            if run["status"] not in _TERMINAL:
                action = run["required_action"] or {}
                calls = action.get("submit_tool_outputs", {}).get("tool_calls", [])
                return run["id"], [call["id"] for call in calls]
        return None, []

    def _submit_past_runlane(self, run_id: str, calls: list[str]) -> None:
        outsider = Outsider(self._lab)
        # Runlane's own submit may be first, and a fault that was meant for that may hit this.
        refused = (AssertionError, httpx.TransportError)
        with contextlib.closing(outsider), contextlib.suppress(*refused):
            outsider.submit(run_id, dict.fromkeys(calls, _OTHERS))

    async def _release_all(self) -> None:
        while self._held:
            await self._lab.release(self._held.pop())

    # What must be true

    def _hold(self, result: RunView, journal: list[dict[str, Any]]) -> None:
        taken = _taken(journal)
        self._hold_no_answer_lost(result, taken)
        self._hold_outcomes(result, taken)
        creates = [e for e in journal if e["operation"] == "runs.create" and e["accepted"]]

        assert result.run.status in _TERMINAL
        assert len(creates) == result.runlane.attempt, "an upstream run nobody knows of"
        if not self._interfered and not self._stopped:
            # Three re-creations in vain are an end too.
            ends = ("completed", "expired") if self._expired else ("completed",)
            assert result.run.status in ends, "it ended as it should not"
        if not self._interfered and not self._stopped and not self._expired:
            assert {a.outcome for a in result.runlane.answers} <= {AnswerOutcome.SUBMITTED}
            assert len(taken) == len(result.runlane.answers)

    def _hold_no_answer_lost(self, result: RunView, taken: dict[str, str]) -> None:
        """Each accepted answer stands under its call's id; the upstream got that and no other."""
        stands = {call: a.output_digest for a in result.runlane.answers for call in a.call_ids}
        rejected = {r.tool_call_id for r in result.runlane.rejected}
        for call_id in self.certain:
            known = call_id in stands or call_id in rejected or call_id in result.runlane.early
            assert known, f"the answer to {call_id} is lost"
        for call_id, outputs in self.accepted.items():
            assert len(outputs) == 1, f"{call_id} has two first answers"
            # What came early gives way to an answer that an earlier upstream run got already.
            if call_id in stands and call_id not in rejected:
                assert stands[call_id] == content_digest(outputs[0]), f"{call_id} was overwritten"
        for call_id, output in taken.items():
            assert stands.get(call_id) == content_digest(output), f"{call_id} got another's answer"

    def _hold_outcomes(self, result: RunView, taken: dict[str, str]) -> None:
        """What an outcome says of an answer is what the upstream's journal says."""
        digests = {content_digest(output) for output in taken.values()}
        for answer in result.runlane.answers:
            assert answer.outcome != AnswerOutcome.WAITING
            if answer.outcome == AnswerOutcome.SUBMITTED:
                assert answer.output_digest in digests, f"{answer} never arrived"
            elif answer.output_digest in digests:
                may = (AnswerOutcome.UNCERTAIN, AnswerOutcome.UNUSED)
                assert answer.outcome in may, f"{answer} arrived"
            if answer.outcome == AnswerOutcome.UNCERTAIN:
                assert self._stopped
            if answer.outcome == AnswerOutcome.OVERTAKEN:
                assert self._interfered


async def _journal(lab: Lab) -> list[dict[str, Any]]:
    """Return the requests that the upstream received for the lab's thread, the oldest first."""
    report = await asyncio.to_thread(lambda: lab.simulator.requests(thread_id=lab.thread_id))
    entries: list[dict[str, Any]] = report["data"]
    return entries


def _taken(journal: list[dict[str, Any]]) -> dict[str, str]:
    """Return the outputs that the upstream took from us, by call; hold that none came twice."""
    taken: dict[str, str] = {}
    used: Counter[tuple[str, str]] = Counter()
    for entry in journal:
        if entry["operation"] != "runs.submit_tool_outputs":
            continue
        for pair in entry["body"]["tool_outputs"]:
            call_id, output = pair["tool_call_id"], pair["output"]
            if output == _OTHERS:
                continue
            # Not even refused: an upstream more lenient than ours would take it.
            assert call_id not in taken, f"{call_id} was submitted after it had been taken"
            if entry["accepted"]:
                taken[call_id] = output
                used[entry["run_id"], output] += 1
    twice = [output for (_, output), count in used.items() if count > 1]
    assert not twice, f"answers to one call went to two: {twice}"
    return taken


@contextlib.contextmanager
def _unless_ended() -> Iterator[None]:
    """Let a message to a run that has ended meanwhile be refused."""
    try:
        yield
    except (RunClosed, NoWorker):
        pass
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise


class Stage:
    """Where scripts are played."""

    def __init__(self, client: Client, simulator: SimulatorProcess) -> None:
        self._client = client
        self._simulator = simulator
        self._histories: list[WorkflowHistory] = []
        self.played = 0

    async def play(self, scripts: list[Script]) -> None:
        """Play scripts, many at once; the first that breaks the property raises."""
        waiting = {cache: iter([s for s in scripts if s.cache == cache]) for cache in _CACHES}

        async def play_some(cache: int, lab: Lab) -> None:
            for script in waiting[cache]:
                await self._play(script, lab)
                self.played += 1

        async with contextlib.AsyncExitStack() as stack:
            some = []
            for cache, (pairs, at_once) in _PLAYERS.items():
                for _ in range(pairs):
                    lab = Lab(self._client, self._simulator)
                    await stack.enter_async_context(lab.worker(max_cached_workflows=cache))
                    some += [asyncio.create_task(play_some(cache, lab)) for _ in range(at_once)]
            try:
                await asyncio.gather(*some)
            finally:
                for task in some:
                    task.cancel()
                await asyncio.gather(*some, return_exceptions=True)

    async def replay(self) -> int:
        """Replay the histories of all that was played; return how many there were."""
        await replay(self._client, self._histories)
        return len(self._histories)

    async def _play(self, script: Script, shared: Lab) -> None:
        lab = Lab(self._client, self._simulator)
        lab.task_queue = shared.task_queue
        await lab.scenario(
            expires_after=0,
            polls=script.polls,
            cancel_seconds=0,
            rounds=_asking(script.rounds),
            attempts={} if script.reworded is None else {"2": _asking(script.reworded)},
        )
        if script.create_lost:
            await lab.fault("runs.create", "lost_answer")
        deadline = _DEADLINE if script.ending == "abandoned" else RunOptions().deadline
        run = await lab.start(timing=_TIMING, deadline=deadline)
        try:
            await Play(script, lab, run).perform()
            for events in await chain(self._client, run):
                assert not _failures(events)
                self._histories.append(WorkflowHistory(run.id, events))
        except Exception as error:
            entries = await _journal(lab)
            told = [(e["operation"], e["status"], e["accepted"], e["body"]) for e in entries]
            error.add_note(f"{script}\n" + "\n".join(map(str, told)))
            with contextlib.suppress(Exception):
                view = await asyncio.wait_for(run.handle.result(), 1)
                error.add_note(view.model_dump_json())
            raise


async def replay(client: Client, histories: list[WorkflowHistory]) -> None:
    """Replay histories; the first that today's workflow would not have written raises."""

    async def each() -> AsyncIterator[WorkflowHistory]:
        for history in histories:
            yield history

    replayer = Replayer(
        workflows=WORKFLOWS,
        data_converter=client.data_converter,
        workflow_runner=_UNSANDBOXED,
    )
    await replayer.replay_workflows(each())


def _failures(events: list[HistoryEvent]) -> list[HistoryEvent]:
    """Return the workflow tasks that failed, other than at the end because a message came."""
    return [
        event
        for event in events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
        and event.workflow_task_failed_event_attributes.cause
        != WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND
    ]


def _asking(rounds: Rounds) -> list[dict[str, Any]]:
    return [{"calls": [_CALLS[index] for index in calls]} for calls in rounds]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def restless(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """A client of a server that suggests to continue as new after a few events."""
    data_dir = tmp_path_factory.mktemp("restless")
    config = {"limit.historyCount.suggestContinueAsNew": SUGGESTED_AT}
    async with EmbeddedTemporal(data_dir, extra_dynamic_config=config) as server:
        yield await connect(encrypting(data_dir), environ={"TEMPORAL_ADDRESS": server.address})


@pytest.fixture
def stage(restless: Client, simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A stage; each fault that a script orders would be a warning in the log."""
    monkeypatch.setattr(logging.getLogger("temporalio"), "level", logging.CRITICAL)
    # Other tests hold the sandbox, and a run that comes back from an eviction needs a new one: here
    # that would be most of the time.
    monkeypatch.setattr("worker.Worker", partial(Worker, workflow_runner=_UNSANDBOXED))
    return Stage(restless, simulator)


def _seed() -> int:
    return int(os.environ.get(SEED_VARIABLE) or secrets.randbelow(2**32))


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_nothing_is_answered_twice_or_lost_and_every_run_ends(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """No order of answers, evictions and upstream events breaks what Runlane promises."""
    number = _seed()
    began = time.monotonic()
    executions = 0
    try:
        await stage.play(_write(number, EXAMPLES))
        executions = await stage.replay()
    finally:
        with capsys.disabled():
            print(
                f"\n{stage.played} examples, {executions} executions replayed, "
                f"{time.monotonic() - began:.0f} s; play them again with {SEED_VARIABLE}={number}",
                # The one stream that pytest-xdist lets through.
                file=sys.stderr,
            )

    assert stage.played == EXAMPLES


def _held_without_account(state: RunState, answer: Answer) -> bool:
    return answer.output is not None and answer.attempt < state.attempt


_assess = answers.assess


def _every_answer_is_the_first(
    state: RunState, output: ToolOutputMessage, *, by_signal: bool = False
) -> Receipt:
    if any(call.id == output.tool_call_id for call in state.calls):
        return Receipt(tool_call_id=output.tool_call_id, status=ReceiptStatus.ACCEPTED)
    return _assess(state, output, by_signal=by_signal)


async def _never_looks(self: RunActivities, input: SubmitInput) -> None:
    return None


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "part",
    [
        pytest.param((answers, "_is_held", _held_without_account), id="one answer, many calls"),
        pytest.param((answers, "assess", _every_answer_is_the_first), id="the last answer stands"),
        pytest.param((RunActivities, "_settled_submit", _never_looks), id="submit without a look"),
    ],
)
async def test_the_property_fails_without_the_de_duplication(
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    part: tuple[object, str, Callable[..., Any]],
) -> None:
    """With any one part of the de-duplication taken out, the same examples find it out."""
    monkeypatch.setattr(*part)
    number = _seed()

    with pytest.raises(PropertyBroken) as caught:
        await stage.play(_write(number, EXAMPLES))

    with capsys.disabled():
        said = str(caught.value).partition("\n")[0]
        print(f"\n{said}: after {stage.played} examples; {SEED_VARIABLE}={number}", file=sys.stderr)


@pytest.mark.parametrize("repetition", range(10))
async def test_answers_that_arrive_together_replay(
    restless: Client, simulator: SimulatorProcess, repetition: int
) -> None:
    """Updates and signals that share a workflow task can be replayed: at once, and from the end."""
    lab = Lab(restless, simulator)
    calls = [{"name": "look_up", "arguments": {"order": order}} for order in range(6)]
    await lab.scenario(expires_after=0, polls=0, rounds=[{"calls": calls}, {"says": "Done."}])
    async with lab.worker(max_cached_workflows=0):
        run = await lab.start()
        pending = (await run.until_status("requires_action")).runlane.pending
        deliver = (run.submit, run.signal)
        await asyncio.gather(
            *(
                deliver[(number + repetition) % 2]((call.tool_call_id, f"output {number}"))
                for number, call in enumerate(pending)
            )
        )
        result = await run.result()

    assert len(result.runlane.answers) == 6
    executions = await chain(restless, run)
    assert [] == [event for events in executions for event in _failures(events)]
    await replay(restless, [WorkflowHistory(run.id, events) for events in executions])
