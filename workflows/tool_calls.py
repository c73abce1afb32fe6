"""The workers' part in the open round: who answers each call, and the tools that are run.

What becomes of a call stands in the state; here are only the tasks.
"""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    import workflows.answers as answers
    import workflows.executions as executions
    import workflows.kept_approvals as kept_approvals
    from activities.heartbeat import HEARTBEAT_TIMEOUT
    from activities.tool_calls import ToolActivities
    from activities.tools import Call, Called, CallInput, Classified, ClassifyInput
    from workflows.contract import RunRequest
    from workflows.shown import Shown
    from workflows.state import Execution, OpenCall, RunState
    from workflows.task_queues import tools_task_queue

_CLASSIFY_WITHIN = timedelta(minutes=2)
"""More than policies have; a ledger that is down is waited for by trying again."""
_MARGIN = 3600.0
"""Seconds beyond a tool's own time until its activity counts as stuck. A worker's death is told by
heartbeats; this is for waiting until the ledger answers."""
_RETRIES = RetryPolicy(maximum_interval=timedelta(seconds=3))
_LOST = "no worker said in time what became of it"


class ToolCalls:
    """Sees that what is the workers' to do is done.

    Args:
        request: of the run.
        state: of the run.
        shown: what lists see, written when calls have found who answers them.
        now: returns unix seconds.
        time_left: returns how long anything may take.
    """

    def __init__(
        self,
        request: RunRequest,
        state: RunState,
        shown: Shown,
        now: Callable[[], float],
        time_left: Callable[[], timedelta],
    ) -> None:
        self._request = request
        self._state = state
        self._now = now
        self._time_left = time_left
        self._shown = shown
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._classifying: asyncio.Task[None] | None = None
        self._asked: list[OpenCall] = []
        self._held_back: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def attend(self) -> None:
        """See that each call is classified, and that what a worker is to run runs."""
        state = self._state
        if state.stop is not None or self._is_closed:
            return
        self._classify()
        executions.settled(state)
        executions.resume(state)
        executions.begin(state, self._now())
        for execution in list(state.executions):
            task = self._tasks.get(execution.id)
            if not executions.wanted(state, execution):
                self._give_up(execution)
            elif task is None or task.done():
                self._tasks[execution.id] = asyncio.create_task(self._run(execution))

    async def see_through(self) -> None:
        """Wait for what may change something outside, but no longer than for the upstream's end."""
        if executions.is_busy(self._state):
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: not executions.is_busy(self._state),
                    timeout=timedelta(seconds=self._request.options.timing.cancel_for),
                )

    async def close(self) -> None:
        """Begin nothing any more in this execution of the workflow."""
        self._is_closed = True
        await self.drop()

    async def drop(self) -> None:
        """Give up what only reads, which does no harm, and let nothing else begin that hasn't."""
        self._hold_back()
        dropped = [] if self._classifying is None else [self._classifying]
        self._classifying = None
        reading = [each.id for each in self._state.executions if each.rule.read_only]
        dropped += [self._tasks.pop(each) for each in reading if each in self._tasks]
        for task in dropped:
            task.cancel()
        if dropped:
            await workflow.wait(dropped)

    def _hold_back(self) -> None:
        """Have an activity come back whose tool hasn't begun; one that runs is seen through."""
        for execution in self._state.executions:
            task = self._tasks.get(execution.id)
            if task is not None and not execution.rule.read_only and task not in self._held_back:
                self._held_back.add(task)
                task.cancel()

    def _classify(self) -> None:
        """Ask a worker who answers the calls of which nobody said yet."""
        calls = [c for c in answers.unanswered(self._state) if c.handled_by == "unclassified"]
        under_way = self._classifying is not None and not self._classifying.done()
        if under_way and not all(any(call is each for each in self._asked) for call in calls):
            # Another round has come meanwhile.
            under_way = False
        if self._classifying is not None and (not calls or not under_way):
            self._classifying.cancel()
            self._classifying = None
        if calls and not under_way:
            self._asked = calls
            self._classifying = asyncio.create_task(self._take_classified(calls))

    async def _take_classified(self, calls: list[OpenCall]) -> None:
        state = self._state
        try:
            classified: Classified = await workflow.execute_activity_method(
                ToolActivities.classify,
                ClassifyInput(
                    calls=[_call(call) for call in calls],
                    attempt=state.attempt,
                    round=state.rounds,
                    model=None if state.run is None else state.run.model,
                    owner=self._request.owner,
                    asked_at=self._now(),
                    begun=state.begun_here,
                ),
                start_to_close_timeout=_CLASSIFY_WITHIN,
                schedule_to_close_timeout=self._time_left(),
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                retry_policy=_RETRIES,
                cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
            )
        except ActivityError:
            # Cancelled, or the run's time is over.
            return
        for call in calls:
            if any(call is each for each in state.calls) and call.handled_by == "unclassified":
                handling = classified.calls[call.id]
                executions.classify(call, handling)
                if handling.output is not None:
                    answers.give(
                        state, call, handling.output, executions.BY + call.name, self._now()
                    )
                kept_approvals.attach(state, call)
        answers.use_early(state)
        self._attend_again()

    async def _run(self, execution: Execution) -> None:
        try:
            called: Called = await workflow.execute_activity_method(
                ToolActivities.call,
                CallInput(
                    call=_call(execution, execution.tool_call_id),
                    rule=execution.rule,
                    owner=self._request.owner,
                    ordinal=execution.ordinal,
                    attempt=execution.attempt,
                    round=execution.round,
                    model=None if self._state.run is None else self._state.run.model,
                    room=execution.room,
                    decisions=execution.decisions,
                ),
                task_queue=tools_task_queue(workflow.info().task_queue),
                start_to_close_timeout=timedelta(seconds=execution.timeout + _MARGIN),
                schedule_to_close_timeout=self._tools_time_left(execution),
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                retry_policy=_RETRIES,
                cancellation_type=(
                    workflow.ActivityCancellationType.TRY_CANCEL
                    if execution.rule.read_only
                    else workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
                ),
            )
        except ActivityError:
            # Cancelled, too: an earlier try may have begun it.
            if not execution.rule.read_only:
                executions.doubt(self._state, execution, _LOST)
                self._shown.update(self._state)
            return
        self._take(execution, called)
        self._attend_again()

    def _take(self, execution: Execution, called: Called) -> None:
        self._tasks.pop(execution.id, None)
        if called.outcome == "changed":
            executions.undo(self._state, execution)
        elif called.outcome == "uncertain" or called.output is None:
            executions.doubt(self._state, execution, called.reason or _LOST)
        else:
            executions.end(self._state, execution, called.output, called.failure, self._now())

    def _attend_again(self) -> None:
        self.attend()
        self._shown.update(self._state)

    def _give_up(self, execution: Execution) -> None:
        task = self._tasks.pop(execution.id, None)
        if task is not None:
            task.cancel()
        if execution.uncertain is None:
            self._state.executions.remove(execution)

    def _tools_time_left(self, execution: Execution) -> timedelta:
        if execution.rule.read_only:
            return self._time_left()
        # It is waited for when the run ends; to give it up tells nothing of what it did.
        ending = timedelta(seconds=self._request.options.timing.cancel_for)
        return self._time_left() + ending


def _call(call: Any, call_id: str | None = None) -> Call:
    return Call(id=call_id or call.id, name=call.name, arguments=call.arguments)
