"""Blocked runs: how many there are, what is to be mended, and how they are woken."""

import asyncio
import time
from collections.abc import Iterable, Mapping

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities import failures
from runlane.listing import blocked_condition, quoted
from runlane.rpc import is_namespace_missing
from workflows.contract import NUDGE_SIGNAL, WORKFLOW, BlockedKind, BlockedView, RunView

REMEDIES: Mapping[BlockedKind, str] = {
    BlockedKind.CREDENTIALS: (
        "Mend RUNLANE_UPSTREAM_API_KEY and RUNLANE_UPSTREAM_AUTH of the workers, and start them "
        "anew. A key mended in its file needs no restart: the runs go on within seconds."
    ),
    BlockedKind.QUOTA: (
        "Raise the upstream account's quota or mend its billing, then: runlane nudge --blocked "
        "--kind quota"
    ),
    BlockedKind.NOT_FOUND: (
        "Check RUNLANE_UPSTREAM_URL of the workers: they are answered 404 for runs that were "
        "created there. After ten minutes of it a run ends failed."
    ),
    BlockedKind.OTHER_UPSTREAM: (
        "Start a worker with the RUNLANE_UPSTREAM_URL that runlane view names; for simulated runs: "
        "runlane up --simulate"
    ),
}
"""What lets the runs of a kind go on. Each is tried again by itself, every 15 minutes at least."""

_START_THE_SIMULATOR = "Start that one again: runlane up --simulate"

NUDGES_PER_SECOND = 50.0
"""Each makes a run ask the upstream: hundreds at once would be answered by 429."""


def with_remedy(view: RunView) -> RunView:
    """Return the view of a simulated run with the command that brings its upstream back.

    A worker knows the upstream by its URL alone, and would name a variable to set.
    """
    blocked, upstream = view.runlane.blocked, view.runlane.upstream
    if not view.runlane.simulated or blocked is None or upstream is None:
        return view
    if blocked.kind is not BlockedKind.OTHER_UPSTREAM:
        return view
    message = (
        f"The run lives on the simulated upstream {upstream.url}, and its workers are set up for "
        f"another one. {_START_THE_SIMULATOR}"
    )
    told = view.runlane.model_copy(
        update={"blocked": blocked.model_copy(update={"message": message})}
    )
    return view.model_copy(update={"runlane": told})


def cause(blocked: BlockedView) -> str:
    """Return what happened, without what to do: for whoever says that once for many runs."""
    message = blocked.message
    for remedy in _SAID_BY_THE_RUN:
        message = message.removesuffix(remedy).rstrip()
    return message


_SAID_BY_THE_RUN = (
    failures.RAISE_QUOTA,
    failures.CHECK_CREDENTIALS,
    failures.CHECK_URL,
    failures.START_ITS_WORKER,
    _START_THE_SIMULATOR,
)


async def count(
    client: Client, kind: BlockedKind | None = None, *, task_queue: str | None = None
) -> int:
    """Return how many runs are blocked.

    Args:
        client: connected to their namespace.
        kind: only those of this kind.
        task_queue: only those of this queue.

    Raises:
        RPCError: Temporal can't be asked.
    """
    return (await client.count_workflows(_query(kind, task_queue))).count


async def nudge_all(
    client: Client, kind: BlockedKind | None = None, *, task_queue: str | None = None
) -> int:
    """Have every blocked run try again now, and return how many were told.

    Whoever calls it twice has runs tried twice, which harms nothing. They are told no faster than
    `NUDGES_PER_SECOND`.

    Args:
        client: connected to their namespace.
        kind: only those of this kind.
        task_queue: only those of this queue.

    Raises:
        RPCError: Temporal can't be asked; some may have been told.
    """
    # All pages first: runs that go on leave the list, and would move the pages while it is read.
    ids = [row.id async for row in client.list_workflows(_query(kind, task_queue))]
    return await _nudge(client, ids)


async def nudge(client: Client, run_id: str) -> bool:
    """Have a run look at its upstream now; return false where it has ended, or never was.

    Raises:
        RPCError: Temporal can't be asked.
    """
    try:
        await client.get_workflow_handle(run_id).signal(NUDGE_SIGNAL)
    except RPCError as error:
        # An id that no workflow can have is answered by INVALID_ARGUMENT.
        gone = error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT)
        if not gone or is_namespace_missing(error):
            raise
        return False
    return True


async def _nudge(client: Client, run_ids: Iterable[str]) -> int:
    told, began = 0, time.monotonic()
    for number, run_id in enumerate(run_ids):
        ahead = began + number / NUDGES_PER_SECOND - time.monotonic()
        if ahead > 0:
            await asyncio.sleep(ahead)
        told += await nudge(client, run_id)
    return told


def _query(kind: BlockedKind | None, task_queue: str | None) -> str:
    parts = [f"WorkflowType = '{WORKFLOW}'", blocked_condition(kind)]
    if task_queue is not None:
        parts.append(f"TaskQueue = {quoted(task_queue)}")
    return " AND ".join(parts)
