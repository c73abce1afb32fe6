"""A lane: many items of a batch driven side by side by one activity."""

import asyncio
import logging
from datetime import UTC, datetime

from activities import trail
from activities.batch_budgets import BY, pause_if_spent
from activities.batch_contract import LaneDone, LaneEnd, LaneInput, PauseKind
from activities.lane_failures import PauseBatch
from activities.lane_items import Items
from activities.lane_journal import EpochOver, Journal, patiently
from activities.lane_requests import Leave, Mood
from activities.paces import Pace, Tokens, a_minute_ago
from activities.promotion import Promotions
from ledger import Ledger, LedgerUnavailable
from ledger.batch_item import Claim, Withheld
from ledger.batch_record import BatchRecord, BatchStatus
from ledger.limits import MAX_NAME
from runsapi import Assistants

_GATHER_SECONDS = 0.02
"""Between two claims at the least, so that what ends together is replaced together."""
_LOOK_SECONDS = 1.0
"""Between two looks at the batch, which tell of a pause and a cancel."""
_LEAVING_SECONDS = 8.0
"""How long what is on its way may take when the lane comes back; then it is given up, and found
by its stamp."""

_logger = logging.getLogger("runlane.batches")


class Lane:
    """One attempt of a lane.

    Args:
        upstream: where runs are executed.
        ledger: where the batch stands.
        promotions: takes over items that wait for somebody.
        input: of the activity.
        batch: as it stood when the lane began.
        epoch: of this attempt.
    """

    def __init__(
        self,
        upstream: Assistants,
        ledger: Ledger,
        promotions: Promotions,
        *,
        input: LaneInput,
        batch: BatchRecord,
        epoch: int,
    ) -> None:
        self._ledger = ledger
        self._input = input
        self._batch = batch
        self._epoch = epoch
        self._mood = Mood(leaving=asyncio.Event(), cancelling=asyncio.Event())
        journal = Journal(ledger, batch.id, epoch)
        self._turns = upstream.turns
        self._pace = Pace(
            ledger.batch_paces,
            batch.id,
            rpm=batch.options.get("rpm"),
            held=lambda: self._turns.held,
        )
        self._tokens: Tokens | None = None
        self._items = Items(
            upstream,
            journal,
            promotions,
            batch=batch,
            input=input,
            pace=self._pace,
            mood=self._mood,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._driven: dict[int, asyncio.Task[None]] = {}
        """The same, by the items' indexes."""
        self._looked_at = 0.0

    async def work(self) -> LaneDone:
        """Drive items until none waits, the time is up, or somebody wants the batch to stop.

        Raises:
            EpochOver: another attempt has taken the lane.
        """
        until = _now() + self._input.stay
        try:
            await self._count_tokens()
            while True:
                await self._look()
                if self._batch.status.is_end:
                    return self._done("ended")
                if _now() >= until:
                    return self._done("time")
                claim = await self._claim()
                if claim.withheld is Withheld.BUDGET:
                    await self._pause_if_spent()
                if not self._tasks and not self._comes_more(claim):
                    stands_still = claim.withheld in (Withheld.PAUSED, Withheld.BUDGET)
                    return self._done("paused" if stands_still else "idle")
                await self._wait(claim)
                await self._reap()
        except PauseBatch as pause:
            await self._pause(pause.kind, str(pause))
            return self._done("paused")
        finally:
            await self.leave()

    async def leave(self) -> None:
        """Come back: let what is on its way arrive, and leave the rest as it stands."""
        self._mood.leaving.set()
        self._pace.end(Leave())
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LEAVING_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _count_tokens(self) -> None:
        tpm = self._batch.options.get("tpm")
        if tpm is not None:
            await self._look()
            # After that: what ends in between counts rather twice than never.
            its, items = self._batch.id, self._ledger.batch_items
            ended = await patiently(lambda: items.ended_since(its, a_minute_ago()))
            self._tokens = Tokens(tpm, self._batch.tokens_used, ended)

    async def _look(self) -> None:
        if _now() < self._looked_at + _LOOK_SECONDS:
            return
        found = await patiently(lambda: self._ledger.batches.find(self._batch.id))
        if found is None:
            raise EpochOver
        self._batch, self._looked_at = found, _now()
        if self._tokens is not None:
            self._tokens.look(found.tokens_used)
        if found.held_until is not None:
            # Another process was told 429.
            self._turns.hold((found.held_until - datetime.now(UTC)).total_seconds())
        if found.status is BatchStatus.CANCELLING:
            self._mood.cancelling.set()

    async def _claim(self) -> Claim:
        room = self._input.window - len(self._tasks)
        if room <= 0:
            return Claim(items=[])
        items = self._ledger.batch_items
        try:
            claim = await items.claim(
                self._batch.id,
                self._input.lane,
                self._epoch,
                room,
                datetime.now(UTC),
                tokens_up_to=None if self._tokens is None else self._tokens.up_to,
            )
        except LedgerUnavailable:
            # Whether it gave us any is seen from what we hold and don't drive.
            held = await patiently(lambda: items.held(self._batch.id, self._epoch))
            claim = Claim(items=[each for each in held if each.index not in self._driven])
        if claim.withheld is Withheld.EPOCH:
            raise EpochOver
        for item in claim.items:
            task = asyncio.create_task(self._items.drive(item))
            self._tasks.add(task)
            self._driven[item.index] = task
        return claim

    def _comes_more(self, claim: Claim) -> bool:
        """Tell whether it is worth waiting here, though nothing can be had now."""
        if claim.withheld is Withheld.PACE:
            return True
        return claim.withheld is None and claim.next_at is not None

    async def _wait(self, claim: Claim) -> None:
        """Wait until an item is done with, or it is time to claim or look again."""
        if self._tasks:
            await asyncio.wait(
                self._tasks, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            await asyncio.sleep(_GATHER_SECONDS)
            return
        wait = _LOOK_SECONDS
        if claim.next_at is not None:
            wait = min(wait, (claim.next_at - datetime.now(UTC)).total_seconds())
        await asyncio.sleep(max(wait, _GATHER_SECONDS))

    async def _reap(self) -> None:
        """Take what has ended; an error of ours in one item stops no other."""
        done = {task for task in self._tasks if task.done()}
        self._tasks -= done
        self._driven = {index: task for index, task in self._driven.items() if task not in done}
        pause: PauseBatch | None = None
        for task in done:
            error = task.exception()
            if isinstance(error, EpochOver):
                raise error
            if isinstance(error, PauseBatch):
                pause = error
            elif error is not None and not isinstance(error, Leave):
                # The item is begun still: the lane's next turn takes it over.
                _logger.error("An item of %s failed here", self._batch.id, exc_info=error)
        if pause is not None:
            raise pause

    async def _pause(self, kind: PauseKind, message: str) -> None:
        reason = f"{kind}: {message}"[:MAX_NAME]
        _logger.warning("%s is paused: %s", self._batch.id, reason)
        at = datetime.now(UTC)
        scope = f"batch {self._batch.id}"
        event = trail.control(what="pause", scope=scope, by=BY, reason=reason, at=at)
        await patiently(lambda: self._ledger.batches.pause(self._batch.id, reason, BY, at, [event]))

    async def _pause_if_spent(self) -> None:
        """Say so at once: what is in flight may take a while."""
        its, batches = self._batch.id, self._ledger.batches
        found = await patiently(lambda: batches.find(its))
        if found is not None:
            await patiently(lambda: pause_if_spent(self._ledger, found))

    def _done(self, why: LaneEnd) -> LaneDone:
        return LaneDone(why=why, settled=self._mood.settled)


def _now() -> float:
    return asyncio.get_running_loop().time()
