"""Batches that stand still: paused ones, and those whose workflow was ended in Temporal."""

from datetime import timedelta

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from ledger import Ledger
from ledger.batch_record import BatchRecord, BatchStatus
from runlane.doctor.finding import Finding, problem

_NAME = "batches"
_LOOKED_AT = 100
"""The newest; nobody has more under way."""
_TIMEOUT = timedelta(seconds=10)


async def check_batches(client: Client | None, ledger: Ledger) -> list[Finding]:
    """Look at the batches that have not ended.

    Raises:
        LedgerUnavailable: the ledger doesn't answer.
    """
    newest = await ledger.batches.list(None, limit=_LOOKED_AT)
    # One that is validated hasn't begun: whoever stores its lines starts it afterwards.
    alive = [
        each
        for each in newest
        if not each.status.is_end and each.status is not BatchStatus.VALIDATING
    ]
    findings = [_paused(each) for each in alive if each.paused_at is not None]
    if client is not None:
        findings += [_left(each) for each in alive if not await _is_driven(client, each)]
    if findings:
        return findings
    count = "1 is" if len(alive) == 1 else f"{len(alive)} are"
    return [Finding(_NAME, "ok", f"{count} under way" if alive else "none is under way")]


async def _is_driven(client: Client, batch: BatchRecord) -> bool:
    """Tell whether its workflow runs; where Temporal can't be asked, nothing is said against it."""
    try:
        handle = client.get_workflow_handle(batch.id)
        found = await handle.describe(rpc_timeout=_TIMEOUT)
    except RPCError as error:
        return error.status is not RPCStatusCode.NOT_FOUND
    return found.status is WorkflowExecutionStatus.RUNNING


def _paused(batch: BatchRecord) -> Finding:
    text = f"{_called(batch)} is paused by {batch.paused_by}: {batch.paused_reason}"
    return Finding(_NAME, "note", text, f"To let it go on: {_resume(batch)}")


def _left(batch: BatchRecord) -> Finding:
    text = f"{_called(batch)} is {batch.status.value}, and no workflow drives it"
    return problem(
        _NAME, text, f"Somebody has ended it in Temporal. Start it again: {_resume(batch)}"
    )


def _called(batch: BatchRecord) -> str:
    return batch.id if batch.owner else f"{batch.name} ({batch.id})"


def _resume(batch: BatchRecord) -> str:
    return f"runlane batch resume {batch.id}"
