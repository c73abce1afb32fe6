"""A file of results says by itself how far it has come, whatever happened to who wrote it."""

import json
import resource
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ledger.batch_item import Item, ItemState
from ledger.run_record import Usage
from runlane.batches.outputs import ResultsFile, ResultsLost, encoded, line_of

BATCH = "batch_1"
NO_USAGE = Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)


def item(seq: int, **changes: Any) -> Item:
    """Return an item that has ended, as a page of results has it."""
    fields: dict[str, Any] = {
        "batch_id": BATCH,
        "index": seq * 10,
        "custom_id": f"ticket-{seq}",
        "thread_id": None,
        "digest": "sha256:" + "0" * 64,
        "state": ItemState.COMPLETED,
        "lane": 0,
        "epoch": 1,
        "not_before": None,
        "tries": 0,
        "generation": 1,
        "attempt": 1,
        "run_id": f"run_{seq}",
        "intended_at": datetime(2026, 1, 1, tzinfo=UTC),
        "made_thread": "thread_1",
        "upstream_run_id": "run_upstream",
        "seq": seq,
        "status_code": 200,
        "error_kind": None,
        "response_digest": None,
        "usage": NO_USAGE,
        "ended_at": datetime(2026, 1, 1, tzinfo=UTC),
        "response": '{"status":"completed"}',
    }
    return Item(**(fields | changes))


def failed(seq: int, **changes: Any) -> Item:
    """Return an item that has ended otherwise than completed."""
    error = '{"code":"server_error","message":"no"}'
    return item(seq, state=ItemState.FAILED, error=error, **changes)


def seqs(path: Path) -> list[int]:
    """Return the numbers of the lines of a file, every one of which is JSON."""
    return [json.loads(text)["runlane"]["seq"] for text in path.read_text().splitlines()]


def test_a_line_has_the_shape_of_openais() -> None:
    """Its keys are those of the Batch API, and beside them the input's digest and ours."""
    line = line_of(item(3))

    assert line.pop("id").startswith("batch_req_")
    assert {
        "custom_id": "ticket-3",
        "response": {"status_code": 200, "request_id": "run_3", "body": {"status": "completed"}},
        "error": None,
        "input_digest": "sha256:" + "0" * 64,
        "runlane": {
            "batch_id": BATCH,
            "line": 31,
            "seq": 3,
            "state": "completed",
            "run_id": "run_3",
        },
    } == line


def test_a_request_that_was_refused_has_the_answer_it_got() -> None:
    """The error stands in the body, as the upstream would have sent it, and beside it."""
    line = line_of(failed(1, status_code=400, response=None))

    error = {"code": "server_error", "message": "no"}
    assert {"status_code": 400, "request_id": "run_1", "body": {"error": error}} == line["response"]
    assert error == line["error"]


def test_what_never_began_has_no_response() -> None:
    """Nobody answered, and the error says why."""
    line = line_of(failed(1, status_code=None, response=None, run_id=None))

    assert (None, "server_error") == (line["response"], line["error"]["code"])


def test_what_was_erased_says_so() -> None:
    """A line stays a line when its contents are gone."""
    assert "erased" == line_of(item(1, response=None))["error"]["code"]


@pytest.mark.parametrize(
    ("state", "kind", "message"),
    [
        (ItemState.EXPIRED, "batch_expired", "The batch's deadline came first."),
        (ItemState.CANCELLED, "batch_cancelled", "The batch was cancelled first."),
        (ItemState.UNCERTAIN, "create_uncertain", "Nobody has read what came of its create."),
    ],
)
def test_what_the_ledger_ended_by_itself_says_why(
    state: ItemState, kind: str, message: str
) -> None:
    """No lane has told an error, and nothing of it was erased."""
    ended = item(1, state=state, error_kind=kind, status_code=None, response=None, run_id=None)

    line = line_of(ended)

    assert (None, {"code": kind, "message": message}) == (line["response"], line["error"])


def test_a_run_that_was_cancelled_and_erased_says_that_it_was_erased() -> None:
    """There was an answer, as its digest shows; it is gone."""
    digest = "sha256:" + "1" * 64
    ended = item(
        1,
        state=ItemState.CANCELLED,
        error_kind="batch_cancelled",
        response=None,
        response_digest=digest,
    )

    assert "erased" == line_of(ended)["error"]["code"]


def test_an_item_that_is_retried_has_another_id() -> None:
    """A line is one request, and a retry is another one; the same line is always the same."""
    assert line_of(item(1))["id"] == line_of(item(1))["id"]
    assert line_of(item(1))["id"] != line_of(item(1, generation=2))["id"]


def test_any_text_of_a_model_is_one_line() -> None:
    """A broken emoji, a line separator and a NUL don't break the file."""
    broken = json.dumps({"text": "\ud83d \u2028 \0 \n"})

    line = encoded(item(1, response=broken))

    assert 1 == line.count(b"\n")
    assert "\ud83d \u2028 \0 \n" == json.loads(line)["response"]["body"]["text"]


