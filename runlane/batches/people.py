"""Which items of a batch wait for people: those whose runs Temporal's Visibility shows so."""

from datetime import timedelta

from temporalio.client import Client
from temporalio.service import RPCError

from ledger import Ledger
from ledger.batch_record import BatchCounts
from runlane import search_attributes
from runlane.listing import quoted
from runsapi import RunStatus

_PAGE = 100
_TIMEOUT = timedelta(seconds=10)
_ASKS = f"{search_attributes.STATUS.name} = '{RunStatus.REQUIRES_ACTION}'"


async def waiting(client: Client, ledger: Ledger, batch_id: str, counts: BatchCounts) -> int | None:
    """Count the items that wait for a decision, or for their caller's answer.

    An item whose calls a worker answers by itself is a run of its own, too, and waits for nobody.

    Args:
        client: connected to the runs' namespace.
        ledger: the batch's.
        batch_id: which.
        counts: how its items stand; where none is a run of its own, nothing is asked.

    Returns:
        The count; None where Temporal can't be asked now.

    Raises:
        LedgerUnavailable: the ledger doesn't answer; the same call again does no harm.
    """
    found = 0
    after: int | None = None
    while counts.promoted and (
        page := await ledger.batch_items.promoted(batch_id, limit=_PAGE, after=after)
    ):
        after = page[-1].index
        ids = ", ".join(quoted(item.run_id) for item in page if item.run_id is not None)
        query = f"WorkflowId IN ({ids}) AND {_ASKS} AND ExecutionStatus = 'Running'"
        try:
            found += (await client.count_workflows(query, rpc_timeout=_TIMEOUT)).count
        except RPCError:
            return None
    return found
