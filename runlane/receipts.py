"""Answers on their way to a run: what may be sent, and what a run that has ended says to them."""

import json
from collections.abc import Iterable, Sequence

from runlane.errors import InvalidRequest, Refused
from workflows.contract import (
    MAX_ID_LENGTH,
    MAX_MESSAGE_BYTES,
    Receipt,
    Receipts,
    ReceiptStatus,
    RunView,
    ToolOutputMessage,
    ToolOutputs,
    content_digest,
    receipt_for,
)

TAKEN = frozenset({ReceiptStatus.ACCEPTED, ReceiptStatus.EARLY, ReceiptStatus.DUPLICATE})
"""The answer is with the run; whoever gave it is done."""

_MAX_TOOL_OUTPUTS = 128


def message(outputs: Iterable[object], *, by: str | None = None) -> ToolOutputs:
    """Return the message that delivers `outputs`, each of them `{tool_call_id, output}`.

    Raises:
        InvalidRequest: an output is malformed, or none is given.
        Refused: the message is larger than a workflow may be sent.
    """
    checked = [_output(index, output) for index, output in enumerate(outputs)]
    if not checked:
        raise InvalidRequest("tool_outputs must have at least one entry.", param="tool_outputs")
    if len(checked) > _MAX_TOOL_OUTPUTS:
        raise InvalidRequest(
            f"tool_outputs must have at most {_MAX_TOOL_OUTPUTS} entries, got {len(checked)}.",
            param="tool_outputs",
        )
    twice = _first_repeated([output.tool_call_id for output in checked])
    if twice is not None:
        raise InvalidRequest(
            f"tool_outputs has two entries for {twice}.",
            param=f"tool_outputs[{twice}].tool_call_id",
        )
    delivery = ToolOutputs(tool_outputs=checked, by=by)
    size = json_bytes(delivery.model_dump(mode="json"))
    if size > MAX_MESSAGE_BYTES:
        largest = max(range(len(checked)), key=lambda index: len(checked[index].output))
        raise Refused(
            f"tool_outputs has {size:,} bytes as JSON, and one message may have "
            f"{MAX_MESSAGE_BYTES:,}; the largest is tool_outputs[{largest}].output. Nothing was "
            "sent. Shorten it, or store it elsewhere and answer with where it is.",
            param=f"tool_outputs[{largest}].output",
            code="too_large",
        )
    return delivery


def json_bytes(value: object) -> int:
    """Return how many bytes `value` has as JSON in UTF-8, as Temporal will carry it."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def from_ended(view: RunView, delivery: ToolOutputs) -> Receipts:
    """Return what a run that takes no more messages says to answers: its result knows each call."""
    receipts = []
    for output in delivery.tool_outputs:
        status = ReceiptStatus.LATE
        for answer in view.runlane.answers:
            if output.tool_call_id in (answer.tool_call_id, *answer.call_ids):
                digest = content_digest(output.output)
                status = receipt_for(answer.outcome, answer.output_digest, digest)
                break
        receipts.append(Receipt(tool_call_id=output.tool_call_id, status=status))
    return Receipts(receipts=receipts)


def refused(receipts: Sequence[Receipt]) -> list[Receipt]:
    """Return the receipts of the answers that were not taken."""
    return [receipt for receipt in receipts if receipt.status not in TAKEN]


def explain(receipt: Receipt) -> str:
    """Say in words what became of an answer, for those whose status alone tells too little."""
    if receipt.status is ReceiptStatus.TOO_LARGE:
        return f"{receipt.room or 0:,} bytes are left in this round; nothing was recorded"
    return _EXPLAINED.get(receipt.status, "")


_EXPLAINED = {
    ReceiptStatus.EARLY: "nobody has asked yet; kept until somebody does",
    ReceiptStatus.DUPLICATE: "the same answer was given before",
    ReceiptStatus.CONFLICT: "another answer was given before, and it stands",
    ReceiptStatus.LATE: "the call waits no more; this answer was not used",
    ReceiptStatus.UNKNOWN: "the run waits for answers, but for no such call",
    ReceiptStatus.HELD: "a person must decide this call: runlane approval show CALL_ID",
}


def _output(index: int, output: object) -> ToolOutputMessage:
    where = f"tool_outputs[{index}]"
    fields = output if isinstance(output, dict) else getattr(output, "__dict__", None)
    if fields is None:
        raise InvalidRequest(f"{where} must be an object.", param=where)
    for name in ("tool_call_id", "output"):
        value = fields.get(name)
        if value is None:
            raise InvalidRequest(f"{where}.{name} is required.", param=f"{where}.{name}")
        if not isinstance(value, str):
            raise InvalidRequest(f"{where}.{name} must be a string.", param=f"{where}.{name}")
        try:
            value.encode()
        except UnicodeEncodeError:
            text = f"{where}.{name} must be text that UTF-8 can hold."
            raise InvalidRequest(text, param=f"{where}.{name}") from None
    unknown = sorted(set(fields) - {"tool_call_id", "output"})
    if unknown:
        raise InvalidRequest(
            f"{where}.{unknown[0]} is not a parameter of a tool output.",
            param=f"{where}.{unknown[0]}",
        )
    if not 1 <= len(fields["tool_call_id"]) <= MAX_ID_LENGTH:
        raise InvalidRequest(
            f"{where}.tool_call_id must have 1 to {MAX_ID_LENGTH} characters.",
            param=f"{where}.tool_call_id",
        )
    return ToolOutputMessage(tool_call_id=fields["tool_call_id"], output=fields["output"])


def _first_repeated(ids: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            return name
        seen.add(name)
    return None
