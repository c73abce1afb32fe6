"""Batches that may use so many tokens, or cost so much: they pause, say so, and go on with more."""

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest

from ledger.batch_item import ItemState
from runlane.batches import steering
from runlane.batches.running import Batches
from runlane.errors import InvalidRequest
from tests.api import serving
from tests.batches import Batch, new_threads
from tests.lab import Lab, eventually

QUICK = {"queued": 0.02, "in_progress": 0.05, "says": "On its way."}
LONG = {"queued": 0.02, "in_progress": 600}
ITS_COST = Decimal("0.0006")
"""Of a run upstream here: 120 tokens at 2.50 a million, and 30 at 10."""


async def test_a_budget_of_money_pauses_and_says_what_was_spent(lab: Lab) -> None:
    """What is in flight still ends; then nothing begins, however long one waits, until there is
    more. What would let nothing begin is refused.
    """
    await lab.scenario(rounds=[QUICK])
    known = Batches(lab.client, lab.task_queue, lab.ledger)
    batch = Batch(lab)
    await batch.upload(new_threads(8), prices="2.50,10")
    await lab.ledger.batches.set_limits(batch.id, cost=2 * ITS_COST)
    await batch.start(lanes=1, window=2)
    reason = await batch.until_paused()
    counts = await batch.until(lambda counts: counts.in_flight == 0)
    record = await batch.record()
    spent = record.cost
    assert spent is not None
    for cost in (None, spent):
        with pytest.raises(InvalidRequest, match=f"--max-cost must be more than the {spent:f} "):
            await steering.resume(known, record, "ann", cost_limit=cost)
    await steering.resume(known, record, "ann", cost_limit=spent + 2 * ITS_COST)
    again = await eventually(
        batch.record, lambda found: found.paused_at is not None and found.cost != spent
    )
    await steering.resume(known, again, "ann", cost_limit=Decimal(1))
    status = await batch.ended()

    ended = counts.by_state[ItemState.COMPLETED]
    assert 2 <= ended <= 3
    assert ended * ITS_COST == spent
    assert f"budget: {150 * ended} tokens have cost {spent:f}, of 0.0012" == reason
    assert "completed" == status
    assert 8 == len(await batch.results()) == len(await batch.upstream_runs())
    assert 8 * ITS_COST == (await batch.record()).cost


async def test_a_budget_is_told_before_what_is_in_flight_has_ended(lab: Lab) -> None:
    """A long item doesn't keep the word back: the batch says at once that it begins no more, and
    with more it goes on beside it.
    """
    await lab.scenario(rounds=[QUICK])
    long = f"{lab.assistant_id}_long"
    await lab.scenario(assistant_id=long, rounds=[LONG])
    known = Batches(lab.client, lab.task_queue, lab.ledger)
    batch = Batch(lab)
    await batch.upload([*new_threads(1, assistant_id=long), *new_threads(6)])
    await lab.ledger.batches.set_limits(batch.id, tokens=150)
    await batch.start(lanes=1, window=2)
    reason = await batch.until_paused()
    counts = await batch.counts()
    await steering.resume(known, await batch.record(), "ann", token_limit=100_000)
    await batch.until(lambda counts: counts.by_state[ItemState.COMPLETED] == 6)
    await batch.cancel()
    status = await batch.ended()

    assert "budget: 150 tokens are used, of 150" == reason
    assert 1 == counts.in_flight
    assert "cancelled" == status


async def test_a_budget_of_money_over_http(lab: Lab) -> None:
    """It is asked for in the key `runlane`, pauses the batch, and shows what was spent."""
    await lab.scenario(rounds=[QUICK])
    body = {"assistant_id": lab.assistant_id}
    asked = [
        {"custom_id": str(number), "method": "POST", "url": "/v1/threads/runs", "body": body}
        for number in range(4)
    ]
    content = b"".join(json.dumps(line).encode() + b"\n" for line in asked)
    limits = {"price_per_million_tokens": "2.50,10", "max_cost": "0.0012", "max_in_flight": 1}
    async with serving(lab) as api:
        sdk = api.sdk()
        file = await sdk.files.create(file=("in.jsonl", content), purpose="batch")
        made = await sdk.batches.create(
            input_file_id=file.id,
            endpoint="/v1/threads/runs",  # type: ignore[arg-type] # as Runlane has it
            completion_window="24h",
            extra_body={"runlane": limits},
        )

        async def shown() -> dict[str, Any]:
            found: dict[str, Any] = (await sdk.batches.retrieve(made.id)).model_extra or {}
            return dict(found["runlane"])

        paused = await eventually(shown, lambda found: found["paused"] is not None)
    known = Batches(lab.client, lab.task_queue, lab.ledger)
    record = await known.find(made.id)
    await steering.resume(known, record, "ann", cost_limit=Decimal(1))
    ended = await eventually(lambda: known.find(made.id), lambda found: found.status.is_end)

    assert "budget: 300 tokens have cost 0.0012, of 0.0012" == paused["paused"]["reason"]
    assert ("0.0012", 0.0012) == (paused["cost_limit"], paused["money"])
    assert 4 * ITS_COST == ended.cost


async def test_without_prices_there_is_no_budget_of_money(lab: Lab) -> None:
    """It is refused in words, and the batch stays as it was."""
    known = Batches(lab.client, lab.task_queue, lab.ledger)
    batch = Batch(lab)
    await batch.upload(new_threads(1))
    with pytest.raises(InvalidRequest, match="--price-per-million-tokens"):
        await steering.resume(known, await batch.record(), "ann", cost_limit=Decimal(1))

    assert (await batch.record()).cost_limit is None


async def test_tokens_of_a_minute_are_reckoned_with_what_is_under_way(lab: Lab) -> None:
    """Of 600 tokens a minute, items of 150 each: after the first ones have told what one uses, no
    more than four are begun, by two lanes together, though they might drive thirty-two.
    """
    await lab.scenario(rounds=[QUICK])
    batch = Batch(lab)
    await batch.upload(new_threads(30), tpm=600)
    await batch.start(lanes=2, window=16)
    await batch.until(lambda counts: counts.by_state[ItemState.COMPLETED] == 4)
    await asyncio.sleep(2.0)
    still = await batch.counts()
    upstream = len(await batch.upstream_runs())
    await batch.cancel()
    status = await batch.ended()

    assert 4 == still.by_state[ItemState.COMPLETED] == upstream
    assert "cancelled" == status
