"""A Temporal server that skips time, and what a test on it needs beside the laboratory.

Its clock stands still for nobody: it runs with ours, and jumps only where a test sleeps on it and
no workflow or activity task is under way. So weeks of timers pass in seconds, over real HTTP.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from temporalio.api.enums.v1 import EventType, IndexedValueType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.api.testservice.v1 import SleepRequest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from runlane import search_attributes
from runlane.temporal import connect
from tests.temporal_server import encrypting

_SERVER = Path(sys.executable).parent / "temporal-test-server"
_STOPPED_AFTER = 3.0
"""Real seconds after which a sleep is not waited for: activities are over long before."""
_LONGEST_SLEEP = timedelta(minutes=5)
_INDEXED_TYPES = {
    "Keyword": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "Datetime": IndexedValueType.INDEXED_VALUE_TYPE_DATETIME,
}


class SkippingServer:
    """A running time-skipping server; `client` is connected as the product connects."""

    def __init__(self, environment: WorkflowEnvironment, client: Client) -> None:
        self._environment = environment
        self.client = client
        self._one_at_a_time = asyncio.Lock()
        self._asleep: asyncio.Future[None] | None = None

    async def sleep(self, seconds: float, *, patience: float = _STOPPED_AFTER) -> None:
        """Let that much time pass on the server, skipping what nobody works in.

        Returns early after `patience` real seconds, and does nothing from then on: the server
        stops skipping for good when a workflow closes while an activity is running.
        """
        # Two sleeps at once, or one that is given up, leave its count of locks wrong.
        async with self._one_at_a_time:
            if self._asleep is not None and not self._asleep.done():
                return
            self._asleep = asyncio.ensure_future(self._pass(seconds))
            await asyncio.wait([self._asleep], timeout=patience)

    async def _pass(self, seconds: float) -> None:
        # The environment's own sleep is given up after half a minute, which is short where much
        # has to be done meanwhile.
        request = SleepRequest()
        request.duration.FromTimedelta(timedelta(seconds=seconds))
        service = self._environment.client.test_service
        await service.unlock_time_skipping_with_sleep(request, timeout=_LONGEST_SLEEP)

    async def now(self) -> float:
        """Return the server's clock, in unix seconds."""
        return (await self._environment.get_current_time()).timestamp()

    async def close(self) -> None:
        """Give up the sleep that will not end."""
        if self._asleep is not None:
            self._asleep.cancel()
            await asyncio.gather(self._asleep, return_exceptions=True)


@asynccontextmanager
async def skipping_server(data_dir: Path) -> AsyncIterator[SkippingServer]:
    """Start a server of the test's own; big payloads lie in `data_dir`."""
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(_SERVER)
    ) as environment:
        # This server can neither list nor count by search attributes, which the product's own
        # registration does first.
        await environment.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(
                namespace="default",
                search_attributes={
                    name: _INDEXED_TYPES[kind] for name, kind in search_attributes.TYPES.items()
                },
            )
        )
        address = environment.client.service_client.config.target_host
        # Not the environment's own client: that one skips without end while it awaits a result.
        client = await connect(encrypting(data_dir), environ={"TEMPORAL_ADDRESS": address})
        server = SkippingServer(environment, client)
        try:
            yield server
        finally:
            await server.close()


async def chain(client: Client, workflow_id: str, first_run_id: str) -> list[list[HistoryEvent]]:
    """Return the histories of a run's executions, from the first over each continue-as-new."""
    histories: list[list[HistoryEvent]] = []
    run_id = first_run_id
    while run_id:
        handle = client.get_workflow_handle(workflow_id, run_id=run_id)
        events = list((await handle.fetch_history()).events)
        histories.append(events)
        run_id = events[
            -1
        ].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return histories


def event_names(events: list[HistoryEvent]) -> list[str]:
    """Return the events' types as words."""
    return [EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in events]
