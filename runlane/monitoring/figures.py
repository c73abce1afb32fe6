"""What Temporal's Visibility knows of all runs, as metrics: how many, how long they wait.

Every worker shows the same figures. They are fetched when somebody scrapes, at most once in a
while, and a scrape doesn't wait for a slow Temporal: it shows the last ones, and how old they are.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from temporalio.client import Client

from runlane.listing import ListQuery, count_runs, fetch_page
from runsapi import RunStatus
from workflows.contract import BlockedKind

PACE = 30.0
"""Seconds in which the figures are fetched at most once."""
PATIENCE = 2.0
"""Seconds that a scrape waits for new figures."""

_RPC_TIMEOUT = timedelta(seconds=5)
_REFRESH_TIMEOUT = 20.0
_MOST_PAGES = 5
"""Of a hundred waiting runs, the oldest first: further ones have hardly waited longer."""

_logger = logging.getLogger("runlane.monitoring")


@dataclass(frozen=True)
class _Figures:
    runs: dict[str, int]
    blocked: dict[str, int]
    waiting_since: float | None
    """Unix seconds of the call that has waited longest."""
    at: float


class RunFigures(Collector):
    """Runs by status, blocked runs, and the oldest waiting call."""

    def __init__(self, *, pace: float = PACE, patience: float = PATIENCE) -> None:
        """Without a client nothing is known.

        Args:
            pace: seconds in which the figures are fetched at most once.
            patience: seconds that `refresh` waits for them.
        """
        self._client: Client | None = None
        self._pace = pace
        self._patience = patience
        self._figures: _Figures | None = None
        self._errors = 0
        self._began = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    def use(self, client: Client) -> None:
        """Ask through this client from now on."""
        self._client = client

    async def refresh(self) -> None:
        """Fetch the figures if they are due; come back before they are there if that takes long."""
        if self._client is None:
            return
        if self._fetching is None or self._fetching.done():
            if time.monotonic() - self._began < self._pace:
                return
            self._began = time.monotonic()
            self._fetching = asyncio.create_task(self._fetch(self._client))
        await asyncio.wait({self._fetching}, timeout=self._patience)

    def describe(self) -> list[Metric]:
        """Return the metrics without values."""
        return list(self._shown(None))

    def collect(self) -> Iterator[Metric]:
        """Return the metrics as they were when last fetched."""
        return self._shown(self._figures)

    def _shown(self, figures: _Figures | None) -> Iterator[Metric]:
        runs = GaugeMetricFamily("runlane_runs", "Runs that Temporal retains.", labels=["status"])
        blocked = GaugeMetricFamily(
            "runlane_runs_blocked",
            "Runs that wait until somebody mends something.",
            labels=["kind"],
        )
        age = GaugeMetricFamily(
            "runlane_oldest_waiting_call_age_seconds",
            "How long the tool call that has waited longest has waited; 0 where none waits.",
        )
        at = GaugeMetricFamily(
            "runlane_visibility_last_success_timestamp_seconds",
            "When the figures on runs were fetched, in Unix seconds.",
        )
        errors = CounterMetricFamily(
            "runlane_visibility_errors", "How often the figures on runs could not be fetched."
        )
        errors.add_metric([], self._errors)
        if figures is not None:
            for status, count in figures.runs.items():
                runs.add_metric([status], count)
            for kind, count in figures.blocked.items():
                blocked.add_metric([kind], count)
            since = figures.waiting_since
            age.add_metric([], 0.0 if since is None else max(time.time() - since, 0.0))
            at.add_metric([], figures.at)
        yield from (runs, blocked, age, at, errors)

    async def _fetch(self, client: Client) -> None:
        try:
            async with asyncio.timeout(_REFRESH_TIMEOUT):
                self._figures = await _figures(client)
        except Exception as error:
            # Whatever it is, a scrape goes on to show what is known, and how old that is.
            self._errors += 1
            reason = str(error) or type(error).__name__
            _logger.warning("Can't fetch the figures on runs: %s", " ".join(reason.split()))


async def _figures(client: Client) -> _Figures:
    at = time.time()
    # One after another: a namespace's limit on such queries is low, and its commands come first.
    runs = {
        str(status): await count_runs(client, ListQuery(status=status), timeout=_RPC_TIMEOUT)
        for status in RunStatus
    }
    blocked = {
        str(kind): await count_runs(client, ListQuery(blocked=kind), timeout=_RPC_TIMEOUT)
        for kind in BlockedKind
    }
    since = await _waiting_since(client) if runs[RunStatus.REQUIRES_ACTION] else None
    return _Figures(runs=runs, blocked=blocked, waiting_since=since, at=at)


async def _waiting_since(client: Client) -> float | None:
    """Find the call that has waited longest: none is older than its run, so old runs are read."""
    since: float | None = None
    after: str | None = None
    for _ in range(_MOST_PAGES):
        status = str(RunStatus.REQUIRES_ACTION)
        page = await fetch_page(
            client, ListQuery(status=status, limit=100, order="asc", after=after)
        )
        for view in page.views:
            calls = [call.since_at for call in view.runlane.pending if call.since_at is not None]
            since = min([*calls, *([] if since is None else [since])], default=None)
        newest = page.data[-1].created_at if page.data else None
        if not page.has_more or newest is None or (since is not None and newest >= since):
            break
        after = page.last_id
    return since
