"""One item of a batch, from its claim to its end: thread, run, polls, result.

Whatever is about to be sent was written before. So whoever takes the item over, after a death at
any line here, finds out by the stamp what became of it, and sends it again only where nothing did.
"""

import asyncio
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from activities import item_messages
from activities.batch_contract import BatchItem, BatchOptions, LaneInput
from activities.batch_outcomes import given_up, of_run
from activities.lane_failures import PauseBatch, Refused, Trouble, too_late
from activities.lane_journal import EpochOver, Journal
from activities.lane_requests import Leave, Mood, Requests
from activities.lane_work import Work, run_id
from activities.paces import Pace
from activities.polling import poll_interval
from activities.promotion import Promotions, ToPromote
from ledger import LedgerRefused
from ledger.batch_item import CANCELLED, CREATE_UNCERTAIN, Item, ItemOutcome, ItemState
from ledger.batch_record import BatchRecord
from ledger.batch_writes import Intend, MadeRun, MadeThread, Promote, PutBack, Settle
from runsapi import TERMINAL, Assistants, InvalidParameter, Run, RunStatus, poll_after_ms

MAX_ATTEMPTS = 4
"""Upstream runs of an item that expire, each in the place of the one before."""
CANCEL_FOR = 240.0
"""Seconds in which the end of a cancelled run is waited for. The lane's next turn counts anew, so
this is less than half of its stay."""
NOT_FOUND_FOR = 240.0
"""Seconds after which a run that the upstream doesn't know is gone; likewise."""

_BETWEEN_PROMOTIONS = 1.0
_LONGEST_WAIT = 60.0
_LONGEST_BETWEEN_LOOKS = 10.0
_logger = logging.getLogger("runlane.batches")

_GIVEN_UP = "Given up after as many tries as the batch allows"


