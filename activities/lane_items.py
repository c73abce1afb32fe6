"""One item of a batch, from its claim to its end: thread, run, polls, result.

Whatever is about to be sent was written before. So whoever takes the item over, after a death at
any line here, finds out by the stamp what became of it, and sends it again only where nothing did.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from temporalio.exceptions import ApplicationError

from activities import stamps
from activities.batch_contract import BatchItem, BatchOptions, LaneInput
from activities.batch_outcomes import given_up, of_run, usage_of
from activities.contract import (
    ATTEMPT_STAMP,
    CreateInput,
    Upstream,
    derive_run_id,
    stamped,
)
from activities.lane_failures import (
    Outcome,
    PauseBatch,
    Refused,
    Trouble,
    is_taken,
    of_error,
    of_failure,
)
from activities.lane_journal import Journal
from activities.paces import Pace
from activities.polling import poll_interval
from activities.promotion import Promotions, ToPromote
from ledger.batch_item import CREATE_UNCERTAIN, Item, ItemOutcome, ItemState
from ledger.batch_record import BatchRecord
from ledger.batch_writes import Intend, MadeRun, MadeThread, Promote, PutBack, Settle
from runsapi import (
    TERMINAL,
    Assistants,
    Run,
    RunCreateParams,
    RunsAPIError,
    RunStatus,
    poll_after_ms,
)
from runsapi.answers import Response

MAX_ATTEMPTS = 4
"""Upstream runs of an item that expire, each in the place of the one before."""
CANCEL_FOR = 600.0
"""Seconds in which the end of a cancelled run is waited for."""
NOT_FOUND_FOR = 600.0
"""Seconds after which a run that the upstream doesn't know is gone."""

_BETWEEN_PROMOTIONS = 1.0
_LONGEST_WAIT = 60.0
_LONGEST_BETWEEN_LOOKS = 10.0


class Leave(Exception):
    """The lane comes back: the item is left as it stands, for the lane's next turn."""


@dataclass
class Mood:
    """What all items of a lane must know."""

    leaving: asyncio.Event
    """Set: come back as soon as nothing is on its way."""
    cancelling: asyncio.Event
    """Set: cancel what has begun."""
    answered_at: float = 0.0
    """When the upstream last answered anything, by this process's clock."""
    settled: int = 0


