"""A batch is put into the ledger, and its results are brought from there, whoever dies between."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ledger import Ledger
from ledger.batch_item import ItemOutcome, ItemState
from ledger.batch_record import BatchRecord, BatchStatus
from runlane.batches.checking import Checking, Totals
from runlane.batches.lines import InputFile
from runlane.batches.outputs import ResultsFile, ResultsLost
from runlane.batches.results import Results
from runlane.batches.running import Batches, BatchNotFound, NameTaken
from runlane.batches.uploading import InputChanged, upload
from runlane.batches.wanted import Wanted
from runlane.errors import InvalidRequest
from tests.lines import record

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def write_input(path: Path, count: int) -> None:
    """Write a file of so many usable lines, with a blank and a bad one among them."""
    texts = [
        json.dumps(
            {
                "custom_id": f"item-{number}",
                "method": "POST",
                "url": "/v1/threads/runs",
                "body": {"assistant_id": "asst_1"},
            }
        )
        for number in range(count)
    ]
    path.write_text("\n".join([*texts[:3], "", "{oops", *texts[3:]]) + "\n")


def checked(path: Path) -> Totals:
    """Return what the check of a file found."""
    with InputFile(path) as source:
        checking = Checking(source)
        for _ in checking.lines():
            pass
        return checking.totals


class Killed(Exception):
    """Stands for the end of the process."""


async def stored(ledger: Ledger, path: Path, *, die_at: int | None = None) -> BatchRecord:
    """Put a file into the ledger, as far as the process lives."""
    totals = checked(path)
    batches = Batches(None, "queue", ledger)
    batch = await batches.create(await batches.plan(Wanted(name=path.name), totals), "ann")

    def moved(lines: int) -> None:
        if lines == die_at:
            raise Killed

    with InputFile(path) as source:
        await upload(ledger, batch, source, totals, moved)
    return batch


async def custom_ids(ledger: Ledger, batch: BatchRecord) -> list[str]:
    """Let every item be begun, and return their custom ids in that order."""
    await ledger.batches.set_status(batch.id, BatchStatus.IN_PROGRESS, NOON)
    epoch = await ledger.batch_items.take_lane(batch.id, 0, "test")
    found = []
    while (claim := await ledger.batch_items.claim(batch.id, 0, epoch, 1000, NOON)).items:
        found += [item.custom_id for item in claim.items]
    return found


@pytest.mark.parametrize("die_at", [1, 500, 501, 1_100])
async def test_a_process_that_dies_while_it_stores_is_gone_on_with(
    ledger: Ledger, tmp_path: Path, die_at: int
) -> None:
    """Every item is there once, in the order of the input, whenever the first process ended."""
    write_input(tmp_path / "in.jsonl", 1_200)

    with pytest.raises(Killed):
        await stored(ledger, tmp_path / "in.jsonl", die_at=die_at)
    batch = await stored(ledger, tmp_path / "in.jsonl")

    assert 1_200 == batch.total
    assert [f"item-{number}" for number in range(1_200)] == await custom_ids(ledger, batch)


async def test_a_file_that_changes_while_it_is_read_is_refused(
    ledger: Ledger, tmp_path: Path
) -> None:
    """What is stored is what was checked: nothing of another content is added."""
    path = tmp_path / "in.jsonl"
    write_input(path, 1_200)
    totals = checked(path)
    batches = Batches(None, "queue", ledger)
    batch = await batches.create(await batches.plan(Wanted(name="in.jsonl"), totals), "ann")
    text = path.read_text()
    path.write_text(text.replace('"item-600"', '"item-six"'))

    with InputFile(path) as source, pytest.raises(InputChanged):
        await upload(ledger, batch, source, totals, lambda lines: None)

    # The first page of 500 lines, and the blank one in it: no byte of it was another one.
    assert 501 == await ledger.batch_items.next_index(batch.id)
    path.write_text(text)
    await stored(ledger, path)
    assert [f"item-{number}" for number in range(1_200)] == await custom_ids(ledger, batch)


async def test_a_name_stands_for_one_content(ledger: Ledger, tmp_path: Path) -> None:
    """The same name and content are the same batch; another content is refused."""
    write_input(tmp_path / "in.jsonl", 3)
    batch = await stored(ledger, tmp_path / "in.jsonl")
    same = await stored(ledger, tmp_path / "in.jsonl")
    write_input(tmp_path / "in.jsonl", 4)

    with pytest.raises(NameTaken) as taken:
        await stored(ledger, tmp_path / "in.jsonl")

    assert batch.id == same.id
    assert batch.id in taken.value.message


async def test_a_batch_is_found_by_its_name_and_its_id(ledger: Ledger, tmp_path: Path) -> None:
    """Whoever mistypes is told how to see which there are."""
    write_input(tmp_path / "in.jsonl", 3)
    batch = await stored(ledger, tmp_path / "in.jsonl")
    batches = Batches(None, "queue", ledger)

    assert batch.id == (await batches.find("in.jsonl")).id == (await batches.find(batch.id)).id
    for named in ("other.jsonl", "batch_other"):
        with pytest.raises(BatchNotFound):
            await batches.find(named)


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        (Wanted(name=""), "--name"),
        (Wanted(name="a" * 256), "--name"),
        (Wanted(name="a\nb"), "--name"),
        (Wanted(name="batch_mine"), "--name"),
        (Wanted(name="a", max_in_flight=0), "--max-in-flight"),
        (Wanted(name="a", max_in_flight=64_001), "--max-in-flight"),
        (Wanted(name="a", token_limit=0), "--max-tokens"),
    ],
)
def test_what_cannot_be_run_is_named(wanted: Wanted, param: str) -> None:
    """The error names the option and its limit."""
    with pytest.raises(InvalidRequest) as refused:
        wanted.check()

    assert param == refused.value.param


def test_options_that_a_batch_was_not_begun_with_are_told() -> None:
    """Those that were given, and differ; what was left to its default says nothing."""
    begun = Wanted(
        name="a",
        options={"rpm": 5.0, "tries": 7, "requested_by": "ann"},
        deadline=NOON,
        token_limit=10,
        max_in_flight=100,
    )
    batch = record(
        options=begun.stored_options(), deadline=begun.deadline, token_limit=begun.token_limit
    )
    plain = Wanted(name="a", options={"tries": 3, "requested_by": "bob"})
    other = Wanted(
        name="a",
        options={"rpm": 6.0, "tries": 4, "with_messages": True},
        deadline=NOON + timedelta(hours=1),
        token_limit=11,
        max_in_flight=10,
    )

    assert [] == begun.unlike(batch)
    assert [] == plain.unlike(batch)
    assert {
        "--rpm", "--tries", "--with-messages", "--deadline", "--max-tokens", "--max-in-flight",
    } == set(other.unlike(batch))  # fmt: skip


@pytest.mark.parametrize("most", [1, 2, 3, 64, 65, 2_000, 5_001, 64_000])
def test_lanes_hold_no_more_than_was_said(most: int) -> None:
    """However many may be in flight, lanes and their windows are within their limits."""
    options = Wanted(name="a", max_in_flight=most).stored_options()

    assert 1 <= options["lanes"] <= 64
    assert 1 <= options["window"] <= 1_000
    assert most - options["lanes"] < options["lanes"] * options["window"] <= most


async def end(ledger: Ledger, batch: BatchRecord, states: dict[int, ItemState]) -> None:
    """Begin what waits, and end these items; the others stay begun."""
    epoch = await ledger.batch_items.take_lane(batch.id, 0, f"{sorted(states)}")
    await ledger.batch_items.claim(batch.id, 0, epoch, 1000, NOON)
    outcomes = [
        (
            index,
            ItemOutcome(
                state=state,
                status_code=200,
                response='{"status":"completed"}' if state is ItemState.COMPLETED else None,
                error=None if state is ItemState.COMPLETED else '{"code":"x","message":"no"}',
                error_kind=None if state is ItemState.COMPLETED else "x",
                at=NOON,
            ),
        )
        for index, state in states.items()
    ]
    assert all(await ledger.batch_items.settle_many(batch.id, epoch, outcomes))


def ids(path: Path) -> list[str]:
    """Return the custom ids of a file of results."""
    return [json.loads(text)["custom_id"] for text in path.read_text().splitlines()]


async def test_results_follow_the_ledger_through_a_retry(ledger: Ledger, tmp_path: Path) -> None:
    """Partial at any time; a failure that is tried again leaves both files, and comes once."""
    write_input(tmp_path / "in.jsonl", 3)
    batch = await stored(ledger, tmp_path / "in.jsonl")
    await ledger.batches.set_status(batch.id, BatchStatus.IN_PROGRESS, NOON)
    out, errors = tmp_path / "out.jsonl", tmp_path / "err.jsonl"

    await end(ledger, batch, {2: ItemState.COMPLETED})
    results = Results(ledger, batch.id, out, errors)
    await results.follow()
    partial = ids(out)
    await end(ledger, batch, {0: ItemState.FAILED, 1: ItemState.COMPLETED})
    await results.follow()
    results.close()
    whole, failed = ids(out), ids(errors)
    await ledger.batch_items.retry_failed(batch.id)
    results = Results(ledger, batch.id, out, errors)
    await results.follow()
    without = ids(out)
    await end(ledger, batch, {0: ItemState.COMPLETED})
    await results.follow()
    results.close()

    assert ["item-2"] == partial
    assert ["item-2", "item-0", "item-1"] == whole
    assert ["item-0"] == failed
    assert ["item-2", "item-1"] == without
    assert ["item-2", "item-1", "item-0"] == ids(out)
    assert not errors.exists()


async def test_results_in_order_take_the_place_of_others(ledger: Ledger, tmp_path: Path) -> None:
    """The order of the input, and back again: what is asked for last is what stands there."""
    write_input(tmp_path / "in.jsonl", 3)
    batch = await stored(ledger, tmp_path / "in.jsonl")
    await ledger.batches.set_status(batch.id, BatchStatus.IN_PROGRESS, NOON)
    await end(ledger, batch, {2: ItemState.COMPLETED})
    await end(ledger, batch, {0: ItemState.FAILED, 1: ItemState.COMPLETED})
    out, errors = tmp_path / "out.jsonl", tmp_path / "err.jsonl"

    for in_order in (False, True, False):
        results = Results(ledger, batch.id, out, errors)
        await (results.write_in_order() if in_order else results.follow())
        results.close()
        by_end, by_line = ["item-2", "item-0", "item-1"], ["item-0", "item-1", "item-2"]
        assert (by_line if in_order else by_end) == ids(out), in_order
        assert ["item-0"] == ids(errors)


@pytest.mark.parametrize("forgotten", [[0, 4, 1], [1, 4, 1, 3, 0]])
async def test_results_follow_a_ledger_that_was_restored(
    ledger: Ledger, tmp_path: Path, forgotten: list[int]
) -> None:
    """The file tells of ends that the ledger has forgotten, and which came in another order since,
    or somebody has doubled a line in it: each line stands there once, and none is missing.
    """
    write_input(tmp_path / "in.jsonl", 5)
    batch = await stored(ledger, tmp_path / "in.jsonl")
    await ledger.batches.set_status(batch.id, BatchStatus.IN_PROGRESS, NOON)
    lines = [0, 1, 2, 5, 6]
    for number in (0, 4, 2, 3, 1):
        await end(ledger, batch, {lines[number]: ItemState.COMPLETED})
    known = {item.custom_id: item for item in await ledger.batch_items.results(batch.id, 0, 10)}
    out, errors = tmp_path / "out.jsonl", tmp_path / "err.jsonl"
    written = ResultsFile(out, batch.id)
    for seq, number in enumerate(forgotten, start=1):
        written.put([replace(known[f"item-{number}"], seq=seq)])
    written.close()
    results = Results(ledger, batch.id, out, errors)
    await results.follow()
    results.close()

    assert [f"item-{number}" for number in range(5)] == sorted(ids(out))
    assert not errors.exists()


async def test_a_batch_that_the_ledger_has_forgotten_is_not_begun_over_its_results(
    ledger: Ledger, tmp_path: Path
) -> None:
    """The ledger was restored from a copy of before it, say: all of it would run once more."""
    out, errors = tmp_path / "out.jsonl", tmp_path / "err.jsonl"
    write_input(tmp_path / "in.jsonl", 1)
    batch = await stored(ledger, tmp_path / "in.jsonl")
    await ledger.batches.set_status(batch.id, BatchStatus.IN_PROGRESS, NOON)
    await end(ledger, batch, {0: ItemState.FAILED})
    [item] = await ledger.batch_items.results(batch.id, 0, 10)
    for known, path in ((batch.id, out), ("batch_forgotten", tmp_path / "other.jsonl")):
        written = ResultsFile(path, known)
        written.write([replace(item, batch_id=known)])
        written.close()

    going_on = Results(ledger, batch.id, out, errors)
    await going_on.check_known()
    going_on.close()
    fresh = Results(ledger, "batch_fresh", tmp_path / "new.jsonl", errors)
    await fresh.check_known()
    fresh.close()
    forgotten = Results(ledger, "batch_forgotten", tmp_path / "other.jsonl", errors)
    with pytest.raises(ResultsLost, match="which the ledger doesn't know") as refused:
        await forgotten.check_known()
    forgotten.close()

    assert "other.jsonl" in refused.value.message
    assert 1 == len(ids(tmp_path / "other.jsonl"))
