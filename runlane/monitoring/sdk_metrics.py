"""Temporal's SDK's own metrics, beside ours.

The SDK could serve them itself, at an address of its own that Prometheus would have to be told of
as well, and whose port can't be chosen by the system. So they are buffered by the SDK and taken
over here, under the names that its own exporter gives them.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client import Metric
from prometheus_client.registry import Collector
from temporalio.runtime import (
    BUFFERED_METRIC_KIND_COUNTER,
    BUFFERED_METRIC_KIND_GAUGE,
    BUFFERED_METRIC_KIND_HISTOGRAM,
    BufferedMetric,
    BufferedMetricUpdate,
    MetricBuffer,
    MetricBufferDurationFormat,
)

BUFFERED = 100_000
"""Updates that the SDK keeps until they are taken over; it drops what comes beyond."""
DRAIN_SECONDS = 1.0
"""How often they are to be taken over: a busy worker makes a few thousand in a second."""

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_BOUNDS_END = float("inf")
_TYPES = {
    BUFFERED_METRIC_KIND_COUNTER: "counter",
    BUFFERED_METRIC_KIND_GAUGE: "gauge",
    BUFFERED_METRIC_KIND_HISTOGRAM: "histogram",
}

_Labels = tuple[tuple[str, str], ...]


@dataclass
class _Observations:
    sum: float = 0.0
    counts: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS) + 1))


class _Family:
    """One metric with all its label sets."""

    def __init__(self, metric: BufferedMetric) -> None:
        seconds = "_seconds" if metric.unit == "s" else ""
        self.name = metric.name + seconds
        self.description = metric.description or metric.name
        self.kind = metric.kind
        self.values: dict[_Labels, float] = {}
        self.observed: dict[_Labels, _Observations] = {}

    def update(self, labels: _Labels, value: float) -> None:
        if self.kind == BUFFERED_METRIC_KIND_COUNTER:
            self.values[labels] = self.values.get(labels, 0) + value
        elif self.kind == BUFFERED_METRIC_KIND_GAUGE:
            self.values[labels] = value
        else:
            seen = self.observed.setdefault(labels, _Observations())
            seen.sum += value
            seen.counts[bisect_left(_BOUNDS, value)] += 1

    def shown(self) -> Metric:
        metric = Metric(self.name, self.description, _TYPES[self.kind])
        suffix = "_total" if self.kind == BUFFERED_METRIC_KIND_COUNTER else ""
        for labels, value in self.values.items():
            metric.add_sample(self.name + suffix, dict(labels), value)
        for labels, seen in self.observed.items():
            total = 0
            for bound, count in zip((*_BOUNDS, _BOUNDS_END), seen.counts, strict=True):
                total += count
                le = "+Inf" if bound == _BOUNDS_END else f"{bound:g}"
                metric.add_sample(f"{self.name}_bucket", {**dict(labels), "le": le}, total)
            metric.add_sample(f"{self.name}_count", dict(labels), total)
            metric.add_sample(f"{self.name}_sum", dict(labels), seen.sum)
        return metric


class SdkMetrics(Collector):
    """What Temporal's SDK counts in this process, for a registry."""

    def __init__(self) -> None:
        """Make the buffer; a runtime must be started with it."""
        self.buffer = MetricBuffer(BUFFERED, MetricBufferDurationFormat.SECONDS)
        self._families: dict[str, _Family] = {}
        self._lock = threading.Lock()

    def drain(self) -> None:
        """Take over what the SDK has buffered."""
        with self._lock:
            for update in self.buffer.retrieve_updates():
                self._take(update)

    def describe(self) -> list[Metric]:
        """Return nothing: the names are known only once the SDK has used them."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return all metrics as they are now."""
        self.drain()
        with self._lock:
            yield from [family.shown() for family in self._families.values()]

    def _take(self, update: BufferedMetricUpdate) -> None:
        family = self._families.get(update.metric.name)
        if family is None:
            family = self._families[update.metric.name] = _Family(update.metric)
        labels = sorted((name, _word(value)) for name, value in update.attributes.items())
        family.update(tuple(labels), update.value)


def _word(value: str | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