class Items:
    """Drives the items of one lane.

    Args:
        upstream: where runs are executed.
        journal: where items stand.
        promotions: takes over those that wait for somebody.
        batch: theirs.
        input: of the lane.
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
        mood: Mood,
    ) -> None:
        self._upstream = upstream
        self._runs = upstream.runs
        self._journal = journal
        self._promotions = promotions
        self._batch = batch
        self._input = input
        self._options = BatchOptions.model_validate(batch.options)
        self._mood = mood
        self.pace = Pace(rpm=self._options.rpm, tpm=self._options.tpm, lanes=input.lanes)

    async def drive(self, item: Item) -> None:
        """Bring an item as far as it comes: to its end, to a run of its own, or back to wait.

        Raises:
            Leave: the lane comes back.
            PauseBatch: no item can go on.
            EpochOver: another attempt has taken the lane.
        """
        began = time.monotonic()
        work = _Work(item, run_id(self._batch, item))
        try:
            await self._drive(work)
        except Refused as refused:
            await self._settle(work, _refusal(refused))
        except Trouble as trouble:
            await self._put_back(work, trouble, since=began)
        except PauseBatch:
            # Nothing is known against the item itself. One that has its run stays begun: it is
            # followed to its end, whatever happens to those that wait.
            if work.run is not None or item.upstream_run_id is not None:
                raise
            await self._journal.write(
                PutBack(index=item.index, not_before=None, error_kind=None, tries=item.tries)
            )
            raise

    async def _drive(self, work: "_Work") -> None:
        item = work.item
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
        self.pace.use(0 if run.usage is None else run.usage.total_tokens)
        cancelled = self._mood.cancelling.is_set()
        await self._settle(work, of_run(run, work.run_id, was_cancelled=cancelled))

    # Making

    async def _make_run(self, work: "_Work") -> None:
        """Create the upstream run, or find the one that was created already."""
        item = work.item
        if self._mood.cancelling.is_set() and item.intended_at is None:
            raise Refused("batch_cancelled", "The batch was cancelled before this began")
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
            work.thread_id = await self._make_thread(work)
            await self._journal.write(MadeThread(index=item.index, thread_id=work.thread_id))
        run, after_ms = await self._create(work, work.thread_id)
        work.take(run, after_ms)
        await self._journal.write(MadeRun(index=item.index, upstream_run_id=run.id))

    async def _make_thread(self, work: "_Work") -> str:
        """Create the item's thread. An answer that was lost leaves an empty one behind, no more."""
        await self._turn()
        await self._may_send(work)
        try:
            answer = await self._upstream.request("POST", "/threads", body=work.thread_body)
        except RunsAPIError as error:
            raise self._meaning(error, creating=True) from None
        self._answered()
        thread_id = answer.data.get("id") if isinstance(answer.data, dict) else None
        if not isinstance(thread_id, str) or not thread_id:
            raise Trouble("unavailable", "The upstream made a thread without an id")
        return thread_id

    async def _create(self, work: "_Work", thread_id: str) -> tuple[Run, int | None]:
        wanted = self._create_input(work, thread_id)
        if work.may_exist:
            found = await self._find(work, wanted)
            if found is not None:
                return found, None
            if self._is_spent(work.item):
                raise Refused(work.item.error_kind or "unavailable", _GIVEN_UP)
        params = RunCreateParams.model_validate(wanted.params)
        await self._turn()
        work.may_exist = True
        try:
            response = await self._runs.with_response.create(
                thread_id, params, before_send=lambda: self._may_send(work)
            )
        except RunsAPIError as error:
            if not is_taken(error):
                raise self._meaning(error, creating=True) from None
            self._answered()
            return await self._holder(wanted, error), None
        self._answered()
        work.simulated = "x-runlane-simulator" in response.headers
        return response.data, poll_after_ms(response.headers)

    async def _find(self, work: "_Work", wanted: CreateInput) -> Run | None:
        await self._turn()
        try:
            found = await stamps.find(self._runs, wanted)
        except ApplicationError as failure:
            meaning = of_failure(failure)
            if isinstance(meaning, Trouble) and work.item.tries >= 2 * self._options.tries:
                raise Refused(CREATE_UNCERTAIN, failure.message) from None
            raise meaning from None
        self._answered()
        return found

    async def _holder(self, wanted: CreateInput, error: RunsAPIError) -> Run:
        """Return the run that holds the thread, if it is this item's."""
        try:
            return await stamps.find_after_refusal(self._runs, wanted, error)
        except ApplicationError as failure:
            raise of_failure(failure) from None

    # Following

    async def _follow(self, work: "_Work") -> Run:
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
                await self._cancel(work, run)
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

    async def _look(self, work: "_Work", upstream_run_id: str) -> Run:
        """Retrieve the run. No answer to that ends an item whose run may be alive."""
        thread_id, failed, gone_since = work.thread_id or "", 0, None
        while True:
            await self._turn()
            try:
                response: Response[Run] = await self._runs.with_response.retrieve(
                    upstream_run_id, thread_id=thread_id, background=True
                )
            except RunsAPIError as error:
                meaning = self._meaning(error, creating=False)
                if isinstance(meaning, PauseBatch):
                    raise meaning from None
                if isinstance(meaning, Refused):
                    gone_since = gone_since or time.monotonic()
                    if time.monotonic() - gone_since > NOT_FOUND_FOR:
                        raise meaning from None
                failed += 1
                await self._nap(min(2.0 ** min(failed - 1, 10), _LONGEST_BETWEEN_LOOKS))
                continue
            self._answered()
            run = response.data
            if run.id != upstream_run_id:
                failed += 1
                await self._nap(min(2.0 ** min(failed - 1, 10), _LONGEST_BETWEEN_LOOKS))
                continue
            work.take(run, poll_after_ms(response.headers))
            return run

    async def _cancel(self, work: "_Work", run: Run) -> None:
        """Ask for the end; whatever the answer is, the polls that follow tell the truth."""
        await self._turn()
        try:
            await self._runs.cancel(run.id, thread_id=work.thread_id or "")
        except RunsAPIError:
            return
        self._answered()

    # Ends

    async def _promote(self, work: "_Work") -> None:
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
            upstream=Upstream(name=self._upstream.name, url=self._upstream.url),
            simulated=work.simulated,
            owner=self._batch.owner,
            options=self._options,
            began_at=work.began_at,
        )
        while not await self._promotions.promote(wanted):
            await self._nap(_BETWEEN_PROMOTIONS)
        await self._journal.write(Promote(index=item.index))

    async def _settle(self, work: "_Work", outcome: ItemOutcome) -> None:
        await self._journal.write(Settle(index=work.item.index, outcome=outcome))
        self._mood.settled += 1

    async def _put_back(self, work: "_Work", trouble: Trouble, *, since: float) -> None:
        item = work.item
        counts = trouble.counts and not (trouble.is_outage and self._mood.answered_at < since)
        tries = item.tries + counts
        if tries > self._options.tries and not work.may_exist:
            await self._settle(work, _refusal(Refused(trouble.kind, str(trouble))))
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

    def _is_spent(self, item: Item) -> bool:
        """Tell whether an item may only be looked for, and is not sent again."""
        return item.tries >= self._options.tries

    async def _turn(self) -> None:
        if self._mood.leaving.is_set():
            raise Leave
        await self.pace.turn()

    async def _may_send(self, work: "_Work") -> None:
        stop = await self._journal.may_send(work.run_id)
        if stop is not None:
            raise PauseBatch("stopped", f"Stopped by {stop.by} ({stop}): {stop.reason}")
        if self._mood.leaving.is_set():
            raise Leave

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

    def _answered(self) -> None:
        self._mood.answered_at = time.monotonic()

    def _meaning(self, error: RunsAPIError, *, creating: bool) -> Outcome:
        meaning = of_error(error, creating=creating)
        if not isinstance(meaning, Trouble) or not meaning.is_outage:
            self._answered()
        return meaning

    def _create_input(self, work: "_Work", thread_id: str) -> CreateInput:
        params = dict(work.params)
        params["metadata"] = stamped(work.run_id, work.attempt, params.get("metadata") or {})
        if work.attempt > 1:
            # The first upstream run added them to the thread, where they still stand.
            params.pop("additional_messages", None)
        return CreateInput(
            run_id=work.run_id,
            attempt=work.attempt,
            thread_id=thread_id,
            params=params,
            age=work.age,
            # So that what is refused while looking tells what must be mended.
            find_only=True,
        )


