"""Erasing what people and models wrote in a run, wherever Runlane keeps it; the proof stays.

Digests stay in the ledger, and with them the audit trail. The upstream's own thread and runs stand
outside Runlane, and are only named.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from temporalio.api.common.v1 import WorkflowExecution as ExecutionRef
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionDescription
from temporalio.service import RPCError, RPCStatusCode

from activities import trail
from ledger import Ledger
from runlane import pruning, reading
from runlane.client_ledger import ClientLedger
from runlane.errors import InvalidRequest, Refused, RunlaneError, RunNotFound
from runlane.listing import quoted
from runlane.person import person
from runlane.recording import Recorder
from runlane.rpc import explained
from runlane.search_attributes import THREAD
from runlane.settings import Settings
from workflows.contract import WORKFLOW, notices_workflow_id

GONE_WITHIN = 120.0
"""Seconds that Temporal may take to delete; it works through what it was told in its own time."""
_LOOK_SECONDS = 0.5
_RPC_TIMEOUT = timedelta(seconds=10)


class RunsAlive(Refused):
    """A run that is to be erased hasn't ended."""

    code = "run_alive"


@dataclass(frozen=True, kw_only=True)
class Erased:
    """What was removed of a run, and what is left of it elsewhere."""

    run_id: str
    contents: int
    """Removed from the ledger."""
    executions: int
    """Deleted from Temporal, with their histories."""
    still_there: bool
    """Temporal was told to delete, and hasn't yet."""
    files: int
    """Payload files deleted."""
    payloads_left: str | None
    """Where payloads lie that can't be deleted from here."""
    thread_id: str | None
    """The upstream's."""
    upstream: str | None
    """Its URL."""
    upstream_runs: tuple[str, ...]
    """That still stand there."""


