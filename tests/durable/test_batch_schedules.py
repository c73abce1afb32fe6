"""Schedules of batches on a real Temporal: each start is one batch, and lives as long as it."""

import asyncio
import gzip
import json
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle

from activities.scheduled_batch_contract import AskedBatch, ClockTime
from ledger.batch_item import Item
from ledger.batch_notes import Note
from ledger.batch_record import BatchRecord, BatchStatus, batch_id
from ledger.files import STANDING
from ledger.retention import Retention
from runlane.batches import scheduling
from runlane.batches.checking import Checking
from runlane.batches.lines import InputFile
from runlane.batches.schedules import BatchSchedules
from runlane.batches.scheduling import WantedBatches
from runlane.batches.uploading import InputChanged
from runlane.batches.wanted import Wanted
from runlane.errors import InvalidRequest, Refused
from runlane.schedule_facts import Described
from runlane.schedules import ScheduleNotFound, Schedules
from tests.lab import Lab, eventually
from workflows.scheduled_contract import (
    ID_PREFIX,
    SCHEDULED_BATCH_WORKFLOW,
    ScheduledBatchInput,
    ScheduledBatchResult,
)

ENDLESS = {"queued": 0.0, "ends": "never"}
LAST = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}
NEVER = "0 0 31 2 *"
"""There is no 31st of February: only a trigger starts anything."""


class Nightly:
    """A schedule of batches of a lab's own, which nothing but a trigger starts."""

    def __init__(self, lab: Lab, directory: Path, lines: int = 3) -> None:
        self.lab = lab
        self.schedules = Schedules(lab.client, lab.task_queue)
        self.known = BatchSchedules(self.schedules, lab.ledger)
        self.name = f"nightly {secrets.token_hex(4)}"
        self.path = directory / f"{secrets.token_hex(4)}.jsonl"
        self.path.write_bytes(self.content(lines))

    def content(self, lines: int) -> bytes:
        """Return an input of new threads."""
        thread = {"messages": [{"role": "user", "content": "Where is my order?"}]}
        body = {"assistant_id": self.lab.assistant_id, "thread": thread}
        made = [
            {"custom_id": f"t{n}", "method": "POST", "url": "/v1/threads/runs", "body": body}
            for n in range(lines)
        ]
        return b"".join(json.dumps(line).encode() + b"\n" for line in made)

    def asked(self, deadline: ClockTime | None = None, **options: Any) -> AskedBatch:
        """Return the batch as the command line asks for it."""
        with InputFile(self.path) as source:
            checking = Checking(source)
            for _ in checking.lines():
                pass
        wanted = Wanted(name="any", options={"requested_by": "ben", **options})
        return scheduling.asked(
            self.name, wanted, checking.totals, filename=self.path.name, deadline=deadline,
            tools=None,
        )  # fmt: skip

    def wanted(self, batch: AskedBatch | None = None, **when: Any) -> WantedBatches:
        """Return the schedule as it is asked for."""
        return WantedBatches(
            **{"name": self.name, "cron": [NEVER], "batch": batch or self.asked(), **when}
        )

    async def create(self, batch: AskedBatch | None = None, **when: Any) -> Described:
        """Make it."""
        with InputFile(self.path) as source:
            digest = source.raw_digest()
            return await self.known.create(self.wanted(batch, **when), source, raw_digest=digest)

    async def trigger(self) -> str:
        """Trigger it; return the batch's id."""
        triggered = await self.schedules.trigger(self.name)
        assert triggered.start is not None
        assert triggered.start.batch is not None
        return batch_id("", triggered.start.batch)

    async def batch(self, id: str) -> BatchRecord | None:
        """Return a batch, if there is one."""
        return await self.lab.ledger.batches.find(id)

    async def name_of(self, id: str) -> str:
        """Return a batch's name."""
        found = await self.batch(id)
        assert found is not None
        return found.name

    async def ended(self, id: str) -> BatchRecord:
        """Wait for a batch's end."""
        found = await eventually(
            lambda: self.batch(id), lambda batch: batch is not None and batch.status.is_end
        )
        assert found is not None
        return found

    async def results(self, id: str) -> list[Item]:
        """Return what has ended of a batch."""
        return list(await self.lab.ledger.batch_items.results(id, after_seq=0, limit=1000))

    async def upstream(self) -> list[dict[str, Any]]:
        """Return the upstream's runs of the lab's assistant."""
        runs = await asyncio.to_thread(self.lab.simulator.runs)
        return [run for run in runs if run["assistant_id"] == self.lab.assistant_id]

    async def idle(self) -> None:
        """Wait until the schedule knows that its last start has ended."""
        handle = self.lab.client.get_schedule_handle(self.name)

        async def running() -> int:
            return len((await handle.describe()).info.running_actions)

        await eventually(running, lambda count: count == 0)

    def file_id(self, made: Described) -> str:
        """Return where its input is."""
        assert isinstance(made.request, ScheduledBatchInput)
        return made.request.batch.file_id


