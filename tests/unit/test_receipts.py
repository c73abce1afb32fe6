"""Answers are checked before they leave, and a run that has ended tells them apart."""

from typing import Any

import pytest

from runlane.errors import InvalidRequest, Refused
from runlane.receipts import from_ended, message, refused
from runsapi import Run
from workflows.contract import (
    AnswerOutcome,
    AnswerView,
    Receipt,
    ReceiptStatus,
    RunlaneView,
    RunView,
    content_digest,
)


def _answer(call_id: str, output: str, outcome: AnswerOutcome, *others: str) -> AnswerView:
    return AnswerView(
        tool_call_id=call_id,
        name="lookup",
        attempt=1,
        round=1,
        outcome=outcome,
        output_digest=content_digest(output),
        call_ids=[call_id, *others],
    )


def _ended(*answers: AnswerView) -> RunView:
    run = Run.model_validate({"id": "run_1", "status": "completed"})
    return RunView(run=run, runlane=RunlaneView(answers=list(answers)))


@pytest.mark.parametrize(
    ("outputs", "param"),
    [
        ([], "tool_outputs"),
        (["x"], "tool_outputs[0]"),
        ([{"tool_call_id": "a"}], "tool_outputs[0].output"),
        ([{"output": "a"}], "tool_outputs[0].tool_call_id"),
        ([{"tool_call_id": "a", "output": {"x": 1}}], "tool_outputs[0].output"),
        ([{"tool_call_id": "", "output": "x"}], "tool_outputs[0].tool_call_id"),
        ([{"tool_call_id": "a", "output": "x", "ouput": "y"}], "tool_outputs[0].ouput"),
        ([{"tool_call_id": "a", "output": "\ud800"}], "tool_outputs[0].output"),
        ([{"tool_call_id": "a", "output": "x"}] * 2, "tool_outputs[a].tool_call_id"),
    ],
)
def test_a_malformed_answer_is_named(outputs: list[Any], param: str) -> None:
    """Each refusal names the field at fault; nothing has been sent by then."""
    with pytest.raises(InvalidRequest) as error:
        message(outputs)

    assert param == error.value.param


def test_a_message_over_one_megabyte_never_leaves() -> None:
    """It would make every later task of the run fail, so it is refused with field and limit."""
    with pytest.raises(Refused, match="1,000,000") as error:
        message([{"tool_call_id": "a", "output": "x" * 2_200_000}])

    assert ("too_large", "tool_outputs[0].output") == (error.value.code, error.value.param)


def test_an_ended_run_tells_answers_apart() -> None:
    """The same content is a duplicate, other content late or a conflict, anything else late."""
    view = _ended(
        _answer("call_1", "yes", AnswerOutcome.SUBMITTED, "call_1b"),
        _answer("call_2", "yes", AnswerOutcome.UNUSED),
    )
    given = {"call_1": "yes", "call_1b": "no", "call_2": "no", "call_3": "yes"}
    delivery = message({"tool_call_id": name, "output": text} for name, text in given.items())

    told = from_ended(view, delivery).receipts

    assert ["duplicate", "late", "conflict", "late"] == [str(receipt.status) for receipt in told]


def test_only_what_is_with_the_run_counts_as_taken() -> None:
    """Accepted, early and duplicate answers need nothing more from who gave them."""
    told = [Receipt(tool_call_id=str(status), status=status) for status in ReceiptStatus]

    left = {str(receipt.status) for receipt in refused(told)}

    assert {"conflict", "late", "unknown", "too_large", "held"} == left
