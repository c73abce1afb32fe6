"""Ranges of creation times that are wide enough for a page of runs, found by counting.

Visibility on SQL refuses `ORDER BY`: a range is what a page can be asked for.
"""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from temporalio.client import Client, WorkflowExecution

from runlane import search_attributes
from runlane.visibility import created_at
from workflows.shown import created_attribute

SCAN = 200
"""Rows fetched at once although the page needs fewer: cheaper than counting on."""
_FIRST_RANGE_MS = 60_000
GROWTH = 8
FOREVER_MS = 10 * 365 * 86_400_000
_PAGE_SIZE = 1_000

_BLUR_MS = 2
"""SQLite compares other milliseconds than it shows: with equality asked for, equals may be missing,
and the runs of a cursor's own millisecond would fall between two pages."""


@dataclass(frozen=True)
class Place:
    """A run's place in the order by creation, then id."""

    created_ms: int
    id: str


class Reach:
    """Ranges of creation times that begin at a cursor and reach `width` ms away from it."""

    def __init__(
        self,
        client: Client,
        where: str,
        low: Place | None,
        high: Place | None,
        descending: bool,  # noqa: FBT001
    ) -> None:
        self._client = client
        self._where = where
        self._low = low
        self._high = high
        self._descending = descending
        self._edge: int | None = None

    async def count(self, width: int | None) -> int:
        """Count the rows within `width` ms of the cursor; None: all beyond it."""
        return (await self._client.count_workflows(await self._query(width))).count

    async def rows(self, width: int | None) -> AsyncIterator[WorkflowExecution]:
        """Yield them, in no order."""
        query = await self._query(width)
        low, high = await self._bounds(width)
        async for row in self._client.list_workflows(query, page_size=_PAGE_SIZE):
            created_ms, _ = order_of(row)
            # Of a millisecond that the blurred query has only in part, none is taken.
            if (low is None or created_ms >= low) and (high is None or created_ms <= high):
                yield row

    async def width_for(self, wanted: int, total: int) -> int | None:
        """Find a width that holds `wanted` runs, and few more where runs are not all of one ms."""
        too_little, width = 0, _FIRST_RANGE_MS
        while (found := await self.count(width)) < wanted:
            # Fewer than the total may be left by now, so time is a limit too.
            if found >= total or width >= FOREVER_MS:
                return None
            too_little, width = width, width * GROWTH
        # Creation comes in bursts: the last step may have taken in thousands.
        while found > max(SCAN, wanted) and width - too_little > 1:
            middle = (too_little + width) // 2
            here = await self.count(middle)
            if here < wanted:
                too_little = middle
            else:
                width, found = middle, here
        return width

    async def _bounds(self, width: int | None) -> tuple[int | None, int | None]:
        low = None if self._low is None else self._low.created_ms
        high = None if self._high is None else self._high.created_ms
        if width is not None:
            edge = await self._first_edge()
            if self._descending:
                low = edge - width if low is None else max(low, edge - width)
            else:
                high = edge + width if high is None else min(high, edge + width)
        return low, high

    async def _query(self, width: int | None) -> str:
        low, high = await self._bounds(width)
        parts = [self._where]
        if low is not None:
            parts.append(f"{search_attributes.CREATED.name} >= '{_moment(low - _BLUR_MS)}'")
        if high is not None:
            parts.append(f"{search_attributes.CREATED.name} <= '{_moment(high + _BLUR_MS)}'")
        return " AND ".join(parts)

    async def _first_edge(self) -> int:
        """Return the cursor's time; without a cursor, one beyond the outermost run's."""
        if self._edge is None:
            place = self._high if self._descending else self._low
            self._edge = await self._outermost() if place is None else place.created_ms
        return self._edge

    async def _outermost(self) -> int:
        name = search_attributes.CREATED.name
        low, high = 0, 1
        if not self._descending:
            # The oldest run: halve the time in which it may lie, down to a minute.
            high = 4_102_444_800_000
            while high - low > _FIRST_RANGE_MS:
                middle = (low + high) // 2
                query = f"{self._where} AND {name} <= '{_moment(middle)}'"
                if (await self._client.count_workflows(query)).count:
                    high = middle
                else:
                    low = middle
            return low
        # The newest is hardly ahead of now, unless a caller's clock is.
        high = _now_ms() + _FIRST_RANGE_MS
        while (
            await self._client.count_workflows(f"{self._where} AND {name} > '{_moment(high)}'")
        ).count:
            high += (high - _now_ms()) * GROWTH
        return high


def between(row: WorkflowExecution, low: Place | None, high: Place | None) -> bool:
    """Tell whether a row lies strictly between two places."""
    place = order_of(row)
    above = low is None or place > (low.created_ms, low.id)
    return above and (high is None or place < (high.created_ms, high.id))


def order_of(row: WorkflowExecution) -> tuple[int, str]:
    """Return what rows are sorted by: creation in ms, then id."""
    return (milliseconds_of(created_at(row)), row.id)


def milliseconds_of(seconds: float) -> int:
    """Return seconds as whole milliseconds."""
    return round(seconds * 1000)


def _moment(milliseconds: int) -> str:
    moment = created_attribute(milliseconds / 1000)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _now_ms() -> int:
    return milliseconds_of(time.time())
