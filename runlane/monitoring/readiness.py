"""Whether a worker can do its work now: Temporal answers, and knows that we ask for tasks."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

PACE = 2.0
"""Seconds for which an answer is given again: whoever asks often costs Temporal no more."""

STARTS_WITHIN = 0.8
"""Seconds for which an answer is held back while the worker is about to be seen: whoever asks every
ten seconds would else hear of it ten seconds late. Probes often give up after one."""

_LOOKS_AGAIN = 0.1
_RPC_TIMEOUT = timedelta(seconds=3)
_WORKFLOWS = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
_ACTIVITIES = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY

_Queue = tuple[str, "TaskQueueType.ValueType"]


class Readiness:
    """Says why this process can't serve runs, or that it can."""

    def __init__(self) -> None:
        """Not ready: nothing is connected yet."""
        self._client: Client | None = None
        self._workers: Sequence[Worker] = ()
        self._unseen: set[_Queue] = set()
        self._queues: list[_Queue] = []
        self._starting = False
        """Whether it is only a matter of moments until there is nothing to say."""
        self._ending = False
        self._asking = asyncio.Lock()
        self._answer: str | None = None
        self._answered_at = float("-inf")

    def watch(self, client: Client, workers: Sequence[Worker], queues: Sequence[str]) -> None:
        """Tell of these workers from now on.

        Args:
            client: that they use.
            workers: that must be running.
            queues: the first one's workflows and activities, and the activities of the others.
        """
        self._client = client
        self._workers = workers
        self._queues = [(queues[0], _WORKFLOWS), *((queue, _ACTIVITIES) for queue in queues)]
        self._unseen = set(self._queues)
        self._starting = True
        self._answered_at = float("-inf")

    def end(self) -> None:
        """Be ready never again: the process shuts down."""
        self._ending = True

    async def problem(self) -> str | None:
        """Return why runs aren't served; None if they are."""
        began = time.monotonic()
        while True:
            problem = await self._problem()
            if problem is None or not self._starting or self._ending:
                return problem
            if time.monotonic() - began + _LOOKS_AGAIN > STARTS_WITHIN:
                return problem
            await asyncio.sleep(_LOOKS_AGAIN)

    async def _problem(self) -> str | None:
        if self._ending:
            return "the worker is shutting down"
        if self._client is None:
            return "not connected to Temporal yet"
        if not all(worker.is_running for worker in self._workers):
            return "not all workers run"
        async with self._asking:
            pace = _LOOKS_AGAIN if self._starting else PACE
            if time.monotonic() - self._answered_at >= pace:
                self._answer = await self._ask(self._client)
                self._answered_at = time.monotonic()
        return self._answer

    async def _ask(self, client: Client) -> str | None:
        # A worker with all slots taken doesn't ask for tasks, and is well: it has to be seen once,
        # and again only after Temporal was away.
        for queue in [queue for queue in self._queues if queue in self._unseen] or self._queues[:1]:
            try:
                is_seen = await _is_seen(client, queue)
            except RPCError as error:
                if error.status is not RPCStatusCode.PERMISSION_DENIED:
                    self._unseen = set(self._queues)
                    self._starting = False
                    address = client.service_client.config.target_host
                    return f"Temporal at {address} doesn't answer: {error.message}"
                is_seen = True
            if is_seen:
                self._unseen.discard(queue)
        self._starting = bool(self._unseen)
        if self._unseen:
            names = ", ".join(sorted({name for name, _ in self._unseen}))
            return f"Temporal hasn't seen this worker ask for tasks yet on {names}"
        return None


async def _is_seen(client: Client, queue: _Queue) -> bool:
    name, kind = queue
    request = DescribeTaskQueueRequest(
        namespace=client.namespace, task_queue=TaskQueue(name=name), task_queue_type=kind
    )
    answer = await client.workflow_service.describe_task_queue(request, timeout=_RPC_TIMEOUT)
    return any(poller.identity == client.identity for poller in answer.pollers)
