"""Side effects of batches: lanes drive items, looks tell the workflow where the batch stands.

The ledger is the journal: what these say to Temporal holds no item, and what a death takes from
Temporal is found there again.
"""

import asyncio
from datetime import UTC, datetime

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import trail
from activities.attached import hand_over
from activities.batch_budgets import BY, pause_if_spent
from activities.batch_contract import (
    CheckInput,
    LaneDone,
    LaneInput,
    Looked,
    LookInput,
    RecordInput,
)
from activities.batch_outcomes import given_up, of_body
from activities.contract import Upstream
from activities.heartbeat import POLL_BEAT, heartbeating
from activities.intake import Intake
from activities.lane_journal import EpochOver
from activities.lanes import Lane
from activities.promoted_messages import Said
from activities.promotion import Promotions
from ledger import Ledger
from ledger.batch_item import Item, ItemState
from ledger.batch_record import BatchCounts, BatchRecord, BatchStatus
from ledger.chain import Event
from ledger.limits import MAX_NAME
from runsapi import Assistants

NO_SUCH_BATCH = "NoSuchBatch"
"""Type of the error by which a workflow ends whose batch isn't in the ledger."""
LANE_TAKEN = "LaneTaken"
"""Type of the error of an attempt that another one has overtaken; nobody waits for it."""

_PAGE = 100
_AT_ONCE = 10


class BatchActivities:
    """The batches' activities of one worker.

    Args:
        upstream: the connection; its client makes no retries of its own.
        ledger: where the batches stand.
        promotions: starts runs for items that wait for somebody, and knows how they ended.
        intake: reads the items of batches whose input is a stored file.
    """

    def __init__(
        self, upstream: Assistants, ledger: Ledger, promotions: Promotions, intake: Intake
    ) -> None:
        self._upstream = upstream
        self._at = Upstream(name=upstream.name, url=upstream.url)
        self._ledger = ledger
        self._promotions = promotions
        self._intake = intake
        self._said = Said(upstream)

    @activity.defn(name="batch.check")
    async def check(self, input: CheckInput) -> None:
        """Read the items from the batch's file, once all its lines are found good."""
        async with heartbeating():
            with trail.waiting_for_ledger():
                await self._intake.take(await self._find(input.batch_id))

    @activity.defn(name="batch.lane")
    async def lane(self, input: LaneInput) -> LaneDone:
        """Drive items, as many at a time as the window allows, until none waits."""
        info = activity.info()
        holder = f"{info.workflow_run_id}:{info.activity_id}:{info.attempt}"
        with trail.waiting_for_ledger():
            batch = await self._find(input.batch_id)
            if input.upstream is not None and input.upstream.url != self._at.url:
                text = (
                    f"other_upstream: Its runs live on {input.upstream.url}, and a worker is set "
                    f"up for {self._at.url}. Let all workers have one RUNLANE_UPSTREAM_URL."
                )
                await self._ledger.batches.pause(batch.id, text[:MAX_NAME], BY, _now())
                return LaneDone(why="paused")
            epoch = await self._ledger.batch_items.take_lane(batch.id, input.lane, holder)
        lane = Lane(
            self._upstream, self._ledger, self._promotions, input=input, batch=batch, epoch=epoch
        )
        async with heartbeating(every=POLL_BEAT):
            work = asyncio.create_task(lane.work())
            shutdown = asyncio.create_task(activity.wait_for_worker_shutdown())
            try:
                try:
                    await asyncio.wait({work, shutdown}, return_when=asyncio.FIRST_COMPLETED)
                except asyncio.CancelledError:
                    # Called back, or cut off. Either way what is on its way is seen to its end, or
                    # the next attempt would look for it before it has arrived.
                    await _brought_back(work)
                    return LaneDone(why="time")
                if not work.done():
                    await _brought_back(work)
                    hand_over()
                return await work
            except EpochOver:
                raise ApplicationError(
                    f"Lane {input.lane} of {batch.id} was taken by another attempt",
                    type=LANE_TAKEN,
                ) from None
            finally:
                for task in (work, shutdown):
                    task.cancel()
                await asyncio.gather(work, shutdown, return_exceptions=True)

    @activity.defn(name="batch.look")
    async def look(self, input: LookInput) -> Looked:
        """Do what was asked of the batch, end what has ended, and say where it stands."""
        async with heartbeating():
            with trail.waiting_for_ledger():
                batch = await self._obey(await self._find(input.batch_id), input)
                await self._end_early(batch)
                batch = await self._find(batch.id)
                counts = await self._ledger.batches.counts(batch.id)
                if counts.by_state[ItemState.PROMOTED]:
                    await self._see_promoted(batch)
                    counts = await self._ledger.batches.counts(batch.id)
                if not counts.unfinished:
                    status = _end_of(batch, counts)
                    batch = await self._ledger.batches.set_status(batch.id, status, _now())
            return _looked(batch, counts, self._at)

    @activity.defn(name="batch.record")
    async def record(self, input: RecordInput) -> None:
        """Write the result of an item that was a run of its own; the first one stands."""
        async with heartbeating():
            with trail.waiting_for_ledger():
                batch = await self._find(input.item.batch_id)
                outcome = of_body(
                    input.run,
                    was_cancelled=batch.status is BatchStatus.CANCELLING,
                    uncertain=input.uncertain,
                )
                outcome = await self._said.added_to(outcome, batch, input)
                await self._ledger.batch_items.settle(
                    batch.id, input.item.index, None, outcome, run_id=str(input.run["id"])
                )
                unfinished = await self._ledger.batch_items.unfinished(batch.id)
            if not unfinished:
                await self._promotions.look(batch.id)

    async def _find(self, batch_id: str) -> BatchRecord:
        found = await self._ledger.batches.find(batch_id)
        if found is None:
            text = f"The ledger has no batch {batch_id}. Is this worker's ledger the right one?"
            raise ApplicationError(text, type=NO_SUCH_BATCH, non_retryable=True)
        return found

    async def _obey(self, batch: BatchRecord, input: LookInput) -> BatchRecord:
        batches, at = self._ledger.batches, _now()
        if batch.status is BatchStatus.VALIDATING:
            batch = await batches.set_status(batch.id, BatchStatus.IN_PROGRESS, at)
        if input.resume:
            event = _event("resume", batch, by=BY, at=at)
            batch = await batches.resume(batch.id, [event])
        if input.pause is not None:
            order = input.pause
            event = _event("pause", batch, by=order.by, at=at, reason=order.reason)
            batch = await batches.pause(batch.id, order.reason, order.by, at, [event])
        if input.cancel_by is not None:
            event = _event("cancel", batch, by=input.cancel_by or BY, at=at)
            batch = await batches.set_status(batch.id, BatchStatus.CANCELLING, at, [event])
            # What has begun must come to its end now, which a pause would keep from it.
            batch = await batches.resume(batch.id)
        return batch

    async def _end_early(self, batch: BatchRecord) -> None:
        """End what waits and will not begin: the batch was cancelled, or its time is over."""
        items = self._ledger.batch_items
        if batch.status is BatchStatus.CANCELLING:
            await items.fail_waiting(batch.id, ItemState.CANCELLED, _now())
        elif batch.deadline is not None and batch.deadline <= _now():
            await items.fail_waiting(batch.id, ItemState.EXPIRED, _now())
        else:
            await pause_if_spent(self._ledger, batch)

    async def _see_promoted(self, batch: BatchRecord) -> None:
        """Cancel promoted runs with their batch, and settle those that ended without a word."""
        after: int | None = None
        while page := await self._ledger.batch_items.promoted(batch.id, limit=_PAGE, after=after):
            after = page[-1].index
            for start in range(0, len(page), _AT_ONCE):
                some = page[start : start + _AT_ONCE]
                await asyncio.gather(*(self._see(batch, item) for item in some))

    async def _see(self, batch: BatchRecord, item: Item) -> None:
        run_id = item.run_id or ""
        ended = await self._promotions.ended(run_id)
        if ended is None:
            if batch.status is BatchStatus.CANCELLING:
                await self._promotions.cancel(run_id)
            return
        if ended.run is None:
            outcome = given_up(ItemState.UNCERTAIN, "run_forgotten", ended.uncertain or "")
        else:
            cancelling = batch.status is BatchStatus.CANCELLING
            outcome = of_body(dict(ended.run), was_cancelled=cancelling, uncertain=ended.uncertain)
            outcome = await self._said.added_to(outcome, batch, ended)
        await self._ledger.batch_items.settle(batch.id, item.index, None, outcome, run_id=run_id)


