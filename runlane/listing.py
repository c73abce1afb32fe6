"""Lists of runs, out of Temporal's Visibility alone: no run is read, so no worker is needed.

Visibility on SQL refuses `ORDER BY`, and its own order is by the time a run closed, which moves
runs between pages while they end. So a page is a range of creation times, found by counting, and
sorted here: first by creation, then by id.
"""

from collections.abc import AsyncIterator, Generator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError, RPCStatusCode

from runlane import search_attributes
from runlane.errors import InvalidRequest, RunNotFound
from runlane.ranges import (
    FOREVER_MS,
    GROWTH,
    SCAN,
    Place,
    Reach,
    between,
    milliseconds_of,
    order_of,
)
from runlane.requests import check_thread_id
from runlane.rpc import explained, is_namespace_missing
from runlane.stops import Seen, Stops, marked
from runlane.visibility import ENDED_IN_TEMPORAL, created_at, listed_view
from runsapi import Run, RunStatus
from workflows.contract import WORKFLOW, BlockedKind, RunView

MAX_LIMIT = 100
"""Runs on one page, as in the protocol."""

_Order = Literal["asc", "desc"]


@dataclass(frozen=True)
class ListQuery:
    """What a list was asked for."""

    thread_id: str | None = None
    status: str | None = None
    limit: int = 20
    after: str | None = None
    before: str | None = None
    order: _Order = "desc"
    blocked: bool | str = False
    """Only blocked runs: of all kinds, or of the one that is named."""
    owner: str | None = None
    """None: everybody's."""

    def check(self) -> None:
        """Refuse what can't be listed.

        Raises:
            InvalidRequest: a parameter is out of its range.
        """
        if not 1 <= self.limit <= MAX_LIMIT:
            text = f"limit must be between 1 and {MAX_LIMIT}, got {self.limit}."
            raise InvalidRequest(text, param="limit")
        if self.order not in ("asc", "desc"):
            text = f"order must be asc or desc, got {self.order!r}."
            raise InvalidRequest(text, param="order")
        if self.status is not None and self.status not in set(RunStatus):
            text = f"status must be one of {', '.join(RunStatus)}; got {self.status!r}."
            raise InvalidRequest(text, param="status")
        if isinstance(self.blocked, str):
            checked_kind(self.blocked)
        if self.thread_id is not None:
            check_thread_id(self.thread_id)


@dataclass(frozen=True)
class RunPage:
    """One page of runs. Iterating over it (`async for`) goes on through all later pages.

    Attributes:
        data: the page's runs, in the order asked for.
        views: the same, with what Temporal knows beyond the protocol.
        has_more: whether another page follows in the direction of travel.
        stops: those that stand, or why they can't be told; `views` say which holds a run up.
    """

    data: list[Run]
    views: list[RunView]
    has_more: bool
    _client: Client
    _query: ListQuery
    stops: Seen = field(default_factory=Seen)
    _stops: Stops | None = None

    @property
    def first_id(self) -> str | None:
        """Id of the page's first run."""
        return self.data[0].id if self.data else None

    @property
    def last_id(self) -> str | None:
        """Id of the page's last run."""
        return self.data[-1].id if self.data else None

    def has_next_page(self) -> bool:
        """Tell whether `get_next_page` would find anything."""
        return self.has_more and bool(self.data)

    async def get_next_page(self) -> "RunPage":
        """Fetch the page that follows: with `before` alone, the one that precedes."""
        if self._query.before is not None and self._query.after is None:
            query = replace(self._query, before=self.first_id)
        else:
            query = replace(self._query, after=self.last_id)
        page = await self._fetch(query)
        return await page.marked(self._stops, self.stops)

    async def _fetch(self, query: ListQuery) -> "RunPage":
        return await fetch_page(self._client, query)

    async def marked(self, stops: Stops | None, before: Seen | None = None) -> "RunPage":
        """Return the page with what is stopped on it.

        Args:
            stops: asked for those that stand; without it none are shown.
            before: what the page before it knew of them.
        """
        if stops is None:
            return self
        # A ledger that doesn't answer holds up one page, not each that follows.
        seen = before if before is not None and before.problem else await stops.seen()
        views = marked(self.views, seen.standing)
        return replace(self, views=views, stops=seen, _stops=stops)

    async def __aiter__(self) -> AsyncIterator[Run]:
        """Yield this page's runs, then those of all pages after it."""
        page = self
        while True:
            for run in page.data:
                yield run
            if not page.has_next_page():
                return
            page = await page.get_next_page()

    def as_json(self) -> dict[str, Any]:
        """Return the protocol's list envelope; each run has one more key, `runlane`."""
        return {
            "object": "list",
            "data": [view.as_json() for view in self.views],
            "first_id": self.first_id,
            "last_id": self.last_id,
            "has_more": self.has_more,
        }


