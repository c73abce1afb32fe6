"""What the audit trail says of a batch: who began, paused, resumed and cancelled it, and why."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ledger.batch_item import ItemState
from ledger.stops import TRAIL
from runlane.batches import steering
from runlane.batches.running import Batches
from runlane.errors import InvalidRequest
from tests.api import serving
from tests.batches import Batch, new_threads
from tests.lab import Lab
from tests.lines import record

LONG = {"queued": 0.05, "in_progress": 600}


async def told(lab: Lab, batch_id: str) -> list[tuple[str, str, str | None]]:
    """Return what the trail says was done to a batch, by whom, and what they noted."""
    found = []
    for row in await lab.ledger.audit.read(TRAIL):
        body: dict[str, Any] = json.loads(row.body)
        if body["facts"]["scope"] != f"batch {batch_id}":
            continue
        note = body.get("contents", {}).get("note")
        said = None if note is None else await lab.ledger.contents.read(TRAIL, note)
        found.append((body["facts"]["what"], body["facts"]["by"], said))
    return found


async def test_each_order_stands_in_the_trail_once(lab: Lab) -> None:
    """By the face that took it; the workflow, which obeys it too, doesn't say it again."""
    await lab.scenario(rounds=[LONG])
    batch = Batch(lab)
    await batch.upload(new_threads(3))
    await batch.start(lanes=1, window=2)
    await batch.until(lambda counts: counts.in_flight == 2)
    known = Batches(lab.client, lab.task_queue, lab.ledger)
    for _ in range(2):
        await steering.pause(known, await batch.record(), "lunch", "ann")
    await batch.until_paused()
    for _ in range(2):
        await steering.resume(known, await batch.record(), "bob")
    await steering.cancel(known, await batch.record(), "eve")
    await batch.ended()

    assert [("pause", "ann", "lunch"), ("resume", "bob", None), ("cancel", "eve", None)] == (
        await told(lab, batch.id)
    )


async def test_an_order_by_signal_stands_there_too(lab: Lab) -> None:
    """With whom it names, though no client of ours gave it."""
    await lab.scenario(rounds=[LONG])
    batch = Batch(lab)
    await batch.upload(new_threads(3))
    await batch.start(lanes=1, window=2)
    await batch.until(lambda counts: counts.in_flight == 2)
    await batch.pause("lunch", by="ann")
    await batch.until_paused()
    await batch.cancel()
    await batch.ended()

    first, *rest = await told(lab, batch.id)
    assert ("pause", "ann", "lunch") == first
    assert ["cancel"] == [what for what, *_ in rest]


async def test_a_budget_that_is_used_up_pauses_and_says_so(lab: Lab) -> None:
    """By Runlane itself; nothing more begins, and a higher limit lets it go on."""
    await lab.scenario(rounds=[{"queued": 0.05, "in_progress": 0.1, "says": "On its way."}])
    batch = Batch(lab)
    await batch.upload(new_threads(6))
    await lab.ledger.batches.set_token_limit(batch.id, 1)
    await batch.start(lanes=1, window=2)
    paused = await batch.until_paused()
    counts = await batch.until(lambda counts: counts.in_flight == 0)

    assert paused == "budget: its 1 tokens are used up"
    assert 2 == counts.by_state[ItemState.COMPLETED]
    assert [("pause", "runlane", paused)] == await told(lab, batch.id)
    known, used = (
        Batches(lab.client, lab.task_queue, lab.ledger),
        (await batch.record()).tokens_used,
    )
    with pytest.raises(InvalidRequest, match=f"--max-tokens must be more than the {used:,} "):
        await steering.resume(known, await batch.record(), "ann", token_limit=used)
    await steering.resume(known, await batch.record(), "ann", token_limit=1_000_000)
    assert "completed" == await batch.ended()
    assert 6 == len(await batch.results())
    assert ("resume", "ann", None) == (await told(lab, batch.id))[-1]


async def test_who_began_it_stands_there_once(lab: Lab) -> None:
    """With its name and the digest of its input, however often the command is given."""
    known = Batches(lab.client, lab.task_queue, lab.ledger)
    planned = record(name=f"from {lab.thread_id}", created_at=datetime.now(UTC))
    for _ in range(2):
        await known.create(planned, "ann")

    assert [("create", "ann", None)] == await told(lab, planned.id)


async def test_who_began_it_over_http_stands_there_once(lab: Lab) -> None:
    """The person whose token it was, however often the request is sent."""
    async with serving(lab, local=None) as api:
        sdk = api.sdk(await api.token(person="ann"))
        file = await sdk.files.create(file=("in.jsonl", b"[]\n"), purpose="batch")
        made = [
            await sdk.batches.create(
                input_file_id=file.id,
                endpoint="/v1/threads/runs",  # type: ignore[arg-type]
                completion_window="24h",
                extra_headers={"Idempotency-Key": "once"},
            )
            for _ in range(2)
        ]

    assert made[0].id == made[1].id
    assert [("create", "ann", None)] == await told(lab, made[0].id)
