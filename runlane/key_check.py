"""Whether this process can read the runs there are: asked of their memos, which Temporal lists.

Nothing is written, so it works where nobody may change the namespace. A payload names its key in
the clear; one payload of each key is opened, for the bytes behind a name may be wrong.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError, RPCStatusCode

from runlane.encryption import EncryptionCodec, is_sealed, sealed_by
from runlane.errors import CannotDecrypt
from runlane.listing import quoted
from runlane.rpc import explained
from workflows.contract import WORKFLOW

LOOKED_AT = 2_000
"""Runs whose memos are looked at, the open ones and the newest first."""

_PAGE_SIZE = 1_000

_logger = logging.getLogger("runlane.keys")


class Unreadable(NamedTuple):
    """A run that this process can't read, and why."""

    run_id: str
    error: CannotDecrypt


async def check(client: Client, task_queue: str) -> None:
    """Refuse to serve a queue on which runs wait that this process can't read.

    Such a worker would fail their workflow tasks again and again, and take them from those that
    can. Where runs may not be listed, nothing is checked.

    Raises:
        CannotDecrypt: there is such a run; the message names it.
        RunlaneError: Temporal can't be asked.
    """
    query = f"ExecutionStatus='Running' AND TaskQueue={quoted(task_queue)}"
    found = await unreadable(client, query)
    if found is not None:
        error = found.error
        raise CannotDecrypt(error.key_id, f"can't read {found.run_id}: {error.problem}")


async def check_client(client: Client, task_queue: str) -> None:
    """Refuse to start a run in the clear where the latest of the queue's runs is encrypted.

    A client that has lost its key would put what it is told to send beside runs that nobody can
    read, and the workers would drive it all the same.

    Raises:
        CannotDecrypt: this client has no key, and others have.
        RunlaneError: Temporal can't be asked.
    """
    if isinstance(client.data_converter.payload_codec, EncryptionCodec):
        return
    found = await unreadable(client, f"TaskQueue={quoted(task_queue)}", limit=1)
    if found is not None:
        problem = (
            f"the runs of queue {task_queue} are encrypted, and there is no key here; a run "
            "started from here would lie in the clear. Set it as for the workers."
        )
        raise CannotDecrypt(found.error.key_id, problem)


async def unreadable(
    client: Client, query: str = "", limit: int | None = LOOKED_AT
) -> Unreadable | None:
    """Return a run that this process can't read, if there is one among the newest.

    Args:
        client: connected as the process connects.
        query: of Temporal's Visibility; all runs, if empty.
        limit: how many runs are looked at; None: all.

    Raises:
        RunlaneError: Temporal can't be asked.
    """
    opened: set[str] = set()
    where = f"WorkflowType='{WORKFLOW}'" + (f" AND {query}" if query else "")
    with explained(client):
        async for run in _listed(client, where, limit):
            for payload in _memo(run).values():
                key_id = sealed_by(payload)
                if not is_sealed(payload) or key_id in opened:
                    continue
                try:
                    await _open(run, payload)
                except CannotDecrypt as error:
                    return Unreadable(run.id, error)
                opened.add(key_id)
    return None


async def _listed(
    client: Client, where: str, limit: int | None
) -> AsyncIterator[WorkflowExecution]:
    try:
        async for run in client.list_workflows(where, limit=limit, page_size=_PAGE_SIZE):
            yield run
    except RPCError as error:
        if error.status is not RPCStatusCode.PERMISSION_DENIED:
            raise
        _logger.warning(
            "Runs may not be listed here, so nobody knows yet whether the keys fit them",
            extra={"action": "keys_unchecked"},
        )


def _memo(run: WorkflowExecution) -> Mapping[str, Payload]:
    return run.raw_info.memo.fields


async def _open(run: WorkflowExecution, payload: Payload) -> None:
    codec = run.data_converter.payload_codec
    if codec is not None:
        await codec.decode([payload])
