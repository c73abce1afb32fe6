"""The `Run` workflow: one run from create to its end, whatever dies on the way.

The state says what comes next, and each step changes the state; so a run goes on after a
continue-as-new, a nudge or a mended key exactly where it was.
"""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutType
from temporalio.exceptions import TimeoutError as ActivityTimeoutError

with workflow.unsafe.imports_passed_through():
    # Not `from workflows import …`: that runs each of them again for every run, unseen by the
    # pass-through, which costs each run in memory 80 kB.
    import workflows.answers as answers
    import workflows.attempts as attempts
    import workflows.contract as contract
    import workflows.ending as ending
    import workflows.executions as executions
    import workflows.polling as polling
    import workflows.progress as progress
    import workflows.tool_calls as tool_calls
    from activities import failures
    from activities.contract import (
        CancelInput,
        CreateInput,
        Observed,
        Output,
        SubmitInput,
        Target,
        UpdateInput,
        call_digest,
    )
    from activities.heartbeat import HEARTBEAT_TIMEOUT
    from activities.runs import RunActivities
    from runsapi import TERMINAL, Run, RunStatus
    from workflows.handlers import NUDGE_PATIENCE, NUDGE_SPACING, RunHandlers
    from workflows.shown import memo
    from workflows.state import RunInput, StopReason
    from workflows.task_queues import poll_task_queue

RETRIES = RetryPolicy(maximum_interval=timedelta(seconds=3))
"""How soon what a dead worker held is given to another one, the heartbeat timeout past. Where the
upstream failed, the error itself says when to try again."""

_A_MOMENT = timedelta(milliseconds=1)
"""The shortest timer."""

_T = TypeVar("_T")


