"""Outputs as the protocol takes them: all that are asked for, in one request, or none."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from runlane.api import presenting, refusals
from runlane.api.access import Principal
from runlane.api.services import Services
from runsapi import RunStatus
from runsapi.limits import MAX_TOOL_OUTPUTS_BYTES
from workflows.contract import (
    AnswerOutcome,
    AnswerView,
    Receipt,
    ReceiptStatus,
    RunView,
    content_digest,
)

_TAKEN = (ReceiptStatus.ACCEPTED, ReceiptStatus.DUPLICATE)


async def submit(
    services: Services, asking: Principal, view: RunView, outputs: Sequence[Mapping[str, Any]]
) -> RunView | None:
    """Deliver outputs to a run. What it has taken already, with the same content, is taken again.

    An SDK sends a request again whose answer it missed, so that is no mistake.

    Returns:
        The run as it is with these outputs; None where it took some of them earlier, so that one
        must look.

    Raises:
        Refusal: the run takes none now, or not just these; nothing was delivered, unless another
            caller answered in the same moment.
        RunlaneError: they can't be delivered.
    """
    if _was_taken(view, outputs):
        return None
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
    if any(receipt.status is not ReceiptStatus.ACCEPTED for receipt in given.receipts):
        return None
    return _answered(view, outputs, by=asking.person)


def _answered(view: RunView, outputs: Sequence[Mapping[str, Any]], *, by: str) -> RunView:
    """Return the run as its workflow shows it once it has taken all that its caller was asked for.

    To ask the workflow would take as long as all the rest: it is submitting just then.
    """
    given = {each["tool_call_id"]: content_digest(each["output"]) for each in outputs}
    now = time.time()
    answers = [
        AnswerView(
            tool_call_id=call.tool_call_id,
            name=call.name,
            attempt=call.attempt,
            round=call.round,
            outcome=AnswerOutcome.WAITING,
            output_digest=given[call.tool_call_id],
            by=by,
            answered_at=now,
        )
        for call in view.runlane.pending
        if call.tool_call_id in given
    ]
    left = [call for call in view.runlane.pending if call.tool_call_id not in given]
    # What is left waits for people or for a worker.
    status = RunStatus.IN_PROGRESS if left else RunStatus.QUEUED
    known = {"pending": left, "answers": [*view.runlane.answers, *answers]}
    return RunView(
        run=view.run.model_copy(update={"status": status, "required_action": None}),
        runlane=view.runlane.model_copy(update=known),
    )


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
