"""The `Run` workflow: one run from create to its end, whatever dies on the way.

The state says what comes next, and each step changes the state; so a run goes on after a
continue-as-new, a nudge or a mended key exactly where it was. Message handlers only record:
one that waited for what only the main loop brings would wait for ever.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy, SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutType
from temporalio.exceptions import TimeoutError as ActivityTimeoutError

with workflow.unsafe.imports_passed_through():
    from activities import failures
    from activities.heartbeat import HEARTBEAT_TIMEOUT
    from activities.polling import curve, poll_interval
    from activities.runs import (
        CancelInput,
        Created,
        CreateInput,
        Observed,
        RetrieveInput,
        RunActivities,
        SubmitInput,
        Target,
        UpdateInput,
        answerable,
    )
    from runsapi import TERMINAL, Run, RunStatus, ToolOutput, usable_interval_ms
    from workflows import answers, attempts, ending
    from workflows.contract import (
        CANCEL_UPDATE,
        NOTHING_NEW,
        NUDGE_SIGNAL,
        PENDING_MEMO,
        REQUEST_MEMO,
        RUN_IS_ENDING,
        SUBMIT_TOOL_OUTPUTS_UPDATE,
        TOOL_OUTPUTS_SIGNAL,
        UPDATE_METADATA_UPDATE,
        VIEW_QUERY,
        WORKFLOW,
        Acknowledged,
        AnswerOutcome,
        AttemptView,
        BlockedKind,
        BlockedView,
        CancelRequest,
        MetadataUpdate,
        Receipts,
        RequestMemo,
        RunView,
        ToolOutputs,
        poll_task_queue,
    )
    from workflows.messages import check_metadata, check_tool_outputs
    from workflows.state import RunInput, RunState, StopReason
    from workflows.view import pending_memo, run_view, shown_status

STATUS = SearchAttributeKey.for_keyword("RunlaneStatus")
BLOCKED = SearchAttributeKey.for_keyword("RunlaneBlocked")

NUDGE_SPACING = 2.0
"""Seconds around a poll in which a nudge brings nothing new."""

_T = TypeVar("_T")


@workflow.defn(name=WORKFLOW)
class RunWorkflow:
    """Drives one run: create, wait, gather answers, submit, wait, until the end."""

    @workflow.init
    def __init__(self, input: RunInput) -> None:
        self._request = input.request
        self._timing = input.request.options.timing
        self._state = input.state or self._first_state()
        self._shown_status = shown_status(self._state).value
        self._shown_blocked = self._state.blocked.kind.value if self._state.blocked else ""
        self._shown_pending = pending_memo(self._state)
        self._poll: asyncio.Task[Observed] | None = None
        self._polled_at = 0.0
        self._nudged = False
        self._stop_is_news = False

    @workflow.run
    async def run(self, input: RunInput) -> RunView:
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
            await self._next_step()()
            self._show()
        await self._drop_poll()

    def _next_step(self) -> Callable[[], Awaitable[None]]:  # noqa: PLR0911  # a table of cases
        """Say what the run does now."""
        state, run = self._state, self._state.run
        if state.stop is not None:
            return self._next_step_to_the_end()
        if self._is_blocked():
            return self._wait_while_blocked
        if run is None:
            return self._create
        if run.status == RunStatus.EXPIRED and self._recreates():
            return self._gather if answers.unanswered(state) else self._create
        if run.status in TERMINAL:
            return self._end
        if state.metadata != state.metadata_sent:
            return self._update_metadata
        if state.calls:
            return self._gather if answers.unanswered(state) else self._submit
        return self._wait

    def _next_step_to_the_end(self) -> Callable[[], Awaitable[None]]:
        """Say what a run does that was stopped: cancel upstream, find out the truth, end."""
        state, run = self._state, self._state.run
        if self._now() >= self._give_up_at():
            return self._end
        if self._is_blocked():
            return self._wait_while_blocked
        if state.create_unsettled:
            return self._find_created
        if run is None or run.status in TERMINAL:
            return self._end
        return self._wait if state.cancel_sent else self._cancel

    # Steps

    async def _create(self) -> None:
        state = self._state
        if state.attempt > 0 and not attempts.may_recreate(state):
            await self._end()
            return
        metadata = dict(state.metadata)
        create_input = self._create_input()
        state.create_unsettled = True
        created = await self._effect(RunActivities.create, create_input)
        if created is not None:
            self._take_over(created)
            state.metadata_sent = metadata

    async def _find_created(self) -> None:
        """Find out what a create did that was under way when the run was stopped."""
        found = await self._effect(
            RunActivities.create,
            self._create_input().model_copy(
                update={"find_only": True, "settle_for": self._timing.settle_for}
            ),
        )
        if found is not None and found.run is not None:
            self._take_over(found)
        elif found is not None:
            self._state.create_unsettled = False

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
                    lambda: not answers.unanswered(state) or (self._nudged and not parked), look_at
                )
                return
            self._nudged = False
            self._poll = self._start_poll(attach=False)
        await self._until(lambda: self._poll_done() or not answers.unanswered(state))
        if self._poll_done():
            await self._take_poll()
        elif not answers.unanswered(state):
            await self._drop_poll()

    async def _submit(self) -> None:
        state = self._state
        outputs = [
            ToolOutput(tool_call_id=call.id, output=answer.output or "")
            for call in state.calls
            if (answer := answers.answer_of(state, call.id)) is not None
        ]
        submitted = await self._effect(
            RunActivities.submit_tool_outputs,
            SubmitInput(
                target=self._target(),
                tool_outputs=outputs,
                look_first=self._may_repeat() or state.blocked is not None,
            ),
        )
        if submitted is None:
            if state.stop is not None:
                answers.close_round(state, AnswerOutcome.UNCERTAIN)
            return
        if submitted.outcome != "expired":
            answers.close_round(
                state,
                AnswerOutcome.SUBMITTED
                if submitted.outcome == "submitted"
                else AnswerOutcome.OVERTAKEN,
            )
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
        metadata = dict(state.metadata)
        run_id = workflow.info().workflow_id
        await self._effect(
            RunActivities.update,
            UpdateInput(
                target=self._target(),
                metadata=attempts.stamped(run_id, state.attempt, metadata),
            ),
        )
        if state.blocked is None:
            state.metadata_sent = metadata

    async def _wait_while_blocked(self) -> None:
        await self._until(lambda: self._nudged, self._state.blocked_until)
        if self._nudged or self._now() >= (self._state.blocked_until or 0.0):
            self._nudged = False
            self._state.blocked_until = None

    async def _end(self) -> None:
        ending.end(self._state, self._request, self._now())

    # Effects: create, submit, cancel and update

    async def _effect(self, method: Callable[..., Awaitable[_T]], input: object) -> _T | None:
        """Do something upstream, and see it through to its answer.

        When the run is stopped meanwhile, the activity is asked to come back: it finishes a
        request that is on its way, for only its answer tells what it did, and makes no other.

        Returns:
            The result, or none when the state says why not: blocked, refused or stopped.
        """
        state = self._state
        remaining = self._limit() - self._now()
        activity: asyncio.Task[Any] = workflow.start_activity_method(
            method,
            input,
            start_to_close_timeout=timedelta(seconds=self._timing.effect_for),
            schedule_to_close_timeout=timedelta(seconds=max(remaining, 1.0)),
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=15)),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        await workflow.wait_condition(lambda: activity.done() or self._stop_is_news)
        if not activity.done():
            activity.cancel()
        try:
            result: _T = await activity
        except ActivityError as error:
            await self._take_failure(error)
            return None
        state.blocked = None
        return result

    async def _take_failure(self, error: ActivityError) -> None:
        """Make of a failed activity what the next step needs to know."""
        state, cause = self._state, error.cause
        if isinstance(cause, ApplicationError) and cause.type == failures.BLOCKED:
            kind, message, attempt = cause.details
            state.create_unsettled = state.create_unsettled and attempt > 1
            self._block(BlockedKind(kind), message)
        elif isinstance(cause, ApplicationError) and cause.type == failures.REFUSED:
            state.create_unsettled = False
            if state.stop is None:
                code, message = cause.details
                state.last_error = {"code": code, "message": message}
                self._stop(StopReason.REFUSED)
        elif (
            isinstance(cause, ActivityTimeoutError) and cause.type == TimeoutType.SCHEDULE_TO_START
        ):
            # No slot came free in time: a timer waits cheaper than a queue.
            state.next_poll_at = self._now() + self._timing.timer_from
        elif not self._stop_is_news:
            # Temporal gave up since no further try would fit before the limit; wait it out.
            await self._until(lambda: False, self._limit())

    def _block(self, kind: BlockedKind, message: str) -> None:
        state, now = self._state, self._now()
        since = (
            now if state.blocked is None or state.blocked.kind != kind else state.blocked.since_at
        )
        state.blocked = BlockedView(kind=kind, message=message, since_at=since)
        if kind == BlockedKind.NOT_FOUND and now - since >= self._timing.not_found_for:
            state.last_error = {"code": "server_error", "message": message}
            self._stop(StopReason.GONE)
            return
        wait = curve(
            now - since, floor=self._timing.blocked_floor, ceiling=self._timing.poll_ceiling
        )
        state.blocked_until = now + wait

    # Polls

    def _start_poll(self, *, attach: bool) -> asyncio.Task[Observed]:
        state, timing = self._state, self._timing
        fixed = usable_interval_ms(self._request.options.poll_interval_ms)
        attach_for = 0.0
        if attach:
            attach_for = timing.attach_for if fixed is None else timing.attach_for_fixed
        asks = state.run is not None and state.run.status == RunStatus.REQUIRES_ACTION
        task: asyncio.Task[Observed] = workflow.start_activity_method(
            RunActivities.retrieve,
            RetrieveInput(
                target=self._target(),
                attach_for=attach_for,
                leg_age=self._now() - state.leg_started_at,
                poll_interval_ms=fixed,
                poll_after_ms=state.poll_after_ms,
                floor=timing.poll_floor,
                ceiling=timing.poll_ceiling,
                timer_from=self._timer_from(),
                beyond_action=asks or state.stop is not None,
                answered=list(state.known) if not state.calls or state.stop is not None else [],
            ),
            task_queue=poll_task_queue(workflow.info().task_queue),
            start_to_close_timeout=timedelta(seconds=attach_for + timing.effect_for),
            schedule_to_close_timeout=timedelta(seconds=max(self._limit() - self._now(), 1.0)),
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=RetryPolicy(maximum_interval=timedelta(seconds=15)),
            cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
        )
        return task

    async def _take_poll(self) -> None:
        """Take what the finished poll saw, and say when to look again."""
        state, timing = self._state, self._timing
        if self._poll is None:
            return
        poll, self._poll = self._poll, None
        self._polled_at = self._now()
        try:
            observed = await poll
        except ActivityError as error:
            await self._take_failure(error)
            return
        state.blocked = None
        state.polls += observed.polls
        state.poll_after_ms = observed.poll_after_ms
        self._observe(observed.run)
        interval = poll_interval(
            self._now() - state.leg_started_at,
            poll_interval_ms=usable_interval_ms(self._request.options.poll_interval_ms),
            poll_after_ms=observed.poll_after_ms,
            floor=timing.poll_floor,
            ceiling=timing.poll_ceiling,
        )
        state.next_poll_at = self._now() + interval if interval >= self._timer_from() else None
        if state.calls:
            self._schedule_look()

    async def _drop_poll(self) -> None:
        """Give up the poll under way, if there is one: it changes nothing upstream."""
        poll, self._poll = self._poll, None
        if poll is None:
            return
        poll.cancel()
        await asyncio.wait([poll])

    def _poll_done(self) -> bool:
        return self._poll is not None and self._poll.done()

    def _timer_from(self) -> float:
        # A caller's interval under a minute is polled attached, or a week of it would cost
        # a quarter of a million events.
        return 60.0 if self._request.options.poll_interval_ms else self._timing.timer_from

    def _schedule_look(self) -> None:
        """While answers are awaited: look when the upstream run expires, and on the curve."""
        state, now = self._state, self._now()
        age = now - (state.gathering_since or now)
        look_at = now + curve(age, floor=self._timing.look_floor, ceiling=self._timing.poll_ceiling)
        if state.expires_at is not None and state.expires_at > now:
            look_at = min(look_at, state.expires_at)
        state.next_look_at = look_at

    # State

    def _take_over(self, created: Created) -> None:
        """Take a created or adopted upstream run as this run's present one."""
        state, run = self._state, created.run
        if run is None:
            return
        if state.attempt > 0:
            state.recreations += 1
            state.barren += 1
            ending.keep_usage(state)
        state.attempt += 1
        state.create_unsettled = False
        state.reworded = False
        state.upstream, state.simulated = created.upstream, state.simulated or created.simulated
        state.calls = []
        state.attempts.append(
            AttemptView(
                attempt=state.attempt,
                upstream_run_id=run.id,
                status=str(run.status),
                created_at=run.created_at,
            )
        )
        lifetime = (run.expires_at or 0) - (run.created_at or 0)
        # A second more, for both instants are whole seconds and the upstream's own.
        state.expires_at = self._now() + lifetime + 1 if lifetime > 0 else None
        self._start_leg(created.poll_after_ms)
        self._observe(run)

    def _start_leg(self, poll_after_ms: int | None) -> None:
        state = self._state
        state.leg_started_at = self._now()
        state.poll_after_ms = poll_after_ms
        state.next_poll_at = None

    def _observe(self, run: Run) -> None:
        """Take the upstream run as it is now: a new round, a round that others answered, an end."""
        state = self._state
        state.run = run
        if state.attempts:
            state.attempts[-1] = state.attempts[-1].model_copy(update={"status": str(run.status)})
        if state.stop is not None:
            return
        waits_on = run.status == RunStatus.REQUIRES_ACTION and answerable(run)
        if answers.open_round(state, run, self._now()):
            state.gathering_since = self._now()
            self._schedule_look()
            if state.counted_rounds > self._request.options.max_rounds:
                self._stop(StopReason.ROUNDS)
        elif state.calls and not waits_on and not self._keeps_calls(run):
            answers.close_round(state, AnswerOutcome.OVERTAKEN)

    def _keeps_calls(self, run: Run) -> bool:
        return run.status == RunStatus.EXPIRED and self._recreates()

    def _recreates(self) -> bool:
        return self._request.options.on_expiry == "recreate"

    def _stop(self, reason: StopReason) -> None:
        state = self._state
        if state.stop is None and state.ended_at is None:
            state.stop, state.stopped_at = reason, self._now()
            self._stop_is_news = True

    def _show(self) -> None:
        """Say in search attributes and memo what changed: an event each, so all in one."""
        status = shown_status(self._state).value
        blocked = self._state.blocked.kind.value if self._state.blocked else ""
        changes: list[Any] = []
        if status != self._shown_status:
            changes.append(STATUS.value_set(status))
        if blocked != self._shown_blocked:
            changes.append(BLOCKED.value_set(blocked) if blocked else BLOCKED.value_unset())
        if changes:
            workflow.upsert_search_attributes(changes)
        self._shown_status, self._shown_blocked = status, blocked
        pending = pending_memo(self._state)
        if pending and pending != self._shown_pending:
            # Never cleared, for that would be an event: readers ask the status first.
            workflow.upsert_memo({PENDING_MEMO: pending})
            self._shown_pending = pending

    # Waiting

    async def _until(self, condition: Callable[[], bool], at: float | None = None) -> None:
        """Wait for the condition, or until `at`; be back for whatever else needs a step."""
        limit = self._limit()
        seconds: float | None = None
        if at is not None or self._poll is None:
            seconds = max(min(limit, at if at is not None else limit) - self._now(), 0.001)
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: condition() or self._has_news(),
                timeout=None if seconds is None else timedelta(seconds=seconds),
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
        if not self._nudged:
            return False
        state, now = self._state, self._now()
        interval = poll_interval(
            now - state.leg_started_at,
            poll_interval_ms=usable_interval_ms(self._request.options.poll_interval_ms),
            poll_after_ms=state.poll_after_ms,
            floor=self._timing.poll_floor,
            ceiling=self._timing.poll_ceiling,
        )
        return interval > NUDGE_SPACING

    def _is_blocked(self) -> bool:
        return self._state.blocked is not None and self._state.blocked_until is not None

    def _limit(self) -> float:
        """Return until when anything at all is tried."""
        return self._state.deadline_at if self._state.stop is None else self._give_up_at()

    def _give_up_at(self) -> float:
        return (self._state.stopped_at or 0.0) + self._timing.cancel_for

    def _history_is_long(self) -> bool:
        return workflow.info().is_continue_as_new_suggested()

    def _may_repeat(self) -> bool:
        """Tell whether an effect may have been made already by an execution before a Reset."""
        info = workflow.info()
        return info.first_execution_run_id != info.run_id

    def _now(self) -> float:
        return workflow.now().timestamp()

    # Inputs

    def _first_state(self) -> RunState:
        started = workflow.info().start_time.timestamp()
        metadata = self._request.params.get("metadata") or {}
        return RunState(
            deadline_at=started + self._request.options.deadline, metadata=dict(metadata)
        )

    def _create_input(self) -> CreateInput:
        state, info = self._state, workflow.info()
        return CreateInput(
            run_id=info.workflow_id,
            attempt=state.attempt + 1,
            thread_id=self._request.thread_id,
            params=attempts.create_params(info.workflow_id, self._request, state),
            upstream=state.upstream,
            age=self._now() - (state.deadline_at - self._request.options.deadline),
            look_first=self._may_repeat() or state.create_unsettled,
        )

    def _target(self) -> Target:
        state = self._state
        if state.upstream is None or state.run is None:
            raise RuntimeError("There is no upstream run yet")
        return Target(
            upstream=state.upstream, thread_id=self._request.thread_id, run_id=state.run.id
        )

    def _continue_as_new(self) -> None:
        # An upserted memo is lost at continue-as-new; search attributes aren't.
        memo: dict[str, Any] = {
            REQUEST_MEMO: RequestMemo(
                digest=self._request.digest(),
                created_at=self._request.created_at,
                metadata=self._state.metadata,
                model=self._request.params.get("model"),
                deadline=self._request.options.deadline,
            ),
            PENDING_MEMO: pending_memo(self._state),
        }
        workflow.continue_as_new(RunInput(request=self._request, state=self._state), memo=memo)

    # Messages: they record, the main loop acts

    @workflow.query(name=VIEW_QUERY)
    def view(self) -> RunView:
        """Return the run and everything known of it."""
        return run_view(workflow.info().workflow_id, self._request, self._state)

    @workflow.signal(name=TOOL_OUTPUTS_SIGNAL)
    def tool_outputs(self, outputs: ToolOutputs) -> None:
        """Take answers; what can't be used is kept in `view` with its reason."""
        answers.deliver(self._state, outputs, now=self._now(), by_signal=True)
        self._show()

    @workflow.update(name=SUBMIT_TOOL_OUTPUTS_UPDATE)
    def submit_tool_outputs(self, outputs: ToolOutputs) -> Receipts:
        """Take answers; return a receipt for each."""
        receipts = answers.deliver(self._state, outputs, now=self._now(), by_signal=False)
        self._show()
        return Receipts(receipts=receipts)

    @submit_tool_outputs.validator
    def _refuse_nothing_new(self, outputs: ToolOutputs) -> None:
        # A refused update leaves no event: receipts for duplicates cost nothing.
        check_tool_outputs(outputs)
        receipts = Receipts(
            receipts=[answers.assess(self._state, output) for output in outputs.tool_outputs]
        )
        if not receipts.is_new():
            raise ApplicationError("Nothing in this is new", receipts, type=NOTHING_NEW)

    @workflow.update(name=CANCEL_UPDATE)
    def cancel(self, request: CancelRequest) -> Acknowledged:
        """Record that the run is to be cancelled; `view` tells what came of it."""
        self._stop(StopReason.CANCEL)
        self._show()
        return Acknowledged(status=shown_status(self._state))

    @workflow.update(name=UPDATE_METADATA_UPDATE)
    def update_metadata(self, update: MetadataUpdate) -> Acknowledged:
        """Replace the caller's metadata; the upstream run is told when there is one."""
        self._state.metadata = dict(update.metadata)
        return Acknowledged(status=shown_status(self._state))

    @update_metadata.validator
    def _refuse_bad_metadata(self, update: MetadataUpdate) -> None:
        check_metadata(update.metadata)
        if self._state.stop is not None or self._state.ended_at is not None:
            raise ApplicationError("The run is ending", type=RUN_IS_ENDING)

    @cancel.validator
    def _refuse_after_the_end(self, request: CancelRequest) -> None:
        if self._state.ended_at is not None:
            raise ApplicationError("The run has ended", type=RUN_IS_ENDING)

    @workflow.signal(name=NUDGE_SIGNAL)
    def nudge(self) -> None:
        """Look at the upstream now: somebody saw or mended something."""
        if self._now() - self._polled_at >= NUDGE_SPACING:
            self._nudged = True