@workflow.defn(name=contract.WORKFLOW)
class RunWorkflow(RunHandlers):
    """Drives one run: create, wait, gather answers, submit, wait, until the end."""

    @workflow.init
    def __init__(self, input: RunInput) -> None:
        super().__init__(input)
        self._poll: asyncio.Task[Observed] | None = None
        self._tools = tool_calls.ToolCalls(
            self._request, self._state, self._shown, self._now, self._time_left
        )
        self._look_has_until = 0.0
        """Nudges that keep coming would else drop each look at a slow upstream under way."""
        self._may_have_acted = False
        """Whether the effect that failed last may have reached the upstream."""
        self._begun_anew = input.state is None and self._may_repeat()
        """Whether this is a Reset: upstream there may be a run that this history doesn't know."""

    @workflow.run
    async def run(self, input: RunInput) -> contract.RunView:
        """Drive the run to its end and return it with everything known of it."""
        lifecycle = asyncio.create_task(self._lifecycle())
        while not lifecycle.done():
            try:
                await workflow.wait_condition(lifecycle.done)
            except asyncio.CancelledError:
                # Temporal's own cancellation takes the same way as ours: whatever is under way
                # upstream is seen through, then cancelled there, then the truth is waited for.
                self._stop(StopReason.CANCEL)
        lifecycle.result()
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._state.ended_at is None:
            self._continue_as_new()
        return self.view()

    async def _lifecycle(self) -> None:
        """Take step after step until the run has ended or must go on in a fresh history."""
        while self._state.ended_at is None and not self._history_is_long():
            if self._now() >= self._state.deadline_at:
                self._stop(StopReason.DEADLINE)
            self._stop_is_news = False
            self._deciding.mind_deadlines()
            self._notices.attend()
            self._deciding.attend()
            self._tools.attend()
            if self._state.stop is not None:
                await self._tools.drop()
            await self._next_step()()
            self._shown.update(self._state)
        await self._drop_poll()
        await self._deciding.close()
        await self._tools.close()
        await self._notices.drop()
        if self._state.ended_at is None:
            # Of what comes in one task, Temporal's SDK hands over messages first and a cancellation
            # last: one that came with the message that made the history long would be lost here.
            await workflow.sleep(_A_MOMENT)

    def _next_step(self) -> Callable[[], Awaitable[None]]:  # noqa: PLR0911  # a table of cases
        """Say what the run does now."""
        state, run = self._state, self._state.run
        if state.stop is not None:
            return self._next_step_to_the_end()
        if self._is_blocked():
            return self._wait_while_blocked
        if run is None:
            return self._create
        expired = progress.is_expired(state, self._options)
        if run.status in TERMINAL and not expired:
            return self._end
        if state.metadata != state.metadata_sent and not expired:
            return self._update_metadata
        if executions.unready(state):
            return self._gather
        if expired:
            return self._create
        return self._submit if state.calls else self._wait

    def _next_step_to_the_end(self) -> Callable[[], Awaitable[None]]:
        """Say what a run does that was stopped: cancel upstream, find out the truth, end."""
        state, run = self._state, self._state.run
        if self._begun_anew and (run is None or progress.is_expired(state, self._options)):
            self._begun_anew, state.create_unsettled = False, True
        is_over = run is None or run.status in TERMINAL or state.stop == StopReason.GONE
        if (is_over and not state.create_unsettled) or self._now() >= self._give_up_at():
            return self._end
        if self._is_blocked():
            return self._wait_while_blocked
        if state.create_unsettled:
            return self._find_created
        return self._wait if state.cancel_sent else self._cancel

    # Steps

    async def _create(self) -> None:
        state = self._state
        if state.attempt > 0 and not attempts.may_recreate(state):
            await self._end()
            return
        metadata = dict(state.metadata)
        create_input = self._create_input()
        before, state.create_unsettled = state.create_unsettled, True
        created = await self._effect(RunActivities.create, create_input)
        if created is None:
            # That this try did nothing says nothing of the one before it.
            state.create_unsettled = before or self._may_have_acted
            return
        progress.take_over(state, self._options, created, self._now())
        # An earlier try sent what stood then.
        found = created.run if created.adopted else None
        state.metadata_sent = metadata if found is None else attempts.unstamped(found.metadata)

    async def _find_created(self) -> None:
        """Find out what a create did that was under way when the run was stopped."""
        found = await self._effect(
            RunActivities.create,
            self._create_input().model_copy(
                update={"find_only": True, "settle_for": self._options.timing.settle_for}
            ),
        )
        if found is not None and found.run is not None:
            progress.take_over(self._state, self._options, found, self._now())
        elif found is not None:
            self._state.create_unsettled = False
        else:
            # Nothing was learnt: what may be alive must not be taken for absent.
            self._state.create_unsettled = True
            if self._state.blocked is None:
                await self._until(lambda: False, self._now() + self._options.timing.blocked_floor)

    async def _wait(self) -> None:
        """Wait out a leg: attached while polls are frequent, by timers when they are rare."""
        state = self._state
        if self._poll is None:
            due = state.next_poll_at
            if due is not None and due > self._now() and not self._nudged:
                await self._until(lambda: self._nudged, due)
                return
            self._nudged = False
            self._poll = self._start_poll(attach=due is None)
        await self._until(lambda: self._poll_done() or self._nudge_helps())
        if self._poll_done():
            await self._take_poll()
        elif self._nudge_helps():
            await self._drop_poll()
            state.next_poll_at = self._now()

    async def _gather(self) -> None:
        """Wait until every open call is answered, and see meanwhile whether the upstream waits."""
        state = self._state
        parked = state.run is not None and state.run.status == RunStatus.EXPIRED
        if self._poll is None:
            look_at = None if parked else state.next_look_at
            if parked or (not self._nudged and (look_at is None or look_at > self._now())):
                await self._until(
                    lambda: not executions.unready(state) or (self._nudged and not parked), look_at
                )
                return
            self._nudged = False
            self._poll = self._start_poll(attach=False)
        await self._until(lambda: self._poll_done() or not executions.unready(state))
        if self._poll_done():
            await self._take_poll()
        elif not executions.unready(state):
            await self._drop_poll()

    async def _submit(self) -> None:
        state = self._state
        outputs = [
            Output(tool_call_id=call.id, output=answer.output or "")
            for call in state.calls
            if (answer := answers.answer_of(state, call.id)) is not None
        ]
        before, state.submit_unsettled = state.submit_unsettled, True
        submitted = await self._effect(
            RunActivities.submit_tool_outputs,
            SubmitInput(
                target=self._target(),
                tool_outputs=outputs,
                look_first=self._may_repeat()
                or before
                or state.blocked is not None
                or progress.is_stale(state, self._now()),
                asked={call.id: call_digest(call.name, call.arguments) for call in state.calls},
                stream=self._request.options.stream,
            ),
        )
        if submitted is None:
            state.submit_unsettled = before or self._may_have_acted
            return
        state.submit_unsettled = False
        if submitted.outcome != "expired":
            answers.close_round(state, contract.AnswerOutcome(submitted.outcome))
        self._start_leg(submitted.poll_after_ms)
        self._observe(submitted.run)

    async def _cancel(self) -> None:
        await self._drop_poll()
        cancelled = await self._effect(RunActivities.cancel, CancelInput(target=self._target()))
        if self._state.blocked is None:
            self._state.cancel_sent = True
        if cancelled is not None:
            self._start_leg(cancelled.poll_after_ms)
            self._observe(cancelled.run)

    async def _update_metadata(self) -> None:
        state = self._state
        before, state.metadata_sent = state.metadata_sent, dict(state.metadata)
        run_id = workflow.info().workflow_id
        await self._effect(
            RunActivities.update,
            UpdateInput(
                target=self._target(),
                metadata=attempts.stamped(run_id, state.attempt, state.metadata),
                try_for=self._options.timing.effect_for,
            ),
            may_fail=True,
        )
        if self._is_blocked():
            state.metadata_sent = before

    async def _wait_while_blocked(self) -> None:
        await self._until(lambda: self._nudged, self._state.blocked_until)
        if self._nudged or self._now() >= (self._state.blocked_until or 0.0):
            self._nudged = False
            self._state.blocked_until = None
            # One look, at once: an attached poll would neither hurry nor say soon that all is well.
            self._state.next_poll_at = self._now()

    async def _end(self) -> None:
        await self._tools.see_through()
        ending.end(self._state, self._request, self._now())
        await self._hand_on()

    # Effects: create, submit, cancel and update

    async def _effect(
        self, method: Callable[..., Awaitable[_T]], input: object, *, may_fail: bool = False
    ) -> _T | None:
        """Do something upstream, and see it through to its answer.

        When the run is stopped meanwhile, the activity is asked to come back: it finishes a
        request that is on its way, for only its answer tells what it did, and makes no other.

        Args:
            method: The activity.
            input: Its input.
            may_fail: The run goes on without it where the upstream won't, can't, or isn't in time.

        Returns:
            The result, or none when the state says why not: blocked, refused or stopped.
        """
        state = self._state
        self._may_have_acted = True
        activity: asyncio.Task[Any] = workflow.start_activity_method(
            method,
            input,
            start_to_close_timeout=timedelta(seconds=self._options.timing.request_for),
            schedule_to_close_timeout=self._time_left(),
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=RETRIES,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        await workflow.wait_condition(lambda: activity.done() or self._stop_is_news)
        if not activity.done():
            activity.cancel()
        try:
            result: _T = await activity
        except ActivityError as error:
            if not (may_fail and failures.blocked_kind(error.cause) in (None, "not_found")):
                await self._take_failure(error)
            return None
        state.blocked = None
        return result

    async def _take_failure(self, error: ActivityError) -> None:
        """Make of a failed activity what the next step needs to know."""
        state, cause = self._state, error.cause
        if isinstance(cause, ApplicationError) and cause.type == failures.BLOCKED:
            kind, message, attempt, *bound = cause.details
            if state.upstream is None and bound and bound[0] is not None:
                state.upstream = contract.UpstreamView.model_validate(bound[0])
            self._may_have_acted = attempt > 1
            progress.block(state, self._options, contract.BlockedKind(kind), message, self._now())
        elif isinstance(cause, ApplicationError) and cause.type == failures.REFUSED:
            code, message, attempt = cause.details
            self._may_have_acted = attempt > 1
            # An answer that is final: nobody has to mend anything before the next step.
            state.blocked = None
            if state.stop is None:
                state.last_error = {"code": code, "message": message}
                self._stop(StopReason.REFUSED)
        elif (
            isinstance(cause, ActivityTimeoutError) and cause.type == TimeoutType.SCHEDULE_TO_START
        ):
            # No slot came free in time: a timer waits cheaper than a queue.
            state.next_poll_at = self._now() + self._options.timing.timer_from
            state.next_look_at = state.next_poll_at
            polling.schedule_look(state, self._options, self._now())
        elif not self._stop_is_news:
            # Temporal gave up since no further try would fit before the limit; wait it out.
            await self._until(lambda: False, self._limit())

    # Polls

    def _start_poll(self, *, attach: bool) -> asyncio.Task[Observed]:
        state, options = self._state, self._options
        self._look_has_until = 0.0 if attach else self._now() + NUDGE_PATIENCE
        poll = polling.retrieve_input(state, options, self._target(), self._now(), attach=attach)
        task: asyncio.Task[Observed] = workflow.start_activity_method(
            RunActivities.retrieve,
            poll,
            task_queue=poll_task_queue(workflow.info().task_queue),
            start_to_close_timeout=timedelta(seconds=poll.attach_for + options.timing.request_for),
            schedule_to_close_timeout=self._time_left(),
            schedule_to_start_timeout=timedelta(seconds=options.timing.slot_within),
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=RETRIES,
            cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
        )
        return task

    async def _take_poll(self) -> None:
        """Take what the finished poll saw, and say when to look again."""
        state = self._state
        if self._poll is None:
            return
        poll, self._poll = self._poll, None
        self._polled_at = self._now()
        try:
            observed = await poll
        except ActivityError as error:
            await self._take_failure(error)
            return
        # Whoever nudged meanwhile wanted this look.
        self._nudged = False
        state.polls += observed.polls
        state.poll_after_ms = observed.poll_after_ms
        self._observe(observed.run)
        polling.schedule_poll(state, self._options, self._now())
        if state.calls:
            polling.schedule_look(state, self._options, self._now())

    async def _drop_poll(self) -> None:
        """Give up the poll under way, if there is one: it changes nothing upstream."""
        poll, self._poll = self._poll, None
        if poll is None:
            return
        poll.cancel()
        await workflow.wait([poll])
        if not poll.cancelled():
            # Asked for, so that asyncio doesn't log it as an error nobody looked at.
            poll.exception()

    def _poll_done(self) -> bool:
        return self._poll is not None and self._poll.done()

    def _start_leg(self, poll_after_ms: int | None) -> None:
        progress.start_leg(self._state, self._options, poll_after_ms, self._now())

    def _observe(self, run: Run) -> None:
        progress.observe(self._state, self._options, run, self._now())

    async def _until(self, condition: Callable[[], bool], at: float | None = None) -> None:
        """Wait for the condition, or until `at`; be back for whatever else needs a step."""
        instants = [each for each in (at, self._deciding.due_at()) if each is not None]
        until = min([*instants, self._limit()]) if instants or self._poll is None else math.inf

        def due_sooner() -> bool:
            due = self._deciding.due_at()
            return due is not None and due < until

        seconds = None if until == math.inf else max(until - self._now(), 0.001)
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: condition() or self._has_news() or due_sooner(), timeout=seconds
            )

    def _has_news(self) -> bool:
        state = self._state
        return (
            self._stop_is_news
            or self._history_is_long()
            or (
                # While blocked or parked there is nobody to tell.
                state.metadata != state.metadata_sent
                and state.stop is None
                and state.blocked is None
                and state.run is not None
                and state.run.status not in TERMINAL
            )
        )

    def _nudge_helps(self) -> bool:
        """Tell whether to poll at once; an attached poll at two seconds or less is about to."""
        return (
            self._nudged
            and self._now() >= self._look_has_until
            and polling.interval(self._state, self._options, self._now()) > NUDGE_SPACING
        )

    def _history_is_long(self) -> bool:
        # A tool that may change something outlives no execution, and isn't given up.
        suggested = workflow.info().is_continue_as_new_suggested()
        return suggested and not executions.is_busy(self._state)

    def _may_repeat(self) -> bool:
        """Tell whether an effect may have been made already by an execution before a Reset."""
        info = workflow.info()
        return info.first_execution_run_id != info.run_id

    def _decision_counts(self) -> None:
        self._tools.attend()
        super()._decision_counts()

    # Inputs

    def _create_input(self) -> CreateInput:
        return attempts.create_input(
            workflow.info().workflow_id,
            self._request,
            self._state,
            self._now(),
            look_first=self._may_repeat() or self._state.create_unsettled,
            execution=workflow.info().run_id,
        )

    def _target(self) -> Target:
        return attempts.target(self._request, self._state)

    def _continue_as_new(self) -> None:
        if self._nudged:
            # This object ends here, and the wish with it.
            self._state.next_poll_at = self._state.next_look_at = self._now()
        workflow.continue_as_new(
            RunInput(request=self._request, state=self._state),
            memo=memo(self._request, self._state),
        )
