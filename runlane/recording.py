"""Writes the runs that have ended to the ledger, where they are found after Temporal forgot them.

Each worker looks for itself, and what another one has written is passed over. It costs no event:
Temporal's Visibility is asked, and each run's result is read once.
"""

import asyncio
import logging
import random
from datetime import UTC, datetime, timedelta

from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError

from activities import trail
from ledger import Ledger, LedgerError, LedgerRefused
from ledger.run_record import RunRecord, Usage
from runlane import reading
from runlane.errors import CannotDecrypt, RunNotFound
from runlane.listing import quoted
from runlane.payload_store import PayloadStoreError
from runlane.visibility import created_at, listed_view
from workflows.contract import WORKFLOW, RunView

LOOK_SECONDS = 30.0
"""Between two looks."""
OVERLAP = timedelta(minutes=5)
"""How late a run's end may come into Visibility, and be found all the same."""

_AT_ONCE = 10
_PAGE = 1_000

_logger = logging.getLogger("runlane.recording")


class Recorder:
    """What one worker writes of its queue's runs.

    Args:
        client: connected as the worker is.
        ledger: the worker's.
        task_queue: whose runs.
        look_seconds: between two looks.
    """

    def __init__(
        self,
        client: Client,
        ledger: Ledger,
        *,
        task_queue: str,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._task_queue = task_queue
        self._source = f"{client.namespace}/{task_queue}"[-255:]
        self._look_seconds = look_seconds
        self._recorded = set[str]()

    async def run(self) -> None:
        """Look again and again until cancelled; what fails is tried again at the next look."""
        while True:
            # Apart from the other workers, which were started with this one.
            await asyncio.sleep(self._look_seconds * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
            try:
                await self.look()
            except (RPCError, LedgerError) as error:
                _logger.info("Can't record ended runs: %s", type(error).__name__)
            except Exception:
                # The worker serves runs all the same.
                _logger.exception("Recording ended runs failed")

    async def look(self) -> int:
        """Look once; return how many runs were written.

        Raises:
            RPCError: Temporal can't be asked.
            LedgerUnavailable: the ledger doesn't answer; the next look begins where this one did.
        """
        since = await self._ledger.runs.recorded_until(self._source)
        closed = await self._closed(None if since is None else since - OVERLAP)
        # A run that was begun anew under its id (a Reset) stands here with its former end.
        news = [row for row in closed if row.run_id not in self._recorded]
        ended = await self._ledger.runs.ended([row.id for row in news])
        missing = [row for row in news if row.id not in ended]
        for start in range(0, len(missing), _AT_ONCE):
            some = missing[start : start + _AT_ONCE]
            await asyncio.gather(*(self.record(row) for row in some))
        if closed:
            self._recorded = {row.run_id for row in closed}
            newest = max(row.close_time for row in closed if row.close_time is not None)
            if since is None or newest > since:
                await self._ledger.runs.set_recorded_until(self._source, newest)
        return len(missing)

    async def _closed(self, since: datetime | None) -> list[WorkflowExecution]:
        """Return the runs that have ended since then, the first that ended first."""
        query = (
            f"WorkflowType = '{WORKFLOW}' AND TaskQueue = {quoted(self._task_queue)} "
            "AND ExecutionStatus != 'Running' AND ExecutionStatus != 'ContinuedAsNew'"
        )
        if since is not None:
            query += f" AND CloseTime >= '{since.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}'"
        rows = [row async for row in self._client.list_workflows(query, page_size=_PAGE)]
        return sorted(rows, key=lambda row: row.close_time or datetime.now(UTC))

    async def record(self, row: WorkflowExecution) -> None:
        """Write a run, if it has ended.

        Raises:
            RPCError: Temporal can't be asked.
            LedgerUnavailable: the ledger doesn't answer.
        """
        try:
            description = await reading.describe(self._client, row.id)
            if description.close_time is None:
                return
            view = await reading.read(self._client, row.id)
        except RunNotFound:
            return
        except (CannotDecrypt, PayloadStoreError):
            description, view = None, await listed_view(row)
        closed = row if description is None else description
        try:
            await self._write(closed, view)
        except LedgerRefused as error:
            # Somebody else's workflow of the same name, say: no later look can write it either.
            _logger.warning("%s can't be recorded: %s", row.id, error)

    async def _write(self, closed: WorkflowExecution, view: RunView) -> None:
        run, at = view.run, closed.close_time or datetime.now(UTC)
        usage = run.usage
        record = RunRecord(
            run_id=closed.id,
            owner=view.runlane.owner,
            thread_id=run.thread_id or None,
            assistant_id=run.assistant_id or None,
            status=str(run.status),
            created_at=datetime.fromtimestamp(created_at(closed), UTC),
            updated_at=at,
            ended_at=at,
            usage=None
            if usage is None
            else Usage(
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                total_tokens=usage.total_tokens,
            ),
            contents=run.model_dump_json(),
        )
        event = trail.run_ended(
            status=str(run.status), upstream_run=view.runlane.upstream_run_id, model=run.model
        )
        await self._ledger.runs.record(record, [event])
        if await self._ledger.approvals.waiting_runs([closed.id]):
            await self._ledger.approvals.close(closed.id, outcome="run ended")
