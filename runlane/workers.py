"""Who is there: the workers on a queue, and what the namespace says of itself."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, timedelta

from temporalio.api.deployment.v1 import WorkerDeploymentOptions, WorkerDeploymentVersion
from temporalio.api.enums.v1 import TaskQueueType, WorkerVersioningMode
from temporalio.api.taskqueue.v1 import PollerInfo, TaskQueue
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

FRESH = timedelta(seconds=75)
"""A worker asks for work at least once a minute; one that hasn't for longer is gone."""

_RPC_TIMEOUT = timedelta(seconds=3)


@dataclass(frozen=True)
class Presence:
    """Who asks a task queue for work."""

    seen: float | None
    """When one of the workers that get its tasks last did, in Unix seconds. None: not within the
    five minutes that Temporal remembers, or it won't say."""
    version: str | None = None
    """`deployment:build`, the version whose workers get them; None: those that have none."""
    unasked: tuple[str, ...] = ()
    """Versions whose workers are there, and get nothing; an empty string: those that have none."""


async def presence(client: Client, task_queue: str, *, activities: bool = False) -> Presence:
    """Return who asks the queue for work.

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
        return Presence(None)
    routes = answer.versioning_info
    current = _named(routes.current_deployment_version)
    # A version that is ramped up gets its share beside the current one.
    asked = {current, _named(routes.ramping_deployment_version) or current}
    seen: dict[str, float] = {}
    for poller in answer.pollers:
        version = _version(poller)
        at = poller.last_access_time.ToDatetime(UTC).timestamp()
        seen[version] = max(at, seen.get(version, 0.0))
    return Presence(
        max((at for version, at in seen.items() if version in asked), default=None),
        current or None,
        tuple(sorted(v for v, at in seen.items() if v not in asked and is_fresh(at))),
    )


async def last_seen(client: Client, task_queue: str) -> float | None:
    """Return when a worker that gets the queue's workflows last asked for one, in Unix seconds.

    None: not within the five minutes that Temporal remembers, or it won't say.
    """
    return (await presence(client, task_queue)).seen


def _version(poller: PollerInfo) -> str:
    options = poller.deployment_options
    versioned = WorkerVersioningMode.WORKER_VERSIONING_MODE_VERSIONED
    return _named(options) if options.worker_versioning_mode == versioned else ""


def _named(version: WorkerDeploymentVersion | WorkerDeploymentOptions) -> str:
    return f"{version.deployment_name}:{version.build_id}" if version.build_id else ""


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
