"""The `Batch` workflow: keeps lanes at work until no item of the batch is unfinished.

The items stand in the ledger, and lanes drive them there. This history holds none: it says how many
lanes there are, when to look at the ledger, and what somebody has asked for.
"""

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities import polling
    from activities.batch import BatchActivities
    from activities.batch_contract import CheckInput, LaneDone, LaneInput, Looked, LookInput
    from activities.heartbeat import HEARTBEAT_TIMEOUT
    from workflows.batch_contract import (
        BATCH_WORKFLOW,
        CANCEL_SIGNAL,
        LOOK_SIGNAL,
        PAUSE_SIGNAL,
        RESUME_SIGNAL,
        BatchInput,
        BatchResult,
        CancelOrder,
        PauseOrder,
    )
    from workflows.task_queues import batch_task_queue

ENDS = ("completed", "expired", "cancelled", "failed")
"""In which a batch never changes again."""

RETRIES = RetryPolicy(maximum_interval=timedelta(seconds=3))
"""How soon what a dead worker held is given to another one, the heartbeat timeout past."""

_LOOK_WITHIN = timedelta(minutes=5)
"""Start-to-close of a look, whose heartbeats tell of a dead worker much sooner."""

_CHECK_WITHIN = timedelta(hours=1)
"""Start-to-close of a check: a file as large as can be uploaded takes some minutes."""