class RunList:
    """A list that was asked for: `await` it for one page, or iterate over all runs."""

    def __init__(self, client: Client, query: ListQuery, stops: Stops | None = None) -> None:
        """Check the query; nothing is fetched yet."""
        query.check()
        self._client = client
        self._query = query
        self._stops = stops

    def __await__(self) -> Generator[Any, None, RunPage]:
        """Fetch the first page."""
        return self._first().__await__()

    async def _first(self) -> RunPage:
        return await (await self._fetch()).marked(self._stops)

    async def _fetch(self) -> RunPage:
        return await fetch_page(self._client, self._query)

    async def __aiter__(self) -> AsyncIterator[Run]:
        """Yield every run, page by page."""
        async for run in await self:
            yield run


async def fetch_page(client: Client, query: ListQuery) -> RunPage:
    """Fetch one page.

    Raises:
        RunNotFound: the run that `after` or `before` names doesn't exist.
        TemporalUnreachable: Temporal can't be asked.
    """
    with explained(client):
        return await _fetch(client, query)


async def count_runs(client: Client, query: ListQuery, *, timeout: timedelta) -> int:
    """Count the runs that a query lists on all its pages.

    Raises:
        RPCError: Temporal can't be asked, or doesn't answer in time.
    """
    return (await client.count_workflows(_filter(query), rpc_timeout=timeout)).count


async def _fetch(client: Client, query: ListQuery) -> RunPage:
    after = await _place(client, query.after, "after", query.owner)
    before = await _place(client, query.before, "before", query.owner)
    # The page before a run is nearest to it: read away from it, and turn the page round.
    backwards = before is not None and after is None
    descending = (query.order == "desc") != backwards
    start, stop = (before, None) if backwards else (after, before)
    rows = await _rows(client, _filter(query), descending, start, stop, query.limit + 1)
    has_more = len(rows) > query.limit
    rows = rows[: query.limit]
    if backwards:
        rows.reverse()
    views = [await listed_view(row) for row in rows]
    return RunPage(
        data=[view.run for view in views],
        views=views,
        has_more=has_more,
        _client=client,
        _query=query,
    )


async def _rows(  # noqa: PLR0917 - a sort needs to be told
    client: Client,
    where: str,
    descending: bool,  # noqa: FBT001 - the sort's own word
    start: Place | None,
    stop: Place | None,
    wanted: int,
) -> list[WorkflowExecution]:
    """Return the first `wanted` executions beyond `start`, in order and short of `stop`."""
    low = stop if descending else start
    high = start if descending else stop
    # Whole ranges, their ends included: runs created in the same millisecond as a cursor may be
    # on either side of it.
    reach = Reach(client, where, low, high, descending)
    total = await reach.count(None)
    width = None if total <= SCAN else await reach.width_for(wanted, total)
    while True:
        found = [row async for row in reach.rows(width) if between(row, low, high)]
        found.sort(key=order_of, reverse=descending)
        rows = await _present(client, found, wanted)
        # Runs change status while they are counted: a range may hold fewer than it did.
        if width is None or len(rows) >= wanted:
            break
        width = width * GROWTH if width < FOREVER_MS else None
    return rows


async def _present(
    client: Client, rows: Sequence[WorkflowExecution], wanted: int
) -> list[WorkflowExecution]:
    """Return the first `wanted` rows that are their run's present execution.

    A Reset leaves a closed one behind, which shows the run as it was.
    """
    present: list[WorkflowExecution] = []
    for begin in range(0, len(rows), wanted):
        some = rows[begin : begin + wanted]
        later = await _successors(client, [row for row in some if row.close_time is not None])
        present += [row for row in some if later.get(row.id, row.run_id) == row.run_id]
        if len(present) >= wanted:
            break
    return present[:wanted]


