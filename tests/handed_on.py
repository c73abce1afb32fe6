"""Runs in the state that a continue-as-new hands on: hundreds begin in seconds, not in minutes.

The upstream run is created here, and the workflow starts where its own create would have left it.
"""

import asyncio
import secrets

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from activities.contract import Created, Upstream
from runlane.promoting import handed_on, start
from runsapi import Assistants, Run, RunCreateParams, RunStatus
from workflows import attempts
from workflows.contract import RunRequest

AT_A_TIME = 20
"""Runs started and not yet taken up by a worker: more would only queue up in the server."""

_LOOK_SECONDS = 0.05


class Starter:
    """Starts runs on a task queue that a worker serves.

    Args:
        client: Of their Temporal.
        upstream: Where they are executed.
        task_queue: The worker's.
    """

    def __init__(self, client: Client, upstream: Assistants, task_queue: str) -> None:
        self.taken_up: list[str] = []
        """The runs that a worker has taken up, in that order."""
        self._client = client
        self._upstream = upstream
        self._task_queue = task_queue
        self._room = asyncio.Semaphore(AT_A_TIME)

    async def in_leg(self, request: RunRequest, *, age: float = 0.0) -> str:
        """Start a run whose leg began `age` seconds ago; return its id once it is taken up."""
        async with self._room:
            run_id = _new_run_id()
            return await self._start(run_id, request, await self._create(run_id, request), age)

    async def waiting(self, request: RunRequest, *, age: float = 0.0) -> str:
        """Start a run that has waited for answers for `age` seconds; return its id likewise.

        Its assistant must be one that asks soon.
        """
        async with self._room:
            run_id = _new_run_id()
            run = await self._create(run_id, request)
            while run.status != RunStatus.REQUIRES_ACTION:
                await asyncio.sleep(_LOOK_SECONDS)
                run = await self._upstream.runs.retrieve(run.id, thread_id=request.thread_id)
            return await self._start(run_id, request, run, age)

    async def _create(self, run_id: str, request: RunRequest) -> Run:
        stamped = {**request.params, "metadata": attempts.stamped(run_id, 1, {})}
        params = RunCreateParams.model_validate(stamped)
        return await self._upstream.runs.create(request.thread_id, params)

    async def _start(self, run_id: str, request: RunRequest, run: Run, age: float) -> str:
        upstream = Upstream(name=self._upstream.name, url=self._upstream.url)
        state = handed_on(request, Created(run=run, upstream=upstream), age=age)
        await start(self._client, self._task_queue, run_id, request, state)
        handle = self._client.get_workflow_handle(run_id)
        async for event in handle.fetch_history_events(wait_new_event=True):
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
                break
        self.taken_up.append(run_id)
        return run_id


def _new_run_id() -> str:
    return f"run_{secrets.token_hex(8)}"