@workflow.defn(name=BATCH_WORKFLOW)
class BatchWorkflow:
    """Drives one batch: look, let lanes work, wait for promoted runs, until all has ended."""

    @workflow.init
    def __init__(self, input: BatchInput) -> None:
        self._input = input
        self._pause = input.pause
        self._resume = input.resume
        self._cancel_by = input.cancel_by
        self._look_again = True
        self._idle_since = input.idle_since
        self._upstream = input.upstream
        self._started_at: float | None = None
        self._lanes: dict[int, asyncio.Task[None]] = {}
        self._goes_over = False

    @workflow.signal(name=PAUSE_SIGNAL)
    def pause(self, order: PauseOrder) -> None:
        """Begin no further item; what has begun goes on to its end."""
        self._pause, self._resume, self._look_again = order, False, True

    @workflow.signal(name=RESUME_SIGNAL)
    def resume(self) -> None:
        """Go on, whatever the pause was for."""
        self._pause, self._resume, self._look_again = None, True, True
        self._started_at = None

    @workflow.signal(name=CANCEL_SIGNAL)
    def cancel(self, order: CancelOrder) -> None:
        """Begin nothing more, and cancel what has begun."""
        self._cancel_by, self._look_again = order.by, True

    @workflow.signal(name=LOOK_SIGNAL)
    def look(self) -> None:
        """Look at the ledger now: a promoted item has ended, say."""
        self._look_again, self._started_at = True, None

    @workflow.run
    async def run(self, input: BatchInput) -> BatchResult:
        """Drive the batch to its end; the items' results are in the ledger."""
        lifecycle = asyncio.create_task(self._lifecycle())
        while not lifecycle.done():
            try:
                await workflow.wait_condition(lifecycle.done)
            except asyncio.CancelledError:
                # Temporal's own cancellation takes the same way as ours, or what has begun would
                # go on upstream and nobody would see its end.
                self._cancel_by, self._look_again = "Temporal", True
        ended = lifecycle.result()
        if ended is None:
            workflow.continue_as_new(self._handed_on())
        return ended

    async def _lifecycle(self) -> BatchResult | None:
        """Look and act until the batch has ended, or must go on in a fresh history."""
        if self._input.check:
            await self._check()
        while True:
            looked = await self._look()
            # A word since then may be of items that are tried again: Temporal lets no workflow end
            # over a signal that it hasn't seen, and neither does this.
            if looked.status in ENDS and not self._look_again:
                return BatchResult(status=looked.status)
            if looked.paused is None and looked.to_drive and not self._came_back_at_once():
                self._idle_since, self._started_at = None, self._now()
                self._start_lanes()
            elif self._idle_since is None:
                self._idle_since = self._now()
            await self._wait(looked)
            if workflow.info().is_continue_as_new_suggested():
                await self._call_lanes_back()
                return None

    async def _check(self) -> None:
        """Let the items be read from the batch's file; a batch that can't be run ends by it."""
        await workflow.execute_activity_method(
            BatchActivities.check,
            CheckInput(batch_id=self._input.batch_id),
            start_to_close_timeout=_CHECK_WITHIN,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=RETRIES,
        )

    async def _look(self) -> Looked:
        """Tell the ledger what was asked for, and see where the batch stands."""
        order = LookInput(
            batch_id=self._input.batch_id,
            pause=self._pause,
            resume=self._resume,
            cancel_by=self._cancel_by,
        )
        self._pause, self._resume, self._cancel_by = None, False, None
        self._look_again = False
        looked: Looked = await workflow.execute_activity_method(
            BatchActivities.look,
            order,
            start_to_close_timeout=_LOOK_WITHIN,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=RETRIES,
        )
        self._upstream = self._upstream or looked.upstream
        return looked

    def _came_back_at_once(self) -> bool:
        """Tell whether lanes found nothing to do a moment ago: to ask them again at once is hot."""
        if self._at_work() or self._started_at is None:
            return False
        return self._now() - self._started_at < self._input.timing.look_floor

    def _start_lanes(self) -> None:
        for lane in range(self._input.lanes):
            task = self._lanes.get(lane)
            if task is None or task.done():
                self._lanes[lane] = asyncio.create_task(self._keep_lane(lane))

    async def _keep_lane(self, lane: int) -> None:
        """Let one lane work, again and again, until it finds nothing to do or is called back."""
        why = "time"
        while why == "time" and not self._goes_over:
            try:
                done: LaneDone = await workflow.execute_activity_method(
                    BatchActivities.lane,
                    self._lane_input(lane),
                    task_queue=batch_task_queue(workflow.info().task_queue),
                    # It comes back by itself; heartbeats tell of a dead worker.
                    start_to_close_timeout=timedelta(seconds=self._input.timing.stay + 3600),
                    heartbeat_timeout=HEARTBEAT_TIMEOUT,
                    retry_policy=RETRIES,
                    # Until it is back, what it was sending may still arrive: the next attempt would
                    # look for it too early, and send it again.
                    cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                )
            except (ActivityError, asyncio.CancelledError):
                if not self._goes_over:
                    raise
                return
            why = done.why
        if why == "paused":
            # By what it saw: meanwhile somebody may have resumed the batch, and it, at work still,
            # was not started again.
            self._look_again = True

    async def _wait(self, looked: Looked) -> None:
        """Wait for a word, for the lanes, for the deadline, or until it is time to look."""
        waits = [] if looked.deadline_in is None else [looked.deadline_in]
        if not self._at_work():
            timing = self._input.timing
            age = self._now() - (self._idle_since or self._now())
            waits.append(polling.curve(age, floor=timing.look_floor, ceiling=timing.poll_ceiling))
        was_at_work = self._at_work()
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: (
                    self._look_again
                    or (was_at_work and not self._at_work())
                    or workflow.info().is_continue_as_new_suggested()
                ),
                timeout=max(min(waits), 0.001) if waits else None,
            )
        self._raise_failures()

    async def _call_lanes_back(self) -> None:
        """Wait for the lanes, which a continue-as-new would cut off from their history."""
        self._goes_over = True
        for task in self._lanes.values():
            task.cancel()
        while self._at_work():
            await workflow.wait_condition(lambda: self._look_again or not self._at_work())
            if self._look_again and self._at_work():
                # A pause reaches the lanes by the ledger. However many words come, they make few
                # looks: the history is long already.
                await self._look()
                with contextlib.suppress(TimeoutError):
                    await workflow.wait_condition(
                        lambda: not self._at_work(), timeout=self._input.timing.look_floor
                    )
        self._raise_failures()

    def _raise_failures(self) -> None:
        for lane, task in list(self._lanes.items()):
            if task.done():
                del self._lanes[lane]
                task.result()

    def _at_work(self) -> bool:
        return any(not task.done() for task in self._lanes.values())

    def _lane_input(self, lane: int) -> LaneInput:
        timing = self._input.timing
        return LaneInput(
            batch_id=self._input.batch_id,
            lane=lane,
            window=self._input.window,
            upstream=self._upstream,
            stay=timing.stay,
            poll_floor=timing.poll_floor,
            poll_ceiling=timing.poll_ceiling,
            retry_floor=timing.retry_floor,
        )

    def _handed_on(self) -> Any:
        return self._input.model_copy(
            update={
                "pause": self._pause,
                "resume": self._resume,
                "cancel_by": self._cancel_by,
                "check": False,
                "upstream": self._upstream,
                "idle_since": self._idle_since,
            }
        )

    def _now(self) -> float:
        return workflow.now().timestamp()
