"""Runs that no workflow holds: items of a batch that needed nobody, from the ledger's journal."""

import json

from ledger import Ledger
from ledger.batch_item import Item, ItemState
from runlane.api.access import Principal
from runlane.api.refusals import Refusal
from runsapi import Run
from workflows.contract import RunlaneView, RunView


async def find(
    ledger: Ledger, asking: Principal, thread_id: str | None, run_id: str
) -> RunView | None:
    """Return the run of an item as it ended; None: there is none, or it is another owner's.

    Args:
        ledger: the batches'.
        asking: who.
        thread_id: where the run must be; None: anywhere.
        run_id: ours.

    Raises:
        Refusal: the item has no run to show, now or for good.
        LedgerError: the ledger doesn't answer, or can't be used.
    """
    item = await ledger.batch_items.result_of_run(run_id)
    if item is None:
        return None
    batch = await ledger.batches.find(item.batch_id, owner=asking.scope)
    if batch is None:
        return None
    if thread_id is not None and thread_id not in (item.thread_id, item.made_thread):
        return None
    if item.response is None:
        raise _no_run(item)
    return RunView(
        run=Run.model_validate(json.loads(item.response)),
        runlane=RunlaneView(
            owner=batch.owner,
            upstream_run_id=item.upstream_run_id,
            attempt=item.attempt,
            uncertain=item.error_kind if item.state is ItemState.UNCERTAIN else None,
        ),
    )


def _no_run(item: Item) -> Refusal:
    line = f"line {item.index + 1:,} of {item.batch_id}"
    if not item.state.is_end:
        text = f"Run '{item.run_id}' is {line}, and can be retrieved once that has ended."
        return Refusal(text, status=404, code="item_not_ended")
    text = f"{line[0].upper()}{line[1:]} ended {item.state} without a run that can be shown"
    text += f": {item.error_kind}." if item.error_kind else ": what it answered is gone."
    return Refusal(text, status=404, code="item_without_run")