async def test_a_trigger_begins_a_batch_by_its_own_name(lab: Lab, tmp_path: Path) -> None:
    """Named by schedule and time, with the schedule's options, from what the ledger holds."""
    await lab.scenario(rounds=[LAST])
    nightly = Nightly(lab, tmp_path)
    made = await nightly.create(nightly.asked(rpm=6000.0))
    nightly.path.unlink()

    first = await nightly.ended(await nightly.trigger())
    await nightly.idle()
    second = await nightly.ended(await nightly.trigger())
    begun = await nightly.known.begun(await nightly.schedules.find(nightly.name))

    start = (await nightly.schedules.find(nightly.name)).recent[0]
    at = start.scheduled_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert f"{nightly.name}-{at}" == first.name
    assert first.id != second.id
    assert {(BatchStatus.COMPLETED, 3, 6000.0, "ben")} == {
        (each.status, each.total, each.options["rpm"], each.options["requested_by"])
        for each in (first, second)
    }
    assert {"completed"} == {each.state.value for each in await nightly.results(second.id)}
    assert 6 == len(await nightly.upstream())
    assert [(second.id, BatchStatus.COMPLETED), (first.id, BatchStatus.COMPLETED)] == [
        (each.id, each.status) for each in begun
    ]
    assert made.of_batches


async def test_a_start_is_skipped_while_its_batch_goes_on(lab: Lab, tmp_path: Path) -> None:
    """The overlap counts by the batch's end, not by the moment that it takes to begin it."""
    await lab.scenario(rounds=[ENDLESS])
    nightly = Nightly(lab, tmp_path)
    await nightly.create()
    first = await nightly.trigger()
    await eventually(nightly.upstream, lambda runs: len(runs) == 3)

    second = await nightly.schedules.trigger(nightly.name)

    assert (None, True) == (second.start, second.skipped)
    assert 1 == (await nightly.schedules.find(nightly.name)).skipped
    await lab.client.get_workflow_handle(first).signal("cancel", {"by": "ann"})
    assert BatchStatus.CANCELLED is (await nightly.ended(first)).status
    await nightly.idle()
    third = await nightly.trigger()
    await eventually(nightly.upstream, lambda runs: len(runs) == 6)
    await lab.client.get_workflow_handle(third).signal("cancel", {"by": "ann"})
    await nightly.ended(third)


@pytest.mark.parametrize("overlap", ["cancel-other", "terminate-other"])
async def test_a_start_can_end_the_batch_before_it(lab: Lab, tmp_path: Path, overlap: str) -> None:
    """That one is cancelled, and so is what it has begun upstream."""
    await lab.scenario(rounds=[ENDLESS])
    nightly = Nightly(lab, tmp_path, lines=2)
    await nightly.create(overlap=overlap)
    first = await nightly.trigger()
    await eventually(nightly.upstream, lambda runs: len(runs) == 2)
    await asyncio.sleep(1.0)

    second = await nightly.trigger()

    assert BatchStatus.CANCELLED is (await nightly.ended(first)).status
    runs = await eventually(nightly.upstream, lambda runs: len(runs) == 4)
    assert ["cancelled"] * 2 + ["in_progress"] * 2 == sorted(run["status"] for run in runs)
    await lab.client.get_workflow_handle(second).signal("cancel", {"by": "ann"})
    await nightly.ended(second)


