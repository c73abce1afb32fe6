"""Notices about approvals: which are due, and sending them beside everything else.

Nothing waits for one: no decision, and not the run's end. What is under way then is handed on to
a workflow of its own, so that a receiver that was away all night still gets it.
"""

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)

with workflow.unsafe.imports_passed_through():
    from activities.notify import (
        ATTEMPT_TIMEOUT,
        Notice,
        NoticeEvent,
        NotifyActivities,
        notice_id,
    )
    from activities.tools import Rule
    from workflows.approval import Approval, asked_groups, deadline
    from workflows.contract import NOTICES_WORKFLOW, notices_workflow_id
    from workflows.notice import AskedCall, LeftNotices, OpenNotice
    from workflows.state import OpenCall, RunState
    from workflows.task_queues import notify_task_queue

TRIED_FOR = timedelta(days=1)
CLOSED = "closed"
"""The outcome of a call that nobody decided, since its round or its run has ended."""

_RETRIES = RetryPolicy(
    initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=10)
)
_MARGIN = timedelta(seconds=5)


class Notices:
    """Sends them. Which are due or under way stands in the state; here are only the tasks."""

    def __init__(self, state: RunState, now: Callable[[], float]) -> None:
        self._state = state
        self._now = now
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_closed = False

    def attend(self) -> None:
        """Begin to send what has become due, and what another execution was sending."""
        now = self._now()
        for notice in due(self._state, workflow.info().workflow_id, now):
            until = now + TRIED_FOR.total_seconds()
            self._state.notices.append(OpenNotice(notice=notice, until_at=until))
        for each in self._state.notices:
            if not self._is_closed and each.notice.id not in self._tasks:
                self._tasks[each.notice.id] = asyncio.create_task(self._see_to(each))

    async def drop(self) -> None:
        """Give up what is being sent, and begin nothing more; the state keeps it."""
        self._is_closed = True
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await workflow.wait(tasks)

    async def hand_on(self) -> None:
        """Give what isn't sent yet to a workflow that outlives the run."""
        self.attend()
        await self.drop()
        if not self._state.notices:
            return
        left = LeftNotices(notices=self._state.notices)
        self._state.notices = []
        try:
            await workflow.start_child_workflow(
                NOTICES_WORKFLOW,
                left,
                id=notices_workflow_id(workflow.info().workflow_id),
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            )
        except WorkflowAlreadyStartedError:
            # A Reset: those of the execution before it are on their way.
            return

    async def _see_to(self, each: OpenNotice) -> None:
        await send(each, self._now())
        self._state.notices.remove(each)
        self._tasks.pop(each.notice.id, None)


async def send(open_notice: OpenNotice, now: float) -> None:
    """Send a notice, for as long as it is to be tried."""
    notice = open_notice.notice
    try:
        await workflow.execute_activity_method(
            NotifyActivities.send,
            notice,
            task_queue=notify_task_queue(workflow.info().task_queue),
            start_to_close_timeout=ATTEMPT_TIMEOUT + _MARGIN,
            schedule_to_close_timeout=timedelta(seconds=max(open_notice.until_at - now, 1.0)),
            retry_policy=_RETRIES,
            # Nobody waits for it, and to ask for its end would cost an event.
            cancellation_type=workflow.ActivityCancellationType.ABANDON,
        )
    except ActivityError as error:
        if is_cancelled_exception(error):
            raise asyncio.CancelledError from None
        workflow.logger.warning("Not everybody took %s %s", notice.event, notice.id)


def due(state: RunState, run_id: str, now: float) -> Iterator[Notice]:
    """Say what is to be told now, and note in the state that it is."""
    calls = {call.id: call for call in state.calls}
    told = {asked.notice.tool_call_id for asked in state.asked}
    for call in state.calls:
        if call.rule is not None and call.rule.notify and _waits(call) and call.id not in told:
            first = _notice(state, run_id, NoticeEvent.REQUESTED, call, call.rule, now=now)
            state.asked.append(AskedCall(notice=first))
            yield first
    for asked in list(state.asked):
        call_now = calls.get(asked.notice.tool_call_id)
        if call_now is None or call_now.rule is None:
            # Not by a person: its round or its run has ended without it.
            state.asked.remove(asked)
            state.notices_made += 1
            event, call_id = NoticeEvent.DECIDED, asked.notice.tool_call_id
            number = notice_id(run_id, call_id, event, state.notices_made)
            yield asked.notice.model_copy(
                update={"id": number, "event": event, "at": now, "outcome": CLOSED}
            )
        elif _waits(call_now):
            news = _event(asked, call_now.approval or Approval())
            if news is not None:
                asked.notice = _notice(state, run_id, news, call_now, call_now.rule, now=now)
                yield asked.notice
        else:
            approval = call_now.approval or Approval()
            last = _notice(state, run_id, NoticeEvent.DECIDED, call_now, call_now.rule, now=now)
            state.asked.remove(asked)
            outcome = None if approval.decided is None else approval.decided.value
            yield last.model_copy(update={"outcome": outcome or CLOSED, "by": approval.decided_by})


def _waits(call: OpenCall) -> bool:
    decided = call.approval is not None and call.approval.decided is not None
    return call.handled_by == "people" and not decided


def _event(asked: AskedCall, approval: Approval) -> NoticeEvent | None:
    """Say which news there is for whoever was asked; an escalation is a reminder, too."""
    before = asked.group, asked.reminders
    asked.group, asked.reminders = approval.group, approval.reminders
    if approval.group > before[0]:
        return NoticeEvent.ESCALATED
    return NoticeEvent.REMINDER if approval.reminders > before[1] else None


def _notice(
    state: RunState, run_id: str, event: NoticeEvent, call: OpenCall, rule: Rule, *, now: float
) -> Notice:
    approval = call.approval or Approval()
    state.notices_made += 1
    return Notice(
        id=notice_id(run_id, call.id, event, state.notices_made),
        event=event,
        at=now,
        run_id=run_id,
        tool_call_id=call.id,
        tool=call.name,
        reason=call.uncertain or rule.reason,
        approvers=rule.approvers,
        groups=asked_groups(rule, approval),
        have=len(approval.approvals),
        need=rule.approvals,
        since=call.since_at,
        deadline=deadline(rule, approval),
        arguments_digest=rule.arguments_digest,
        tool_digest=rule.tool_digest,
    )