@pytest.mark.parametrize("cut", [1, 20, 100, 250])
def test_a_file_goes_on_behind_its_last_whole_line(cut: int, tmp_path: Path) -> None:
    """Whatever a kill left of a line is taken away, and the line is written again."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(encoded(item(1)) + encoded(item(2))[:cut])

    file = ResultsFile(path, BATCH)
    assert (1, 1) == (file.lines, file.last_seq)
    file.write([item(1), item(2), item(5)])
    file.close()

    assert [1, 2, 5] == seqs(path)


def test_a_first_line_that_is_cut_off_is_written_again(tmp_path: Path) -> None:
    """A kill within the first line leaves a file that is ours."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(encoded(item(1))[:7])

    file = ResultsFile(path, BATCH)
    file.write([item(1)])
    file.close()

    assert [1] == seqs(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"my notes", "something else"),
        (b"my notes\n", "something else"),
        (b'{"custom_id": "a", "method": "POST"}\n', "something else"),
        (encoded(item(1, batch_id="batch_2")), "results of batch_2, another batch"),
        (b"\n", "something else"),
        (b"[]\n", "something else"),
    ],
)
def test_what_is_not_ours_is_left_alone(content: bytes, what: str, tmp_path: Path) -> None:
    """Another batch's results, the input itself or somebody's notes are never written to."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)

    with pytest.raises(ResultsLost) as refused:
        ResultsFile(path, BATCH)

    assert f"holds {what}; nothing in it was changed" in refused.value.message
    assert content == path.read_bytes()


def test_failures_have_a_file_of_their_own(tmp_path: Path) -> None:
    """Only what has not completed is in it; without any there is no file."""
    path = tmp_path / "errors.jsonl"
    file = ResultsFile(path, BATCH, failed_only=True)
    file.write([item(1)])
    file.close()
    assert not path.exists()

    file = ResultsFile(path, BATCH, failed_only=True)
    file.write([item(1), failed(2), item(3)])
    file.close()

    assert [2] == seqs(path)


def test_a_file_can_be_written_anew_beside_itself(tmp_path: Path) -> None:
    """Until the new one is whole, the old one stands; then it goes on in its place."""
    path = tmp_path / "out.jsonl"
    old = ResultsFile(path, BATCH)
    old.write([failed(1), item(2)])

    new = old.begin_anew()
    new.write([item(2), item(3, index=10)])
    assert [1, 2] == seqs(path)
    new.take_place_of(old)
    new.write([item(4)])
    new.close()

    assert [2, 3, 4] == seqs(path)
    assert ["out.jsonl"] == [each.name for each in tmp_path.iterdir()]


def test_what_lies_where_a_file_is_written_anew_is_left_alone(tmp_path: Path) -> None:
    """It may be somebody's; what another command of this batch has left there is written over."""
    path, beside = tmp_path / "out.jsonl", tmp_path / "out.jsonl.new"
    left, theirs = encoded(item(1)) + encoded(item(2))[:9], b"precious\n"
    file = ResultsFile(path, BATCH)
    file.write([item(1), item(2)])

    beside.write_bytes(theirs)
    with pytest.raises(ResultsLost, match=r"out\.jsonl\.new holds something else"):
        file.begin_anew()
    kept = beside.read_bytes()
    beside.write_bytes(left)
    anew = file.begin_anew()
    anew.write([item(2), item(3)])
    anew.take_place_of(file)
    anew.close()

    assert theirs == kept
    assert [2, 3] == seqs(path)
    assert not beside.exists()


def test_a_link_stays_one(tmp_path: Path) -> None:
    """What it leads to is written, also anew."""
    (tmp_path / "there").mkdir()
    path, link = tmp_path / "there" / "out.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(path)

    file = ResultsFile(link, BATCH)
    file.write([item(1)])
    anew = file.begin_anew()
    anew.write([item(2)])
    anew.take_place_of(file)
    anew.close()

    assert link.is_symlink()
    assert [2] == seqs(path)
    assert {path} == set(path.parent.iterdir())


def test_a_file_that_was_replaced_while_it_was_opened_is_not_written(tmp_path: Path) -> None:
    """Another command has put a new one into its place: what is written to the old one is lost."""
    path = tmp_path / "out.jsonl"
    first = ResultsFile(path, BATCH)
    first.write([item(1)])

    replaced: list[ResultsFile] = []

    class Late(ResultsFile):
        def _hold(self) -> None:
            anew = first.begin_anew()
            anew.take_place_of(first)
            replaced.append(anew)
            super()._hold()

    with pytest.raises(ResultsLost, match="Another command is writing"):
        Late(path, BATCH)

    replaced[0].close()


def test_two_commands_never_write_to_one_file(tmp_path: Path) -> None:
    """The second one is told, and changes nothing."""
    file = ResultsFile(tmp_path / "out.jsonl", BATCH)

    with pytest.raises(ResultsLost) as refused:
        ResultsFile(tmp_path / "out.jsonl", BATCH)

    assert "Another command is writing" in refused.value.message
    file.close()


def test_a_disk_without_room_is_said_in_words_and_gone_on_from(tmp_path: Path) -> None:
    """What fits is kept; with room again, the file goes on as if nothing had been."""
    path = tmp_path / "out.jsonl"
    size = len(encoded(item(1)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel refuses what goes beyond, as a full disk does, once nobody is killed for it.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    file = ResultsFile(path, BATCH)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * size + 50, before[1]))
        with pytest.raises(ResultsLost) as lost:
            file.write([item(seq) for seq in range(1, 6)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
        file.close()

    assert str(path) in lost.value.message
    assert "nothing is lost" in lost.value.message
    assert path.stat().st_size == 2 * size + 50
    file = ResultsFile(path, BATCH)
    assert 2 == file.last_seq
    file.write([item(seq) for seq in range(1, 6)])
    file.close()
    assert [1, 2, 3, 4, 5] == seqs(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A directory that isn't there, or a path that is one."""
    for path in (tmp_path / "no" / "out.jsonl", tmp_path):
        with pytest.raises(ResultsLost) as refused:
            ResultsFile(path, BATCH)
        assert str(path) in refused.value.message
