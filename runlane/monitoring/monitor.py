"""Everything by which a worker can be watched, put together."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry
from temporalio.client import Client
from temporalio.worker import Worker

from ledger import Ledger
from runlane.monitoring import logs, metrics, traces
from runlane.monitoring.endpoint import Endpoint
from runlane.monitoring.figures import RunFigures
from runlane.monitoring.readiness import Readiness
from runlane.monitoring.sdk_metrics import SdkMetrics
from runlane.monitoring.stops import StopFigures
from runlane.settings import Address


class Monitor:
    """Metrics, health and traces of one worker process, inside `async with`.

    Enter it before the worker connects: Temporal's SDK counts and logs by what is set up here.
    """

    def __init__(self, address: Address | None) -> None:
        """Describe it; nothing is served yet.

        Args:
            address: of the endpoint; without one there are no metrics and no health.
        """
        self.url: str | None = None
        """Of the endpoint."""
        self._address = address
        self._figures = RunFigures()
        self._stops = StopFigures()
        self._readiness = Readiness()
        self._ends = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Serve from now on.

        Raises:
            SettingsError: nobody can listen at the address, or traces can't be made.
        """
        traces.trace_upstream()
        if self._address is None:
            logs.start_runtime()
            return self
        sdk = SdkMetrics()
        logs.start_runtime(sdk)
        registry = CollectorRegistry()
        for collector in (metrics.REGISTRY, self._figures, self._stops, sdk):
            registry.register(collector)
        endpoint = Endpoint(
            self._address,
            registry,
            figures=(self._figures, self._stops),
            readiness=self._readiness,
            sdk=sdk,
        )
        self.url = (await self._ends.enter_async_context(endpoint)).url
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop serving, and send the last spans."""
        await self._ends.aclose()
        traces.flush()

    def watch(self, client: Client, ledger: Ledger, workers: Sequence[Worker]) -> None:
        """Show these workers, and the runs of their namespace.

        Args:
            client: that they use.
            ledger: likewise.
            workers: the first one has workflows and activities, the others activities.
        """
        self._figures.use(client)
        self._stops.use(ledger)
        self._readiness.watch(client, workers, [worker.task_queue for worker in workers])

    def end(self) -> None:
        """Be ready no more: the worker shuts down."""
        self._readiness.end()
