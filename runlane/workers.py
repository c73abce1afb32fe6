"""Who is there: the workers on a queue, and what the namespace says of itself."""

import time
from collections.abc import Mapping
from datetime import UTC, timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

FRESH = timedelta(seconds=75)
"""A worker asks for work at least once a minute; one that hasn't for longer is gone."""

_RPC_TIMEOUT = timedelta(seconds=3)


async def last_seen(client: Client, task_queue: str, *, activities: bool = False) -> float | None:
    """Return when a worker last asked the queue for work, in Unix seconds.

    None: not within the five minutes that Temporal remembers, or it won't say.

    Args:
        client: connected to the queue's namespace.
        task_queue: whose workers.
        activities: of its activities rather than its workflows.
    """
    kind = (
        TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
        if activities
        else TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
    )
    request = DescribeTaskQueueRequest(
        namespace=client.namespace, task_queue=TaskQueue(name=task_queue), task_queue_type=kind
    )
    try:
        answer = await client.workflow_service.describe_task_queue(request, timeout=_RPC_TIMEOUT)
    except RPCError:
        return None
    times = [poller.last_access_time.ToDatetime(UTC).timestamp() for poller in answer.pollers]
    return max(times, default=None)


def is_fresh(seen: float | None) -> bool:
    """Tell whether a worker that was last seen then can be counted on."""
    return seen is not None and time.time() - seen < FRESH.total_seconds()


async def namespace_data(client: Client) -> Mapping[str, str]:
    """Return what an embedded server's namespace says of itself; nothing for any other."""
    request = DescribeNamespaceRequest(namespace=client.namespace)
    try:
        answer = await client.workflow_service.describe_namespace(request, timeout=_RPC_TIMEOUT)
    except RPCError:
        return {}
    return dict(answer.namespace_info.data)
