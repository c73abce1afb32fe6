"""The stops that stand, as a metric: asked of the ledger when somebody scrapes."""

import asyncio
import logging
from collections.abc import Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ledger import Ledger, LedgerError
from ledger.stops import Stop

PATIENCE = 2.0
"""Seconds that a scrape waits for the ledger."""

_logger = logging.getLogger("runlane.monitoring")


class StopFigures(Collector):
    """Who stopped what, and why. While the ledger doesn't answer, what it said last."""

    def __init__(self) -> None:
        """Without a ledger nothing is known."""
        self._ledger: Ledger | None = None
        self._stops: Sequence[Stop] = ()

    def use(self, ledger: Ledger) -> None:
        """Ask this one from now on."""
        self._ledger = ledger

    async def refresh(self) -> None:
        """Ask the ledger; come back without an answer where that takes long."""
        if self._ledger is None:
            return
        try:
            async with asyncio.timeout(PATIENCE):
                self._stops = await self._ledger.stops.standing()
        except (LedgerError, TimeoutError) as error:
            reason = str(error) or "no answer in time"
            _logger.warning("Can't ask the ledger for stops: %s", " ".join(reason.split()))

    def describe(self) -> list[Metric]:
        """Return the metric without values."""
        return list(self._shown(()))

    def collect(self) -> Iterator[Metric]:
        """Return the metric as it was when last fetched."""
        return self._shown(self._stops)

    def _shown(self, stops: Sequence[Stop]) -> Iterator[Metric]:
        stopped = GaugeMetricFamily(
            "runlane_stopped",
            "1 for each stop that stands: nothing new is begun there until it is resumed.",
            labels=["scope", "target", "by", "reason"],
        )
        for stop in stops:
            stopped.add_metric([str(stop.scope), stop.target, stop.by, stop.reason], 1)
        yield stopped
