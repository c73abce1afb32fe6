"""The items of all batches: the journal by which lanes drive them, and their results.

All writes of one batch take turns, so a group of them costs little more than one: whoever drives
many items collects what it has to write for some milliseconds, and writes it by `write`.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import partial

from sqlalchemy import Connection

from ledger import batch_claiming, batch_input, batch_journal, batch_results, batch_sweeping, limits
from ledger.audit import Appending
from ledger.batch_contents import BatchContents
from ledger.batch_item import Claim, Item, ItemOutcome, ItemState, NewItem
from ledger.batch_writes import Intend, MadeRun, MadeThread, Promote, PutBack, Settle, Write
from ledger.chain import Event
from ledger.contents import Contents
from ledger.database import Database, take_turn
from ledger.errors import LedgerRefused
from ledger.run_record import Usage
from ledger.stops import TRAIL

MAX_LIMIT = 1000
"""Items on one page, and of one claim."""


class BatchItems:
    """The items of all batches."""

    def __init__(self, database: Database, contents: BatchContents, trailed: Contents) -> None:
        """Read and write through this database.

        Args:
            database: the ledger's.
            contents: of the items.
            trailed: of what goes into the trail.
        """
        self._database = database
        self._contents = contents
        self._trailed = trailed

    async def add(self, batch_id: str, items: Sequence[NewItem]) -> int:
        """Add a page of the input; return how many of its items are new.

        Pages are added in the order of their indexes. Items that stand there already are left.

        Raises:
            BatchNotKnown: there is no such batch.
            LedgerRefused: an item can't be stored, comes before one that stands there, has an
                index or a custom id of another one, or the batch is ending; nothing is added.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        for item in items:
            item.check()
        return await self._database.write(
            batch_id,
            lambda connection: batch_input.add(connection, self._contents, batch_id, items),
        )

    async def next_index(self, batch_id: str) -> int:
        """Return the lowest index that no item of the batch reaches; 0: it has none.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        return await self._database.read(
            lambda connection: batch_input.next_index(connection, batch_id)
        )

    async def take_lane(self, batch_id: str, lane: int, holder: str) -> int:
        """Take a lane over; return its new epoch, higher than any of this batch before.

        From then on every write of an older epoch of this lane returns false.

        Args:
            batch_id: which.
            lane: its number, from 0.
            holder: new for each attempt; the same one again gets the same epoch.

        Raises:
            BatchNotKnown: there is no such batch.
            LedgerRefused: something given can't be stored.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        limits.name("holder", holder)
        if lane < 0:
            raise LedgerRefused(f"lane must be at least 0, got {lane}.")
        return await self._database.write(
            batch_id, lambda connection: batch_claiming.take(connection, batch_id, lane, holder)
        )

    async def claim(
        self,
        batch_id: str,
        lane: int,
        epoch: int,
        limit: int,
        now: datetime,
        *,
        tokens_up_to: float | None = None,
    ) -> Claim:
        """Begin items: first those that this lane held in an older epoch, then waiting ones.

        Those to take over are given out also where nothing new is. Of one thread only the first
        unfinished item may be begun. An answer that was lost is lost: the items come back with
        the next epoch of the lane, or at once by `held`.

        Args:
            batch_id: which.
            lane: from `take_lane`.
            epoch: from `take_lane`.
            limit: at most so many, up to 1,000.
            now: with a zone; what waits until later is left.
            tokens_up_to: what the batch's tokens may come to by now, with what is under way, as far
                as that can be known; None: anything.

        Raises:
            BatchNotKnown: there is no such batch.
            LedgerRefused: the limit is out of its range.
            LedgerUnavailable: the ledger doesn't answer; see above.
        """
        _check_limit(limit)
        limits.instant("now", now)
        return await self._database.write(
            batch_id,
            lambda connection: batch_claiming.claim(
                connection,
                self._contents,
                batch_id,
                holder=(lane, epoch),
                limit=limit,
                now=now,
                tokens_up_to=tokens_up_to,
            ),
        )

    async def holds(self, batch_id: str, epoch: int) -> bool:
        """Tell whether no later attempt has taken the lane of an epoch; ask right before a POST.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        return await self._database.read(
            lambda connection: batch_claiming.is_current(connection, batch_id, epoch)
        )

    async def held(self, batch_id: str, epoch: int) -> Sequence[Item]:
        """Return the items, with their bodies, that an epoch holds, in the order of the input.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        return await self._database.read(
            lambda connection: batch_claiming.held(connection, self._contents, batch_id, epoch)
        )

    async def write(self, batch_id: str, epoch: int, writes: Sequence[Write]) -> list[bool]:
        """Write what happened to items that an epoch holds, all at once and in this order.

        Returns:
            For each write whether it counts. False: the item is not this epoch's any more; with
            the lane's epoch over, all are.

        Raises:
            LedgerRefused: something given can't be stored; nothing is written.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        for each in writes:
            each.check()
        if not writes:
            return []
        return await self._database.write(
            batch_id,
            lambda connection: batch_journal.write(
                connection, self._contents, batch_id, epoch, writes
            ),
        )

    async def intend(
        self,
        batch_id: str,
        index: int,
        epoch: int,
        run_id: str,
        at: datetime,
        *,
        attempt: int = 1,
        usage: Usage | None = None,
    ) -> bool:
        """Do as `write` with one `Intend`."""
        intent = Intend(index=index, run_id=run_id, at=at, attempt=attempt, usage=usage)
        return await self._one(batch_id, epoch, intent)

    async def made_thread(self, batch_id: str, index: int, epoch: int, thread_id: str) -> bool:
        """Do as `write` with one `MadeThread`."""
        return await self._one(batch_id, epoch, MadeThread(index=index, thread_id=thread_id))

    async def made_run(self, batch_id: str, index: int, epoch: int, upstream_run_id: str) -> bool:
        """Do as `write` with one `MadeRun`."""
        made = MadeRun(index=index, upstream_run_id=upstream_run_id)
        return await self._one(batch_id, epoch, made)

    async def promote(self, batch_id: str, index: int, epoch: int) -> bool:
        """Do as `write` with one `Promote`."""
        return await self._one(batch_id, epoch, Promote(index=index))

    async def put_back(
        self,
        batch_id: str,
        index: int,
        epoch: int,
        *,
        not_before: datetime | None,
        error_kind: str | None,
        tries: int,
        is_void: bool = False,
        usage: Usage | None = None,
    ) -> bool:
        """Do as `write` with one `PutBack`."""
        put = PutBack(
            index=index, not_before=not_before, error_kind=error_kind, tries=tries,
            is_void=is_void, usage=usage,
        )  # fmt: skip
        return await self._one(batch_id, epoch, put)

    async def settle(
        self,
        batch_id: str,
        index: int,
        epoch: int | None,
        outcome: ItemOutcome,
        *,
        run_id: str | None = None,
    ) -> bool:
        """End an item; an end that stands stays.

        Args:
            batch_id: which.
            index: which item.
            epoch: of the lane that holds it; None: a `Run` of its own drove it.
            outcome: how it ended.
            run_id: that of the `Run`; needed where there is no epoch.

        Returns:
            Whether an end of this epoch, or of this run, stands. False: the item is another's,
            or was begun anew by a retry.

        Raises:
            LedgerRefused: something given can't be stored, or nobody is named.
            LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
        """
        if epoch is not None:
            return await self._one(batch_id, epoch, Settle(index=index, outcome=outcome))
        outcome.check()
        named = limits.name("run_id", run_id or "")
        return await self._database.write(
            batch_id,
            lambda connection: batch_journal.settle_run(
                connection, self._contents, batch_id, index, run_id=named, outcome=outcome
            ),
        )

    async def settle_many(
        self, batch_id: str, epoch: int, outcomes: Sequence[tuple[int, ItemOutcome]]
    ) -> list[bool]:
        """Do as `write` with a `Settle` for each index."""
        return await self.write(
            batch_id, epoch, [Settle(index=index, outcome=each) for index, each in outcomes]
        )

    async def fail_waiting(self, batch_id: str, state: ItemState, at: datetime) -> int:
        """End all items that wait, as `expired` or `cancelled`; return how many it were.

        One whose create upstream was intended, and of which nobody has read what came of it,
        ends as `uncertain`. What lanes hold goes on.

        Raises:
            LedgerRefused: it is neither state.
            LedgerUnavailable: the ledger doesn't answer; the same call again goes on.
        """
        if state not in (ItemState.EXPIRED, ItemState.CANCELLED):
            raise LedgerRefused(f"state must be expired or cancelled, got {state}.")
        limits.instant("at", at)
        ended = 0
        while count := await self._database.write(
            batch_id,
            lambda connection: batch_sweeping.end_some(
                connection, self._contents, batch_id, state, at
            ),
        ):
            ended += count
        return ended

    async def retry_failed(
        self, batch_id: str, *, deadline: datetime | None = None, events: Sequence[Event] = ()
    ) -> int:
        """Let failed and expired items wait again, as new generations; return how many it were.

        Where there are some, a batch that had ended is in progress again. Those whose contents
        are erased, and those that are uncertain, stay as they are.

        Args:
            batch_id: which.
            deadline: that of a batch that had ended, from now on; with a zone. None: it has none.
            events: for the trail `ledger.stops.TRAIL`, written where there are some.

        Raises:
            BatchNotKnown: there is no such batch.
            LedgerRefused: the batch is being cancelled, or was, or was never validated.
            LedgerUnavailable: the ledger doesn't answer; the same call again goes on.
        """
        if deadline is not None:
            limits.instant("deadline", deadline)
        appending = Appending(TRAIL, events)

        def work(connection: Connection, after: int) -> tuple[int, int] | None:
            some = batch_sweeping.retry_some(connection, batch_id, after=after, deadline=deadline)
            if some is not None and some[0]:
                # An event that stands there already is not written again.
                take_turn(connection, TRAIL)
                appending.write(connection, self._trailed)
            return some

        retried, after = 0, -1
        while some := await self._database.write(batch_id, partial(work, after=after)):
            retried, after = retried + some[0], some[1]
        return retried

    async def ended_since(self, batch_id: str, at: datetime) -> Sequence[tuple[datetime, int]]:
        """Return when items ended since then, and the tokens of each, in the order of their ends.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        return await self._database.read(
            lambda connection: batch_results.ended_since(connection, batch_id, at)
        )

    async def ended(
        self, batch_id: str, after: int = -1, limit: int = 100
    ) -> Sequence[tuple[int, int, ItemState]]:
        """Return index, generation and state of items that have ended, in the input's order.

        Args:
            batch_id: which.
            after: an index: those that follow it.
            limit: at most so many, up to 1,000.

        Raises:
            LedgerRefused: the limit is out of its range.
            LedgerUnavailable: the ledger doesn't answer.
        """
        _check_limit(limit)
        return await self._database.read(
            lambda connection: batch_results.ended(connection, batch_id, after, limit)
        )

    async def unfinished(self, batch_id: str) -> bool:
        """Tell whether an item has not ended.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        return await self._database.read(
            lambda connection: batch_results.has_unfinished(connection, batch_id)
        )

    async def promoted(
        self, batch_id: str, limit: int = 100, after: int | None = None
    ) -> Sequence[Item]:
        """Return items that are runs of their own and haven't ended, in the order of the input.

        Args:
            batch_id: which.
            limit: at most so many, up to 1,000.
            after: an index: those that follow it.

        Raises:
            LedgerRefused: the limit is out of its range.
            LedgerUnavailable: the ledger doesn't answer.
        """
        _check_limit(limit)
        return await self._database.read(
            lambda connection: batch_results.promoted(connection, batch_id, limit, after)
        )

    async def results(self, batch_id: str, after_seq: int = 0, limit: int = 100) -> Sequence[Item]:
        """Return items that have ended, in the order of their ends, with what they answered.

        Whoever goes on after the last `seq` that it has seen misses none and sees none twice; one
        that was retried has a new `seq`.

        Args:
            batch_id: which.
            after_seq: those that follow it; 0: from the first.
            limit: at most so many, up to 1,000.

        Raises:
            LedgerRefused: the limit is out of its range.
            LedgerUnavailable: the ledger doesn't answer.
        """
        _check_limit(limit)
        return await self._database.read(
            lambda connection: batch_results.by_end(
                connection, self._contents, batch_id, after_seq, limit
            )
        )

    async def ordered(
        self, batch_id: str, after_index: int = -1, limit: int = 100
    ) -> Sequence[Item]:
        """Return items that have ended, in the order of the input, with what they answered.

        Args:
            batch_id: which.
            after_index: those that follow it; -1: from the first.
            limit: at most so many, up to 1,000.

        Raises:
            LedgerRefused: the limit is out of its range.
            LedgerUnavailable: the ledger doesn't answer.
        """
        _check_limit(limit)
        return await self._database.read(
            lambda connection: batch_results.by_index(
                connection, self._contents, batch_id, after_index, limit
            )
        )

    async def of_run(self, run_id: str) -> Item | None:
        """Return the item that a run of ours is, or was last; None: it is none.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        return await self._database.read(
            lambda connection: batch_results.of_run(connection, run_id)
        )

    async def result_of_run(self, run_id: str) -> Item | None:
        """Return the item that a run of ours is, with what it answered, once it has ended.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        return await self._database.read(
            lambda connection: batch_results.result_of_run(connection, self._contents, run_id)
        )

    async def count_answers(self, batch_id: str) -> int:
        """Count the contents that came with ends: it changes with each that is erased.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        return await self._database.read(
            lambda connection: batch_results.count_answers(connection, batch_id)
        )

    async def runs_of_thread(self, thread_id: str) -> Sequence[str]:
        """Return the ids of our runs of items on a thread, named by them or made for them.

        Raises:
            LedgerUnavailable: the ledger doesn't answer.
        """
        return await self._database.read(
            lambda connection: batch_results.runs_of_thread(connection, thread_id)
        )

    async def _one(self, batch_id: str, epoch: int, write: Write) -> bool:
        return (await self.write(batch_id, epoch, [write]))[0]


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_LIMIT:
        raise LedgerRefused(f"limit must be between 1 and {MAX_LIMIT}, got {limit}.")