async def test_a_start_that_comes_twice_begins_one_batch(lab: Lab, tmp_path: Path) -> None:
    """After the batch's end the same start finds it; before, it waits for it, and can cancel it."""
    await lab.scenario(rounds=[LAST])
    nightly = Nightly(lab, tmp_path)
    made = await nightly.create()
    ended = await nightly.ended(await nightly.trigger())
    await nightly.idle()

    async def again(name: str) -> WorkflowHandle[Any, Any]:
        return await lab.client.start_workflow(
            SCHEDULED_BATCH_WORKFLOW,
            made.request,
            id=f"{ID_PREFIX}{name}",
            task_queue=lab.task_queue,
            result_type=ScheduledBatchResult,
        )

    result = await asyncio.wait_for((await again(ended.name)).result(), 30)
    assert (ended.id, "completed") == (result.batch_id, result.status)
    assert 3 == len(await nightly.upstream())

    await lab.scenario(rounds=[ENDLESS])
    driven = await nightly.trigger()
    await eventually(nightly.upstream, lambda runs: len(runs) == 6)
    # By another id: as if the batch's workflow were somebody else's child.
    orphan = await lab.client.start_workflow(
        SCHEDULED_BATCH_WORKFLOW,
        made.request,
        id=await nightly.name_of(driven),
        task_queue=lab.task_queue,
        result_type=ScheduledBatchResult,
    )
    await asyncio.sleep(1.5)
    assert WorkflowExecutionStatus.RUNNING == (await orphan.describe()).status
    await orphan.cancel()
    told = await asyncio.wait_for(orphan.result(), 40)
    assert ScheduledBatchResult(batch_id=driven, status="cancelled") == told
    assert 6 == len(await nightly.upstream())


async def test_a_batchs_deadline_is_the_first_after_the_scheduled_time(
    lab: Lab, tmp_path: Path
) -> None:
    """What is made up for late is late for its deadline, too: then nothing of it begins."""
    await lab.scenario(rounds=[LAST])
    nightly = Nightly(lab, tmp_path)
    made = await nightly.create(nightly.asked(ClockTime(hour=6, minute=0, zone="Europe/Berlin")))

    late = await lab.client.start_workflow(
        SCHEDULED_BATCH_WORKFLOW,
        made.request,
        id=f"{ID_PREFIX}{nightly.name}-2026-03-28T23:30:00Z",
        task_queue=lab.task_queue,
        result_type=ScheduledBatchResult,
    )
    result = await asyncio.wait_for(late.result(), 30)

    found = await nightly.batch(result.batch_id)
    assert found is not None
    # The clocks go forward in that night.
    assert datetime(2026, 3, 29, 4, 0, tzinfo=UTC) == found.deadline
    assert ("expired", f"{nightly.name}-2026-03-28T23:30:00Z") == (result.status, found.name)
    assert [] == await nightly.upstream()


async def test_an_input_stays_for_as_long_as_its_schedule(lab: Lab, tmp_path: Path) -> None:
    """No retention takes it; a deleted schedule's goes in a day, and its batches stay."""
    await lab.scenario(rounds=[LAST])
    nightly = Nightly(lab, tmp_path)
    nightly.path.write_bytes(gzip.compress(nightly.path.read_bytes()))
    made = await nightly.create()
    files, now = lab.ledger.files, datetime.now(UTC)
    kept = await files.find(nightly.file_id(made), now + timedelta(days=400))
    await lab.ledger.prune(Retention(contents=1))
    batch = await nightly.ended(await nightly.trigger())
    await nightly.idle()

    await nightly.known.delete(await nightly.schedules.find(nightly.name))

    assert kept is not None
    assert (STANDING, nightly.path.name) == (kept.purpose, kept.filename)
    assert await files.find(kept.id, now + timedelta(hours=23)) is not None
    assert await files.find(kept.id, now + timedelta(hours=25)) is None
    assert 3 == len(await nightly.results(batch.id))
    with pytest.raises(ScheduleNotFound):
        await nightly.schedules.find(nightly.name)


