"""What a lane writes of its items, and what it asks before it sends: many at once.

What comes while a write is under way is written by the next, in one transaction. So a lane with
hundreds of items costs the ledger tens of transactions a second, and one with two waits for none.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from ledger import Ledger, LedgerRefused, LedgerUnavailable
from ledger.batch_writes import Write
from ledger.stops import Scope, Stop

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_SAME_HOLD = timedelta(seconds=0.5)
"""By which two holds may differ that come of one answer's time."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class EpochOver(Exception):
    """Another attempt has taken the lane: whatever this one does would be done twice."""


class Journal:
    """The ledger as one attempt of a lane writes it. It waits while the ledger is away.

    Args:
        ledger: where the batch stands.
        batch_id: of the batch.
        epoch: of this attempt of the lane. Once there is a later one, every call raises
            `EpochOver`.
    """

    def __init__(self, ledger: Ledger, batch_id: str, epoch: int) -> None:
        self._ledger = ledger
        self._batch_id = batch_id
        self._epoch = epoch
        self._held_until = datetime.min.replace(tzinfo=UTC)
        self._writes = _Together(self._write)
        self._asks = _Together(self._ask)

    async def write(self, write: Write) -> None:
        """Write it; it is durable once this returns.

        Raises:
            EpochOver: another attempt has taken the lane.
            LedgerRefused: it can't be stored.
        """
        if not await self._writes.call(write):
            raise EpochOver

    async def hold(self, seconds: float) -> None:
        """Let all lanes of the batch leave the upstream alone for so long."""
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        if until <= self._held_until + _SAME_HOLD:
            return
        # Many requests are told at once; the first one's word is everybody's.
        self._held_until = until
        await patiently(lambda: self._ledger.batches.hold(self._batch_id, until))

    async def may_send(self, run_id: str) -> Stop | None:
        """Ask whether a run may act now; return the stop against it.

        Raises:
            EpochOver: another attempt has taken the lane.
        """
        return await self._asks.call(run_id)

    async def _write(self, writes: Sequence[Write]) -> Sequence[bool | LedgerRefused]:
        try:
            return await patiently(
                lambda: self._ledger.batch_items.write(self._batch_id, self._epoch, writes)
            )
        except LedgerRefused as error:
            if len(writes) == 1:
                return [error]
        # One that can't be stored keeps no other from it.
        return [(await self._write([each]))[0] for each in writes]

    async def _ask(self, run_ids: Sequence[str]) -> Sequence[Stop | None]:
        async def ask() -> list[Stop]:
            if not await self._ledger.batch_items.holds(self._batch_id, self._epoch):
                raise EpochOver
            return await self._ledger.stops.standing()

        stops = await patiently(ask)
        return [next((stop for stop in stops if _holds(stop, each)), None) for each in run_ids]


class _Together(Generic[_T, _R]):
    """Calls that come while one is under way are made together by the next."""

    def __init__(
        self, make: Callable[[Sequence[_T]], Awaitable[Sequence[_R | LedgerRefused]]]
    ) -> None:
        self._make = make
        self._waiting: list[tuple[_T, asyncio.Future[_R]]] = []
        self._task: asyncio.Task[None] | None = None

    async def call(self, entry: _T) -> _R:
        place: asyncio.Future[_R] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, place))
        if self._task is None:
            self._task = asyncio.create_task(self._go())
        return await place

    async def _go(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, []
            try:
                results = await self._make([entry for entry, _ in taken])
            except BaseException as error:
                for _, place in taken:
                    if not place.done():
                        place.set_exception(error)
                if not isinstance(error, Exception):
                    self._task = None
                    raise
                continue
            for (_, place), result in zip(taken, results, strict=True):
                if place.done():
                    continue
                if isinstance(result, LedgerRefused):
                    place.set_exception(result)
                else:
                    place.set_result(result)
        self._task = None


async def patiently(ask: Callable[[], Awaitable[_R]]) -> _R:
    """Ask the ledger until it answers: each of its writes may be made twice."""
    pause = _FIRST_PAUSE
    while True:
        try:
            return await ask()
        except LedgerUnavailable:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


def _holds(stop: Stop, run_id: str) -> bool:
    return stop.scope is Scope.ALL or (stop.scope is Scope.RUN and stop.target == run_id)
