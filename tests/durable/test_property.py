"""Any order of answers, evictions and upstream events: nothing twice, nothing lost, an end.

Hypothesis writes scripts; each is played by a run of its own, on Temporal's own server and over
real HTTP. Many are at play at once, on workers that keep none, few or all of the runs in memory,
and the server suggests to continue as new after a few events. Afterwards the upstream's journal,
the receipts and the run's result must agree, and every history must replay.

No script asks a worker for its view: a worker that keeps no run drops a query that meets a task of
the same run. What is pending is read where lists read it, from the memo.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, Worker

from activities.contract import SubmitInput
from activities.runs import RunActivities
from runlane.embedded import EmbeddedTemporal
from runlane.temporal import connect
from tests.histories import chain
from tests.lab import Lab
from tests.plays import TIMING, Play, PropertyBroken, journal_of
from tests.scripts import Script, asking, write_scripts
from tests.simulator_process import SimulatorProcess
from tests.temporal_server import encrypting
from worker import MAX_CACHED_WORKFLOWS, WORKFLOWS
from workflows import answers
from workflows.contract import Receipt, ReceiptStatus, RunOptions, ToolOutputMessage
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
_DEADLINE = 4.0
"""Seconds that runs have which get no answers after their script is over."""
_UNSANDBOXED = UnsandboxedWorkflowRunner()


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
            rounds=asking(script.rounds),
            attempts={} if script.reworded is None else {"2": asking(script.reworded)},
        )
        if script.create_lost:
            await lab.fault("runs.create", "lost_answer")
        deadline = _DEADLINE if script.ending == "abandoned" else RunOptions().deadline
        run = await lab.start(timing=TIMING, deadline=deadline)
        try:
            await Play(script, lab, run).perform()
            for events in await chain(self._client, run):
                assert not _failures(events)
                self._histories.append(WorkflowHistory(run.id, events))
        except Exception as error:
            entries = await journal_of(lab)
            told = [(e["operation"], e["status"], e["accepted"], e["body"]) for e in entries]
            error.add_note(f"{script}\n" + "\n".join(map(str, told)))
            with contextlib.suppress(Exception):
                events = (await asyncio.wait_for(chain(self._client, run), 10))[-1]
                kinds = [f"{e.event_id} {EventType.Name(e.event_type)[11:]}" for e in events]
                error.add_note(", ".join(kinds[-80:]))
                for event in _failures(events):
                    failed = event.workflow_task_failed_event_attributes
                    error.add_note(f"{event.event_id}: {failed.failure.message}")
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
        await stage.play(write_scripts(number, EXAMPLES))
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
    state: RunState, output: ToolOutputMessage, *, by_signal: bool = False, decided: bool = False
) -> Receipt:
    if any(call.id == output.tool_call_id for call in state.calls):
        return Receipt(tool_call_id=output.tool_call_id, status=ReceiptStatus.ACCEPTED)
    return _assess(state, output, by_signal=by_signal, decided=decided)


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
        await stage.play(write_scripts(number, EXAMPLES))

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
