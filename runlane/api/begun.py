"""Which run keeps a thread from another one, and from messages."""

import asyncio
import time
from weakref import WeakValueDictionary

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from runlane import reading, search_attributes
from runlane.errors import RunNotFound
from runlane.listing import quoted
from runlane.rpc import explained
from runlane.visibility import request_memo
from workflows.contract import WORKFLOW

_REMEMBERED_SECONDS = 30.0
"""Visibility hears of a run within moments; until then this process knows."""


class Begun:
    """The runs that this process has begun a moment ago, which Visibility may not know yet."""

    def __init__(self) -> None:
        """Know of none."""
        self._runs: dict[str, tuple[str, float]] = {}
        self._turns = WeakValueDictionary[str, asyncio.Lock]()

    def turn(self, thread_id: str) -> asyncio.Lock:
        """Return what lets one request after the other begin something on a thread.

        Of two processes each may begin a run in the same moment. The later one then waits,
        `queued`, until the upstream's own lock is free.
        """
        return self._turns.setdefault(thread_id, asyncio.Lock())

    def note(self, thread_id: str, run_id: str) -> None:
        """Remember one."""
        now = time.monotonic()
        fresh = {t: each for t, each in self._runs.items() if now - each[1] < _REMEMBERED_SECONDS}
        self._runs = {**fresh, thread_id: (run_id, now)}

    async def living(self, client: Client, thread_id: str) -> str | None:
        """Return the run of ours that lives on a thread, parked and blocked ones too.

        Raises:
            TemporalUnreachable: Temporal can't be asked.
        """
        if not thread_id.isprintable():
            # No run is on it; Visibility breaks on some of these.
            return None
        known = self._runs.get(thread_id)
        candidates = [] if known is None else [known[0]]
        where = (
            f"WorkflowType = '{WORKFLOW}' AND ExecutionStatus = 'Running' "
            f"AND {search_attributes.THREAD.name} = {quoted(thread_id)}"
        )
        with explained(client):
            candidates += [row.id async for row in client.list_workflows(where, limit=5)]
            for run_id in dict.fromkeys(candidates):
                # Visibility hears of an end as late as of a beginning.
                if await _lives(client, run_id):
                    return run_id
        return None


async def digest(client: Client, run_id: str, owner: str) -> str | None:
    """Return the digest of the request that began a run of this owner's; None: another's."""
    with explained(client):
        description = await reading.describe(client, run_id)
        memo = await request_memo(description)
    theirs = description.typed_search_attributes.get(search_attributes.OWNER) or ""
    return memo.digest if memo is not None and theirs == owner else None


async def _lives(client: Client, run_id: str) -> bool:
    try:
        return not reading.is_closed(await reading.describe(client, run_id))
    except RunNotFound:
        return False
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
