"""Decisions at work: verified beside everything else that a run does, and minded when none comes.

Nothing holds one up: no look at the upstream, no other call's tool, no webhook. Which are under
way stands in the state; here are only the tasks.
"""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    import workflows.approvals as approvals
    import workflows.decided as decided
    import workflows.progress as progress
    from activities.decision import Decision, DecisionKind
    from activities.decisions import DecisionActivities, LapseInput, VerifyInput
    from activities.heartbeat import HEARTBEAT_TIMEOUT
    from activities.tools import Call, Rule
    from workflows.approval import Approval, asked_groups, claimant, deadline
    from workflows.contract import RunRequest
    from workflows.state import OpenCall, RunState

_ENDED = "The run ended before it was verified."
_ATTEMPT_FOR = timedelta(seconds=60)
"""Of one try; while the ledger is down there is one after the other."""
_LAST_WRITES_FOR = timedelta(seconds=30)
"""How long a run that has ended waits for the ledger to know of its last deadlines."""
_RETRIES = RetryPolicy(
    initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=3)
)


class Deciding:
    """Verifies decisions, and does what is due where nobody decides.

    Args:
        request: of the run.
        state: of the run.
        now: returns unix seconds.
        changed: is called when a decision has come to count, or not to.
    """

    def __init__(
        self,
        request: RunRequest,
        state: RunState,
        now: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self._request = request
        self._state = state
        self._now = now
        self._changed = changed
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_closed = False

    def attend(self) -> None:
        """Begin to verify what nobody verifies yet."""
        if self._is_closed:
            return
        for decision in decided.unverified(self._state):
            key = approvals.content(decision)
            if key not in self._tasks:
                self._tasks[key] = asyncio.create_task(self._verify(key, decision))
        for lapse in self._state.lapses:
            key = f"{lapse.call.id} {lapse.attempt} {lapse.round} {lapse.at}"
            if key not in self._tasks:
                self._tasks[key] = asyncio.create_task(self._write_down(key, lapse))

    def mind_deadlines(self) -> None:
        """Do what is due where nobody has decided about a call."""
        if self._state.stop is not None:
            return
        decided.remind(self._state, self._now())
        undecided = decided.lapse(self._state, self._now())
        if undecided is not None:
            progress.fail_undecided(self._state, undecided, self._now())

    def due_at(self) -> float | None:
        """Return when `mind_deadlines` has something to do next, if nobody decides before."""
        return None if self._state.stop is not None else decided.next_at(self._state)

    async def close(self) -> None:
        """Give up what is under way and begin no more here; the state keeps the decisions."""
        state = self._state
        if state.ended_at is not None and state.lapses:
            # No other execution is to write them down.
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(lambda: not state.lapses, timeout=_LAST_WRITES_FOR)
        self._is_closed = True
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await workflow.wait(tasks)
        if self._state.ended_at is not None:
            for decision in decided.unverified(self._state):
                decided.apply(self._state, decision, _ENDED, self._now())

    async def _write_down(self, key: str, lapse: LapseInput) -> None:
        """Have the ledger know of a deadline that has passed; nothing waits for it."""
        try:
            await workflow.execute_activity_method(
                DecisionActivities.lapse,
                lapse.model_copy(update={"owner": self._request.owner}),
                start_to_close_timeout=_ATTEMPT_FOR,
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                retry_policy=_RETRIES,
                cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                return
        self._state.lapses.remove(lapse)
        self._tasks.pop(key, None)

    async def _verify(self, key: str, decision: Decision) -> None:
        asked = self._input(decision)
        refusal: str | None = "The call waited no more when it was to be verified."
        if asked is not None:
            try:
                verified = await workflow.execute_activity_method(
                    DecisionActivities.verify,
                    asked,
                    start_to_close_timeout=_ATTEMPT_FOR,
                    heartbeat_timeout=HEARTBEAT_TIMEOUT,
                    retry_policy=_RETRIES,
                    cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
                )
                refusal = verified.refusal
            except ActivityError as error:
                if is_cancelled_exception(error):
                    return
                refusal = "It could not be verified."
        self._tasks.pop(key, None)
        decided.apply(self._state, decision, refusal, self._now())
        self._changed()

    def _input(self, decision: Decision) -> VerifyInput | None:
        request, state = self._request, self._state
        if decision.kind is DecisionKind.REVOKE:
            given = approvals.standing_of(state, decision)
            if given is None:
                return None
            call = Call(id=decision.tool_call_id, name=given.tool, arguments="")
            return VerifyInput(
                decision=decision,
                call=call,
                rule=given.rule,
                asked=given.rule.groups,
                owner=request.owner,
                attempt=state.attempt,
                round=state.rounds,
            )
        waiting = approvals.call_of(state, decision)
        if waiting is None or waiting.rule is None:
            return None
        return self._of_call(decision, waiting, waiting.rule, waiting.approval or Approval())

    def _of_call(
        self, decision: Decision, call: OpenCall, rule: Rule, approval: Approval
    ) -> VerifyInput:
        request, state = self._request, self._state
        began = next((each for each in state.executions if each.id == call.execution), None)
        return VerifyInput(
            decision=decision,
            call=Call(id=call.id, name=call.name, arguments=call.arguments),
            rule=rule,
            asked=asked_groups(rule, approval),
            requested_by=request.requested_by,
            owner=request.owner,
            attempt=state.attempt,
            round=state.rounds,
            since_at=call.since_at,
            deadline_at=deadline(rule, approval),
            have=len(approval.approvals),
            claimed_by=claimant(approval, self._now()),
            completes=decided.completes(call, decision),
            uncertain=call.uncertain is not None,
            ordinal=0 if began is None else began.ordinal,
            begun_digest=None if began is None else began.arguments_digest,
            model=None if state.run is None else state.run.model,
        )
