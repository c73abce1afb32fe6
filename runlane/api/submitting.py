"""Outputs as the protocol takes them: all that are asked for, in one request, or none."""

from collections.abc import Mapping, Sequence
from typing import Any

from runlane.api import presenting, refusals
from runlane.api.access import Principal
from runlane.api.services import Services
from runsapi import RunStatus
from runsapi.limits import MAX_TOOL_OUTPUTS_BYTES
from workflows.contract import Receipt, ReceiptStatus, RunView, content_digest

_TAKEN = (ReceiptStatus.ACCEPTED, ReceiptStatus.DUPLICATE)


async def submit(
    services: Services, asking: Principal, view: RunView, outputs: Sequence[Mapping[str, Any]]
) -> None:
    """Deliver outputs to a run. What it has taken already, with the same content, is taken again.

    An SDK sends a request again whose answer it missed, so that is no mistake.

    Raises:
        Refusal: the run takes none now, or not just these; nothing was delivered, unless another
            caller answered in the same moment.
        RunlaneError: they can't be delivered.
    """
    if _was_taken(view, outputs):
        return
    status = presenting.status_of(view)
    if status != RunStatus.REQUIRES_ACTION:
        raise refusals.outputs_not_accepted(status)
    asked = [call.id for call in view.run.tool_calls]
    got = [str(each["tool_call_id"]) for each in outputs]
    if sorted(asked) != sorted(got):
        raise refusals.outputs_mismatch(asked, got)
    size = sum(len(str(each["output"]).encode(errors="surrogatepass")) for each in outputs)
    if size >= MAX_TOOL_OUTPUTS_BYTES:
        raise refusals.outputs_too_large()
    given = await services.runlane.runs.deliver(view.run.id, tool_outputs=outputs, by=asking.person)
    refused = [receipt for receipt in given.receipts if receipt.status not in _TAKEN]
    if refused:
        raise await _refusal(services, view.run.id, asked, got, refused)


def _was_taken(view: RunView, outputs: Sequence[Mapping[str, Any]]) -> bool:
    answers = {
        call_id: answer
        for answer in view.runlane.answers
        for call_id in (answer.tool_call_id, *answer.call_ids)
    }
    return bool(outputs) and all(
        (known := answers.get(each["tool_call_id"])) is not None
        and known.output_digest == content_digest(each["output"])
        for each in outputs
    )


async def _refusal(
    services: Services,
    run_id: str,
    asked: Sequence[str],
    got: Sequence[str],
    refused: Sequence[Receipt],
) -> refusals.Refusal:
    receipts = {"receipts": [receipt.model_dump(mode="json") for receipt in refused]}
    words = {receipt.status for receipt in refused}
    if ReceiptStatus.TOO_LARGE in words:
        return refusals.outputs_too_large()
    if ReceiptStatus.UNKNOWN in words or ReceiptStatus.EARLY in words:
        return refusals.outputs_mismatch(asked, got)
    # Somebody else answered, or the run went on, between our look and the delivery.
    status = presenting.status_of(await services.runlane.runs.view(run_id))
    return refusals.outputs_not_accepted(status, beside=receipts)