_GIVEN_UP = "Given up after as many tries as the batch allows"


class _Work:
    """An item under way."""

    def __init__(self, item: Item, run_id: str) -> None:
        self.item = item
        self.run_id = run_id
        body: dict[str, Any] = json.loads(item.body or "{}")
        body.pop("stream", None)
        thread = body.pop("thread", None) or {}
        resources = body.pop("tool_resources", None)
        if resources is not None:
            thread.setdefault("tool_resources", resources)
        self.thread_body: dict[str, Any] = thread
        self.params: Mapping[str, Any] = body
        self.thread_id = item.thread_id or item.made_thread
        self.attempt = max(item.attempt, 1)
        self.may_exist = self.may_exist_before = item.intended_at is not None
        """Whether an upstream run of this attempt may have been created."""
        self.run: Run | None = None
        self.after_ms: int | None = None
        self.simulated = False
        self.past_usage: Any = None
        self.began_at = (item.intended_at or datetime.now(UTC)).timestamp()

    @property
    def age(self) -> float:
        """Seconds since the item's run was intended."""
        return max(time.time() - self.began_at, 0.0)

    def take(self, run: Run, after_ms: int | None) -> None:
        """Take the upstream run as it is now."""
        self.run, self.after_ms = run, after_ms
        stamp = (run.metadata or {}).get(ATTEMPT_STAMP, "")
        if stamp.isdecimal():
            self.attempt = int(stamp)

    def expire(self) -> None:
        """Make ready for another upstream run in the place of this one."""
        assert self.run is not None
        self.past_usage = usage_of(self.run)
        self.run, self.attempt, self.began_at = None, self.attempt + 1, time.time()


def run_id(batch: BatchRecord, item: Item) -> str:
    """Return the id of an item's run; a retry of what has failed is another run."""
    key = item.custom_id if item.generation == 1 else f"{item.custom_id}\0{item.generation}"
    return derive_run_id(f"batch:{batch.id}", key)


def _refusal(refused: Refused) -> ItemOutcome:
    state = ItemState.FAILED
    if refused.kind in (CREATE_UNCERTAIN, "cancel_uncertain"):
        state = ItemState.UNCERTAIN
    elif refused.kind == "batch_cancelled":
        state = ItemState.CANCELLED
    return given_up(state, refused.kind, str(refused), refused.status_code)