async def _brought_back(work: asyncio.Task[LaneDone]) -> None:
    """Let a lane leave; at work beside that, it would begin what it can't drive any more."""
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


def _end_of(batch: BatchRecord, counts: BatchCounts) -> BatchStatus:
    if batch.status is BatchStatus.CANCELLING:
        return BatchStatus.CANCELLED
    if counts.by_state[ItemState.EXPIRED]:
        return BatchStatus.EXPIRED
    return BatchStatus.COMPLETED


def _looked(batch: BatchRecord, counts: BatchCounts, upstream: Upstream) -> Looked:
    left = None if batch.deadline is None else (batch.deadline - _now()).total_seconds()
    return Looked(
        status=batch.status.value,
        paused=None if batch.paused_at is None else batch.paused_reason,
        to_drive=counts.by_state[ItemState.WAITING] + counts.by_state[ItemState.BEGUN],
        promoted=counts.by_state[ItemState.PROMOTED],
        upstream=upstream,
        deadline_in=None if left is None or left <= 0 else left,
    )


def _event(
    what: str, batch: BatchRecord, *, by: str, at: datetime, reason: str | None = None
) -> Event:
    """Return what the trail says of an order, where the client that gave it hasn't said it."""
    return trail.control(what=what, scope=f"batch {batch.id}", by=by, reason=reason, at=at)


def _now() -> datetime:
    return datetime.now(UTC)
