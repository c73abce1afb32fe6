"""The calls of the open round that the worker answers itself, side by side with those of others."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    import workflows.answers as answers
    from activities.heartbeat import HEARTBEAT_TIMEOUT
    from activities.tool_calls import ToolActivities
    from activities.tools import Call, CallInput, ClassifyInput
    from workflows.contract import (
        ReceiptStatus,
        ToolOutputMessage,
        ToolOutputs,
        tools_task_queue,
    )
    from workflows.state import OpenCall, RunState

BY = "tool:"
"""What stands before a tool's name where a view says who gave an answer."""

_TOO_LARGE = "The tool's output is too large for this round of calls."
_CLASSIFY_WITHIN = timedelta(seconds=30)
_MARGIN = 10.0
"""Seconds beyond a tool's own time until its activity counts as stuck."""
_RETRIES = RetryPolicy(maximum_interval=timedelta(seconds=3))


class ToolCalls:
    """Drives them. What becomes of a call stands in the state; here are only the tasks."""

    def __init__(self, state: RunState, now: Callable[[], float]) -> None:
        self._state = state
        self._now = now
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def unclassified(self) -> list[OpenCall]:
        """Return the open calls of which nobody said yet who answers them."""
        return [
            call for call in answers.unanswered(self._state) if call.handled_by == "unclassified"
        ]

    async def classify(self, time_left: timedelta, is_news: Callable[[], bool]) -> None:
        """Ask a worker who answers the calls; come back early when something else is news."""
        calls = self.unclassified()
        classifying = workflow.start_activity_method(
            ToolActivities.classify,
            ClassifyInput(
                calls=[_call(call) for call in calls],
                run_id=workflow.info().workflow_id,
                attempt=self._state.attempt,
                round=self._state.rounds,
                asked_at=self._now(),
            ),
            task_queue=tools_task_queue(workflow.info().task_queue),
            start_to_close_timeout=_CLASSIFY_WITHIN,
            schedule_to_close_timeout=time_left,
            retry_policy=_RETRIES,
        )
        await workflow.wait_condition(lambda: classifying.done() or is_news())
        if not classifying.done():
            classifying.cancel()
        try:
            classified = await classifying
        except ActivityError:
            return
        for call in calls:
            handling = classified.calls[call.id]
            call.handled_by, call.timeout = handling.by, handling.timeout
            call.rule, call.beside = handling.rule, handling.beside
            if handling.output is not None:
                self._deliver(call, handling.output)

    def attend(self, time_left: timedelta) -> None:
        """Run what is the worker's to run and isn't running."""
        waiting = {c.id: c for c in answers.unanswered(self._state) if c.handled_by == "worker"}
        for call_id in [each for each in self._tasks if each not in waiting]:
            self._tasks.pop(call_id).cancel()
        for call_id, call in waiting.items():
            if call_id not in self._tasks:
                self._tasks[call_id] = asyncio.create_task(self._answer(call, time_left))

    async def drop(self) -> None:
        """Give up what is running: it only reads, and is run again where it is still wanted."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await workflow.wait(tasks)

    async def _answer(self, call: OpenCall, time_left: timedelta) -> None:
        if call.rule is None:
            raise RuntimeError("No call is a worker's without a rule")
        try:
            called = await workflow.execute_activity_method(
                ToolActivities.call,
                CallInput(run_id=workflow.info().workflow_id, call=_call(call), rule=call.rule),
                task_queue=tools_task_queue(workflow.info().task_queue),
                start_to_close_timeout=timedelta(seconds=call.timeout + _MARGIN),
                schedule_to_close_timeout=time_left,
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                retry_policy=_RETRIES,
                cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
            )
        except ActivityError:
            # Cancelled, or no worker could say anything: somebody else may answer it.
            called = None
        if called is None or called.output is None:
            call.handled_by = "caller"
        else:
            self._deliver(call, called.output)

    def _deliver(self, call: OpenCall, output: str) -> None:
        for text in (output, _TOO_LARGE):
            message = ToolOutputMessage(tool_call_id=call.id, output=text)
            delivery = ToolOutputs(tool_outputs=[message], by=BY + call.name)
            (receipt,) = answers.deliver(self._state, delivery, now=self._now(), by_signal=False)
            if receipt.status != ReceiptStatus.TOO_LARGE:
                return
        call.handled_by = "caller"


def _call(call: OpenCall) -> Call:
    return Call(id=call.id, name=call.name, arguments=call.arguments)