async def _successors(client: Client, rows: Sequence[WorkflowExecution]) -> dict[str, str]:
    """Return the latest execution of each of these runs, by the run's id."""
    if not rows:
        return {}
    ids = ", ".join(quoted(run_id) for run_id in {row.id for row in rows})
    latest: dict[str, WorkflowExecution] = {}
    async for row in client.list_workflows(f"{_OURS} AND WorkflowId IN ({ids})"):
        before = latest.get(row.id)
        if before is None or row.start_time > before.start_time:
            latest[row.id] = row
    return {run_id: row.run_id for run_id, row in latest.items()}


async def _place(client: Client, run_id: str | None, param: str, owner: str | None) -> Place | None:
    if run_id is None:
        return None
    if not run_id.isprintable():
        # No run's; Visibility breaks on some of these.
        raise _no_cursor(run_id, param)
    # As Visibility shows it, like the rows it is compared with.
    async for row in client.list_workflows(f"{_OURS} AND WorkflowId = {quoted(run_id)}", limit=1):
        return _own(row, param, owner)
    try:
        execution = await client.get_workflow_handle(run_id).describe()
    except RPCError as error:
        if is_namespace_missing(error):
            raise
        # An id that no workflow can have is answered by INVALID_ARGUMENT.
        if error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
            raise _no_cursor(run_id, param) from None
        raise
    # Started a moment ago, and Visibility hasn't heard of it.
    return _own(execution, param, owner)


def _own(row: WorkflowExecution, param: str, owner: str | None) -> Place:
    # When another owner's run was created, and whether there is one, is not told either.
    if owner is not None and owner != row.typed_search_attributes.get(search_attributes.OWNER):
        raise _no_cursor(row.id, param)
    return Place(milliseconds_of(created_at(row)), row.id)


def _no_cursor(run_id: str, param: str) -> RunNotFound:
    text = f"No run {run_id}, which {param} names; it may be past Temporal's retention."
    return RunNotFound(text, param=param)


_OURS = f"WorkflowType = '{WORKFLOW}' AND ExecutionStatus != 'ContinuedAsNew'"


def _filter(query: ListQuery) -> str:
    parts = [_OURS]
    if query.thread_id is not None:
        parts.append(f"{search_attributes.THREAD.name} = {quoted(query.thread_id)}")
    if query.owner is not None:
        parts.append(f"{search_attributes.OWNER.name} = {quoted(query.owner)}")
    if query.status is not None:
        has_it = f"{search_attributes.STATUS.name} = {quoted(query.status)}"
        # What Temporal ended kept the status it had; such a run counts as failed.
        parts.append(
            f"({has_it} OR ExecutionStatus IN ({_ENDED}))"
            if query.status == RunStatus.FAILED
            else f"{has_it} AND ExecutionStatus NOT IN ({_ENDED})"
        )
    if query.blocked:
        kind = query.blocked if isinstance(query.blocked, str) else None
        parts.append(blocked_condition(checked_kind(kind)))
    return " AND ".join(parts)


def checked_kind(kind: str | None) -> BlockedKind | None:
    """Return the kind of blocked runs that is meant; None stands for all.

    Raises:
        InvalidRequest: there is no such kind.
    """
    if kind is None:
        return None
    try:
        return BlockedKind(kind)
    except ValueError:
        text = f"kind must be one of {', '.join(BlockedKind)}; got {kind!r}."
        raise InvalidRequest(text, param="kind") from None


def blocked_condition(kind: BlockedKind | None = None) -> str:
    """Return what Visibility's query language calls a blocked run."""
    listed = ", ".join(quoted(each) for each in ([kind] if kind else BlockedKind))
    return f"{search_attributes.BLOCKED.name} IN ({listed}) AND ExecutionStatus = 'Running'"


def quoted(value: str) -> str:
    """Return `value` as a string of Visibility's query language, whatever it contains."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def ended_in_temporal_condition() -> str:
    """Return a query for the runs that Temporal ended over Runlane's head."""
    return f"WorkflowType = '{WORKFLOW}' AND ExecutionStatus IN ({_ENDED})"


_ENDED = ", ".join(
    # As Visibility's queries spell them: `TimedOut`.
    quoted("".join(word.capitalize() for word in status.name.split("_")))
    for status in ENDED_IN_TEMPORAL
)
