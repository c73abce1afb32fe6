"""What the audit trail says of a batch: who began, paused, resumed and cancelled it, and why."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
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
from workflows.batch import BatchWorkflow

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


async def facts_of(lab: Lab, batch_id: str) -> list[dict[str, Any]]:
    """Return the facts of the trail's rows on a batch."""
    rows = [json.loads(row.body)["facts"] for row in await lab.ledger.audit.read(TRAIL)]
    return [facts for facts in rows if facts["scope"] == f"batch {batch_id}"]


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
    await lab.ledger.batches.set_limits(batch.id, tokens=1)
    await batch.start(lanes=1, window=2)
    paused = await batch.until_paused()
    counts = await batch.until(lambda counts: counts.in_flight == 0)

    assert re.fullmatch(r"budget: (150|300) tokens are used, of 1", paused)
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
    # Nobody has counted its lines yet.
    [facts] = await facts_of(lab, made[0].id)
    assert "total" not in facts


async def test_who_let_what_failed_be_tried_again_stands_there(lab: Lab) -> None:
    """Once for each call that found something; one that finds nothing changes nothing."""
    await lab.scenario(rounds=[{"queued": 0.02, "in_progress": 0.02, "ends": "failed"}])
    batch = Batch(lab)
    await batch.run(new_threads(3))
    known = Batches(lab.client, lab.task_queue, lab.ledger)
    await lab.scenario(rounds=[{"queued": 0.02, "in_progress": 0.02, "says": "On its way."}])
    first = await steering.retry_failed(known, await batch.record(), "ann")
    batch.handle = lab.client.get_workflow_handle_for(BatchWorkflow.run, batch.id)
    status = await batch.ended()
    second = await steering.retry_failed(known, await batch.record(), "bob")

    assert (3, 0) == (first, second)
    assert "completed" == status
    assert [("retry-failed", "ann", None)] == await told(lab, batch.id)


async def test_a_batch_of_a_window_is_tried_again_within_another(lab: Lab) -> None:
    """One that came over HTTP has its 24 hours again, and so an `expires_at`; what somebody names
    counts instead. A deadline that is past would let nothing begin, and is gone.
    """
    await lab.scenario(rounds=[{"queued": 0.02, "in_progress": 0.02, "ends": "failed"}])
    known = Batches(lab.client, lab.task_queue, lab.ledger)
    begun, soon = datetime.now(UTC), datetime.now(UTC) + timedelta(seconds=5)
    windowed, named, plain, ahead = [Batch(lab) for _ in range(4)]
    await windowed.run(new_threads(1), deadline=soon, completion_window="24h")
    await named.run(new_threads(1), deadline=soon, completion_window="24h")
    await plain.run(new_threads(1), deadline=soon)
    await ahead.run(new_threads(1), deadline=begun + timedelta(hours=3))
    await asyncio.sleep(max((soon - datetime.now(UTC)).total_seconds(), 0.0))
    for each, deadline in (
        (windowed, None),
        (named, begun + timedelta(hours=2)),
        (plain, None),
        (ahead, None),
    ):
        record = await each.record()
        assert 1 == await steering.retry_failed(known, record, "ann", deadline=deadline)

    until = (await windowed.record()).deadline
    assert until is not None
    assert timedelta(hours=24) <= until - begun < timedelta(hours=24, minutes=5)
    assert begun + timedelta(hours=2) == (await named.record()).deadline
    assert (await plain.record()).deadline is None
    assert begun + timedelta(hours=3) == (await ahead.record()).deadline