async def test_the_same_schedule_again_stores_nothing_more(lab: Lab, tmp_path: Path) -> None:
    """It is found by the input's content, and kept; another one of the name leaves no file."""
    nightly = Nightly(lab, tmp_path)

    async def files() -> list[str]:
        found = await lab.ledger.files.list(datetime.now(UTC), purpose=STANDING)
        return [file.id for file in found]

    made = await nightly.create()
    there = await files()
    # As a death right before it was kept leaves it.
    in_a_day = datetime.now(UTC) + timedelta(days=1)
    await lab.ledger.files.set_expiry(nightly.file_id(made), in_a_day)
    assert in_a_day == await nightly.known.goes_at(made)
    assert made == await nightly.create()
    assert await nightly.known.goes_at(made) is None
    with pytest.raises(Refused, match="another schedule"):
        await nightly.create(nightly.asked(tries=7))
    nightly.path.write_bytes(nightly.content(4))
    with pytest.raises(Refused, match="another schedule"):
        await nightly.create()
    nightly.name = f"{nightly.name} other"
    with pytest.raises(InvalidRequest, match="Temporal refuses"):
        await nightly.create(cron=["every night"])
    with InputFile(nightly.path) as source, pytest.raises(InputChanged):
        await nightly.known.create(nightly.wanted(), source, raw_digest="sha256:" + "0" * 64)
    assert [nightly.file_id(made)] == there == await files()


async def test_a_schedule_whose_input_is_gone_says_so(lab: Lab, tmp_path: Path) -> None:
    """Each start ends as a failed batch that names the reason; the schedule is made anew."""
    nightly = Nightly(lab, tmp_path)
    made = await nightly.create()
    await lab.ledger.files.delete(nightly.file_id(made))
    batch = await nightly.ended(await nightly.trigger())
    errors = await lab.ledger.batch_notes.find(batch.id, Note.ERRORS)
    assert BatchStatus.FAILED is batch.status
    assert "file_not_found" in str(errors)
    with pytest.raises(Refused, match="is gone"):
        await nightly.create()
    assert await nightly.known.goes_at(made) is not None


async def test_a_name_that_no_batch_can_have_makes_no_schedule(lab: Lab, tmp_path: Path) -> None:
    """Batches are called after the schedule, and a batch's name can't look like an id."""
    nightly = Nightly(lab, tmp_path)
    nightly.name = "batch_of_the_night"
    with pytest.raises(InvalidRequest, match="can't begin with batch_") as refused:
        nightly.asked()
    assert "NAME" == refused.value.param


async def test_the_clock_begins_batches_of_their_own(lab: Lab, tmp_path: Path) -> None:
    """Each time is another batch, side by side where the overlap allows it."""
    await lab.scenario(rounds=[LAST])
    nightly = Nightly(lab, tmp_path, lines=1)
    await nightly.create(cron=["@every 2s"], overlap="allow-all")
    await eventually(nightly.upstream, lambda runs: len(runs) >= 3)
    await nightly.schedules.delete(nightly.name)
    found = await eventually(
        lambda: lab.ledger.batches.list(limit=100),
        lambda batches: all(each.status.is_end for each in batches),
    )
    assert len(await nightly.upstream()) == len(found) == len({each.name for each in found})


async def test_a_name_of_another_batch_fails_its_start(lab: Lab, tmp_path: Path) -> None:
    """Somebody's own batch of that name is left alone."""
    nightly = Nightly(lab, tmp_path)
    made = await nightly.create()
    name = f"{nightly.name}-2026-03-28T23:30:00Z"
    theirs = BatchRecord(
        id=batch_id("", name), name=name, input_digest="sha256:" + "1" * 64, total=0,
        created_at=datetime.now(UTC),
    )  # fmt: skip
    await lab.ledger.batches.create(theirs)
    start = await lab.client.start_workflow(
        SCHEDULED_BATCH_WORKFLOW,
        made.request,
        id=f"{ID_PREFIX}{name}",
        task_queue=lab.task_queue,
    )
    with pytest.raises(WorkflowFailureError):
        await asyncio.wait_for(start.result(), 30)
    assert theirs == await nightly.batch(theirs.id)
