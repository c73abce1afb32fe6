"""Results on a disk that is full: said in words, and gone on from, in each of the files."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledger import Ledger
from ledger.batch_item import ItemState
from ledger.batch_record import BatchRecord, BatchStatus
from runlane.batches.outputs import ResultsLost
from runlane.batches.results import Results
from tests.unit.test_batch_running import NOON, end, ids, stored, write_input

COUNT = 6


@contextmanager
def room(size: int) -> Iterator[None]:
    """Let no file grow beyond a size: the kernel refuses it as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Nobody is to be killed for it.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
async def failed(ledger: Ledger, tmp_path: Path) -> BatchRecord:
    """A batch whose lines have all failed, the last one first."""
    write_input(tmp_path / "in.jsonl", COUNT)
    batch = await stored(ledger, tmp_path / "in.jsonl")
    await ledger.batches.set_status(batch.id, BatchStatus.IN_PROGRESS, NOON)
    # Line 4 is blank, and line 5 can't be used.
    await end(ledger, batch, dict.fromkeys((7, 6, 5, 2, 1, 0), ItemState.FAILED))
    return batch


async def test_failures_are_gone_on_with(
    ledger: Ledger, failed: BatchRecord, tmp_path: Path
) -> None:
    """Their file is full first. With room again it is whole, and so are the results."""
    out, errors = tmp_path / "out.jsonl", tmp_path / "err.jsonl"
    results = Results(ledger, failed.id, out, errors)

    with room(1_500), pytest.raises(ResultsLost, match=r"results to .*err\.jsonl:") as lost:
        await results.follow()
    results.close()
    left = errors.stat().st_size
    results = Results(ledger, failed.id, out, errors)
    await results.follow()
    results.close()

    assert 1_500 == left
    assert "nothing is lost" in lost.value.message
    expected = [f"item-{number}" for number in reversed(range(COUNT))]
    assert expected == ids(out) == ids(errors)


async def test_what_stood_there_stays_where_the_ordered_ones_have_no_room(
    ledger: Ledger, failed: BatchRecord, tmp_path: Path
) -> None:
    """Those in the order of the input take the place of the others whole, or not at all."""
    out, errors = tmp_path / "out.jsonl", tmp_path / "err.jsonl"
    results = Results(ledger, failed.id, out, errors)
    await results.follow()
    before = out.read_bytes()

    with room(1_500), pytest.raises(ResultsLost, match=r"results to .*\.new:") as lost:
        await results.write_in_order()
    results.close()
    kept = out.read_bytes(), errors.read_bytes()
    names = {path.name for path in tmp_path.glob("*.jsonl*")}
    results = Results(ledger, failed.id, out, errors)
    await results.write_in_order()
    results.close()

    assert "nothing is lost" in lost.value.message
    assert (before, before) == kept
    assert {"in.jsonl", "out.jsonl", "err.jsonl"} == names
    expected = [f"item-{number}" for number in range(COUNT)]
    assert expected == ids(out) == ids(errors)
