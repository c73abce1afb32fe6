"""Runs of which an upstream tells in odd ways: their lines have their results and tokens."""

from typing import Any

import pytest

from activities.batch_outcomes import MAX_TOKENS, of_body
from ledger import Ledger
from ledger.batch_item import ItemOutcome, ItemState
from ledger.batch_record import BatchRecord
from ledger.batch_writes import Settle
from tests.lines import BATCH, NOON, begun


def _ended(status: str = "completed", **changes: Any) -> ItemOutcome:
    return of_body({"id": "run_1", "status": status, **changes})


async def _settled(ledger: Ledger, *outcomes: ItemOutcome) -> BatchRecord:
    """Write these as the ends of a batch's items, all at once; return the batch."""
    await begun(ledger, len(outcomes))
    epoch = await ledger.batch_items.take_lane(BATCH, 0, "test")
    await ledger.batch_items.claim(BATCH, 0, epoch, len(outcomes), NOON)
    ends = [Settle(index=index, outcome=each) for index, each in enumerate(outcomes)]
    assert [True] * len(ends) == await ledger.batch_items.write(BATCH, epoch, ends)
    found = await ledger.batches.find(BATCH)
    assert found is not None
    return found


async def test_tokens_that_no_model_has_used_hold_up_no_line(ledger: Ledger) -> None:
    """More than the ledger can hold counts as very many, less than none as none; what the run says
    stands in its line as it was said.
    """
    huge = {"prompt_tokens": 10**30, "completion_tokens": 2**62, "total_tokens": 10**30}
    below = {"prompt_tokens": -5, "completion_tokens": 7, "total_tokens": -5}
    batch = await _settled(ledger, _ended(usage=huge), _ended(usage=huge), _ended(usage=below))
    results = await ledger.batch_items.results(BATCH, 0, 10)

    assert 2 * MAX_TOKENS == batch.tokens_used
    assert [MAX_TOKENS, MAX_TOKENS, 7] == [each.usage.completion_tokens for each in results]
    assert {ItemState.COMPLETED} == {each.state for each in results}
    assert str(10**30) in (results[0].response or "")


@pytest.mark.parametrize(
    ("code", "kind"),
    [("rate\0limit\ud800", "ratelimit"), ("\0", "failed"), ("", "failed"), ("x" * 300, "x" * 64)],
)
async def test_a_failure_whose_code_can_not_be_stored_keeps_its_result(
    ledger: Ledger, code: str, kind: str
) -> None:
    """It is counted by what of the code can be stored, and no token is lost."""
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    error = {"code": code, "message": "no\0 \ud800"}
    batch = await _settled(ledger, _ended("failed", last_error=error, usage=usage))
    [item] = await ledger.batch_items.results(BATCH, 0, 10)

    assert (ItemState.FAILED, kind) == (item.state, item.error_kind)
    assert 7 == batch.tokens_used
    assert item.response is not None