class Erasing:
    """Erases runs."""

    def __init__(self, client: Client, settings: Settings) -> None:
        """Use this connection, and the ledger that the settings name."""
        self._client = client
        self._settings = settings

    async def find(self, *, run_id: str | None = None, thread_id: str | None = None) -> list[str]:
        """Return the runs that would be erased: those that Temporal or the ledger knows.

        Args:
            run_id: this one.
            thread_id: all of this thread.

        Raises:
            RunNotFound: there is none.
            RunsAlive: one of them hasn't ended; the message says what to do.
            LedgerUnreachable: the ledger doesn't answer.
        """
        async with self._opened() as ledger:
            with explained(self._client):
                found = await self._named(ledger, run_id, thread_id)
                alive = [each for each in found if await self._is_alive(ledger, each)]
        if not found:
            what = f"run {run_id}" if run_id is not None else f"run of thread {thread_id}"
            raise RunNotFound(f"Neither Temporal nor the ledger knows a {what}.", param="run_id")
        if alive:
            text = (
                f"{', '.join(alive)} hasn't ended, and nothing was erased. Cancel it with "
                f"runlane cancel {alive[0]}, an item of a batch by runlane batch cancel; or wait "
                "for its end."
            )
            raise RunsAlive(text, param="run_id")
        return found

    async def erase(self, run_id: str, *, by: str | None = None) -> Erased:
        """Remove a run's contents from ledger, Temporal and payload files; again does no harm.

        Raises:
            RunsAlive: it hasn't ended.
            LedgerUnreachable: the ledger doesn't answer.
            TemporalUnreachable: Temporal doesn't; call again, and the rest is removed.
        """
        await self.find(run_id=run_id)
        by = by or person(self._settings)
        async with self._opened() as ledger:
            with explained(self._client):
                description = await self._describe(run_id)
                if description is not None:
                    # Its status and end, which nobody could find out afterwards.
                    await self._recorder(ledger).record(description)
                thread_id, upstream, upstream_runs = await _left(ledger, run_id)
                at = datetime.now(UTC)
                event = trail.erasure(by=by, at=at, facts={"upstream_runs": list(upstream_runs)})
                contents = await ledger.erase_run(run_id, [event])
                executions = await self._delete(run_id)
                gone = await self._gone(run_id) if executions else True
        files, left = await self._files(run_id, gone=gone)
        return Erased(
            run_id=run_id,
            contents=contents,
            executions=executions,
            still_there=not gone,
            files=files,
            payloads_left=left,
            thread_id=thread_id,
            upstream=upstream,
            upstream_runs=upstream_runs,
        )

    def _opened(self) -> AbstractAsyncContextManager[Ledger]:
        return ClientLedger(self._settings, self._client).opened()

    def _recorder(self, ledger: Ledger) -> Recorder:
        return Recorder(self._client, ledger, task_queue=self._settings.task_queue)

    async def _named(self, ledger: Ledger, run_id: str | None, thread_id: str | None) -> list[str]:
        if run_id is not None:
            known = await ledger.runs.find(run_id) is not None
            known = known or bool(await ledger.audit.read(run_id))
            known = known or await ledger.batch_items.of_run(run_id) is not None
            return [run_id] if known or await self._describe(run_id) is not None else []
        assert thread_id is not None
        found = dict.fromkeys(await ledger.runs.of_thread(thread_id))
        found.update(dict.fromkeys(await ledger.batch_items.runs_of_thread(thread_id)))
        query = f"WorkflowType = '{WORKFLOW}' AND {THREAD.name} = {quoted(thread_id)}"
        async for row in self._client.list_workflows(query):
            found[row.id] = None
        return list(found)

    async def _is_alive(self, ledger: Ledger, run_id: str) -> bool:
        item = await ledger.batch_items.of_run(run_id)
        if item is not None and not item.state.is_end:
            return True
        description = await self._describe(run_id)
        return description is not None and not reading.is_closed(description)

    async def _describe(self, run_id: str) -> WorkflowExecutionDescription | None:
        try:
            return await reading.describe(self._client, run_id)
        except RunNotFound:
            return None

    async def _delete(self, run_id: str) -> int:
        """Have Temporal delete every execution of a run's chain; return how many there were."""
        executions = dict[tuple[str, str], None]()
        # Visibility may be behind, and not know the last one yet.
        description = await self._describe(run_id)
        if description is not None:
            if description.parent_id is not None and description.parent_run_id is not None:
                # A schedule's start, which holds the run's result. It goes first: nobody would
                # find it without the run.
                executions[description.parent_id, description.parent_run_id] = None
            executions[run_id, description.run_id] = None
        for name in (run_id, notices_workflow_id(run_id)):
            async for row in self._client.list_workflows(f"WorkflowId = {quoted(name)}"):
                executions[row.id, row.run_id] = None
        for workflow_id, execution in executions:
            request = DeleteWorkflowExecutionRequest(
                namespace=self._client.namespace,
                workflow_execution=ExecutionRef(workflow_id=workflow_id, run_id=execution),
            )
            try:
                await self._client.workflow_service.delete_workflow_execution(
                    request, timeout=_RPC_TIMEOUT
                )
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
        return len(executions)

    async def _gone(self, run_id: str) -> bool:
        end = time.monotonic() + GONE_WITHIN
        while await self._describe(run_id) is not None:
            if time.monotonic() > end:
                return False
            await asyncio.sleep(_LOOK_SECONDS)
        return True

    async def _files(self, run_id: str, *, gone: bool) -> tuple[int, str | None]:
        """Delete payload files; return how many, and where some are left."""
        if self._settings.payload_store is not None:
            return 0, str(self._settings.payload_store)
        try:
            root = await pruning.payload_directory(self._client, self._settings)
        except InvalidRequest:
            # No directory holds payloads.
            return 0, None
        left = await pruning.of_run(self._client, root, run_id)
        if left is None:
            return 0, None
        if not gone:
            return 0, str(left.directory)
        try:
            files, _ = await pruning.delete(self._client, left, older_than=timedelta(0))
        except OSError as error:
            text = f"{left.directory} can't be deleted: {error.strerror}. The rest is erased."
            raise RunlaneError(text) from None
        return files, None


async def _left(ledger: Ledger, run_id: str) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Return thread, upstream and upstream runs, as the trail and the record tell."""
    record = await ledger.runs.find(run_id)
    thread_id = None if record is None else record.thread_id
    upstream, upstream_runs = None, dict[str, None]()
    item = await ledger.batch_items.of_run(run_id)
    if item is not None:
        thread_id = thread_id or item.made_thread or item.thread_id
        if item.upstream_run_id is not None:
            upstream_runs[item.upstream_run_id] = None
    for row in await ledger.audit.read(run_id):
        facts = json.loads(row.body).get("facts", {})
        if "upstream_run" in facts:
            upstream_runs[facts["upstream_run"]] = None
        upstream = facts.get("upstream", upstream)
        thread_id = facts.get("thread", thread_id)
    return thread_id, upstream, tuple(upstream_runs)


def left_upstream(erased: Sequence[Erased]) -> list[str]:
    """Return, a line each, what stands upstream still."""
    lines = []
    for thread_id, upstream in dict.fromkeys((each.thread_id, each.upstream) for each in erased):
        runs = [
            run
            for each in erased
            if (each.thread_id, each.upstream) == (thread_id, upstream)
            for run in each.upstream_runs
        ]
        where = f" at {upstream}" if upstream else ""
        thread = f"thread {thread_id} with its messages" if thread_id else "the thread"
        lines.append(f"{thread}{where}, and its runs {', '.join(runs) or '(none known)'}")
    return lines