class Items:
    """Drives the items of one lane.

    Args:
        upstream: where runs are executed.
        journal: where items stand.
        promotions: takes over those that wait for somebody.
        batch: theirs.
        input: of the lane.
        pace: gives its requests their turns.
        mood: shared with the lane.
    """

    def __init__(
        self,
        upstream: Assistants,
        journal: Journal,
        promotions: Promotions,
        *,
        batch: BatchRecord,
        input: LaneInput,
        pace: Pace,
        mood: Mood,
    ) -> None:
        self._journal = journal
        self._promotions = promotions
        self._batch = batch
        self._input = input
        self._options = BatchOptions.model_validate(batch.options)
        self._mood = mood
        self._requests = Requests(upstream, journal, pace, mood)

    async def drive(self, item: Item) -> None:
        """Bring an item as far as it comes: to its end, to a run of its own, or back to wait.

        Raises:
            Leave: the lane comes back.
            PauseBatch: no item can go on.
            EpochOver: another attempt has taken the lane.
        """
        began = time.monotonic()
        work = Work(item, run_id(self._batch, item))
        try:
            await self._drive(work)
        except Refused as refused:
            await self._settle(work, _refusal(refused))
        except Trouble as trouble:
            await self._put_back(work, trouble, since=began)
        except (InvalidParameter, LedgerRefused) as error:
            # Neither text holds contents.
            await self._settle(work, _refusal(Refused("invalid_prompt", str(error))))
        except PauseBatch:
            # Nothing is known against the item itself. One that has its run stays begun: it is
            # followed to its end, whatever happens to those that wait.
            if work.run is not None or item.upstream_run_id is not None:
                raise
            await self._journal.write(
                PutBack(index=item.index, not_before=None, error_kind=None, tries=item.tries)
            )
            raise
        except (EpochOver, Leave):
            raise
        except Exception as error:
            # A mistake of ours, with this item: no other is to wait for it.
            _logger.exception("Line %d of %s failed here", item.index, self._batch.id)
            mistake = Trouble("internal_error", type(error).__name__)
            await self._put_back(work, mistake, since=began)

    async def _drive(self, work: Work) -> None:
        item = work.item
        work.read()
        if item.upstream_run_id is not None:
            await self._look(work, item.upstream_run_id)
        while True:
            if work.run is None:
                await self._make_run(work)
            run = await self._follow(work)
            if run.status == RunStatus.REQUIRES_ACTION and not self._mood.cancelling.is_set():
                await self._promote(work)
                return
            expired = run.status == RunStatus.EXPIRED and not self._mood.cancelling.is_set()
            if not expired or work.attempt >= MAX_ATTEMPTS:
                break
            work.expire()
        cancelled = self._mood.cancelling.is_set()
        outcome = of_run(run, work.run_id, was_cancelled=cancelled)
        if self._options.with_messages and outcome.state is ItemState.COMPLETED:
            outcome = replace(outcome, messages=await self._messages(work, run))
        await self._settle(work, outcome)

    # Making

    async def _make_run(self, work: Work) -> None:
        """Create the upstream run, or find the one that was created already."""
        item = work.item
        if self._mood.cancelling.is_set() and item.intended_at is None:
            raise too_late()
        if item.intended_at is None or work.attempt > max(item.attempt, 1):
            await self._journal.write(
                Intend(
                    index=item.index,
                    run_id=work.run_id,
                    at=datetime.now(UTC),
                    attempt=work.attempt,
                    usage=work.past_usage,
                )
            )
            work.past_usage = None
        if work.thread_id is None:
            if self._is_spent(item):
                raise Refused(item.error_kind or "unavailable", _GIVEN_UP)
            work.thread_id = await self._requests.make_thread(work.run_id, work.thread_body)
            await self._journal.write(MadeThread(index=item.index, thread_id=work.thread_id))
        run, after_ms = await self._create(work, work.thread_id)
        work.take(run, after_ms)
        await self._journal.write(MadeRun(index=item.index, upstream_run_id=run.id))

    async def _create(self, work: Work, thread_id: str) -> tuple[Run, int | None]:
        wanted = work.create_input(thread_id)
        if work.may_exist:
            found = await self._requests.find(wanted)
            if found is not None:
                return found, None
            if self._is_spent(work.item):
                raise Refused(work.item.error_kind or "unavailable", _GIVEN_UP)
        work.may_exist = True
        made = await self._requests.create(wanted)
        if isinstance(made, Run):
            return made, None
        work.simulated = "x-runlane-simulator" in made.headers
        return made.data, poll_after_ms(made.headers)

    # Following

    async def _follow(self, work: Work) -> Run:
        """Poll until the run wants something or has ended."""
        run = work.run
        assert run is not None
        cancel_until: float | None = None
        while run.status not in TERMINAL:
            cancelling = self._mood.cancelling.is_set()
            if run.status == RunStatus.REQUIRES_ACTION and not cancelling:
                break
            if cancelling and cancel_until is None:
                cancel_until = time.monotonic() + CANCEL_FOR
                await self._requests.cancel(run.id, work.thread_id or "")
            if cancel_until is not None and time.monotonic() > cancel_until:
                raise Refused("cancel_uncertain", f"Upstream run {run.id} may be alive")
            wait = poll_interval(
                work.age,
                poll_interval_ms=None,
                poll_after_ms=work.after_ms,
                floor=self._input.poll_floor,
                ceiling=self._input.poll_ceiling,
                ending=cancelling,
            )
            await self._nap(wait)
            run = await self._look(work, run.id)
        return run

    async def _look(self, work: Work, upstream_run_id: str) -> Run:
        """Retrieve the run. No answer to that ends an item whose run may be alive."""
        failed = 0
        gone_since: float | None = None
        while True:
            try:
                response = await self._requests.retrieve(upstream_run_id, work.thread_id or "")
            except Trouble:
                pass
            except Refused:
                gone_since = gone_since or time.monotonic()
                if time.monotonic() - gone_since > NOT_FOUND_FOR:
                    raise
            else:
                work.take(response.data, poll_after_ms(response.headers))
                return response.data
            await self._nap(min(2.0**failed, _LONGEST_BETWEEN_LOOKS))
            failed = min(failed + 1, 10)

    # Ends

    async def _promote(self, work: Work) -> None:
        """Let the run go on as a workflow of its own, and give the slot back."""
        item, run = work.item, work.run
        assert run is not None
        wanted = ToPromote(
            item=BatchItem(batch_id=item.batch_id, index=item.index, custom_id=item.custom_id),
            run_id=work.run_id,
            thread_id=work.thread_id or "",
            params=work.params,
            run=run,
            attempt=work.attempt,
            upstream=self._requests.upstream,
            simulated=work.simulated,
            owner=self._batch.owner,
            options=self._options,
            began_at=work.began_at,
        )
        try:
            while not await self._promotions.promote(wanted):
                await self._nap(_BETWEEN_PROMOTIONS)
        except Refused:
            # It would wait upstream for nobody, and keep its thread from others.
            await self._requests.cancel(run.id, work.thread_id or "")
            raise
        await self._journal.write(Promote(index=item.index))

    async def _messages(self, work: Work, run: Run) -> str:
        """Read what was said in a run that has completed, or why that can't be read."""
        return await item_messages.patiently(
            partial(self._requests.messages, work.thread_id or ""),
            upstream_run_id=run.id,
            run_id=work.run_id,
            nap=self._nap,
            is_away=self._is_away,
        )

    async def _settle(self, work: Work, outcome: ItemOutcome) -> None:
        await self._journal.write(Settle(index=work.item.index, outcome=outcome))
        self._mood.settled += 1

    async def _put_back(self, work: Work, trouble: Trouble, *, since: float) -> None:
        item = work.item
        counts = trouble.counts and not self._is_away(trouble, since)
        tries = item.tries + counts
        if tries > 2 * self._options.tries:
            # Not even looking for it works.
            kind = CREATE_UNCERTAIN if work.may_exist else trouble.kind
            await self._settle(work, _refusal(Refused(kind, str(trouble))))
            return
        wait = self._input.retry_floor * 2 ** min(max(tries - 1, 0), 6)
        wait = min(max(wait, trouble.after or 0.0), _LONGEST_WAIT)
        await self._journal.write(
            PutBack(
                index=item.index,
                not_before=datetime.fromtimestamp(time.time() + wait, UTC),
                error_kind=trouble.kind,
                tries=tries,
                is_void=trouble.is_void and not work.may_exist_before,
            )
        )

    # Small things

    def _is_away(self, trouble: Trouble, since: float) -> bool:
        """Tell whether the upstream has answered nobody since then."""
        return trouble.is_outage and self._mood.answered_at < since

    def _is_spent(self, item: Item) -> bool:
        """Tell whether an item may only be looked for, and is not sent again."""
        return item.tries >= self._options.tries

    async def _nap(self, seconds: float) -> None:
        """Wait; be up at once when the lane comes back or the batch is being cancelled."""
        wakers = [self._mood.leaving]
        if not self._mood.cancelling.is_set():
            wakers.append(self._mood.cancelling)
        waits = [asyncio.ensure_future(each.wait()) for each in wakers]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        if self._mood.leaving.is_set():
            raise Leave


def _refusal(refused: Refused) -> ItemOutcome:
    state = ItemState.FAILED
    if refused.kind in (CREATE_UNCERTAIN, "cancel_uncertain"):
        state = ItemState.UNCERTAIN
    elif refused.kind == CANCELLED:
        state = ItemState.CANCELLED
    return given_up(state, refused.kind, str(refused), refused.status_code)
