"""What people hand to `runlane batch run` by mistake: it is said, and no file is lost."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runlane.batches.places import INPUT, check
from runlane.cli.app import run
from runlane.errors import ExitCode, InvalidRequest


def line(number: int = 1, **changes: Any) -> bytes:
    """Return a line that can be used, with these fields."""
    body = {"assistant_id": "asst_1", "thread": {"messages": [{"role": "user", "content": "Hi"}]}}
    fields = {
        "custom_id": f"ticket-{number}",
        "method": "POST",
        "url": "/v1/threads/runs",
        "body": body,
        **changes,
    }
    return json.dumps(fields).encode() + b"\n"


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has a directory of its own, and no Temporal to reach."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    return tmp_path


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def batch_run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the command; returns its exit code and its words on standard error."""

    def call(*words: str) -> tuple[int, str]:
        code = run(["batch", "run", *words])
        return code, capfd.readouterr().err

    return call


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("bom.jsonl", b"\xef\xbb\xbf" + line(), 1),
        ("crlf.jsonl", line(1).replace(b"\n", b"\r\n") + b"\r\n" + line(2), 2),
        ("no_end.jsonl", line().rstrip(b"\n"), 1),
        ("plain.jsonl.gz", line(), 1),
        ("packed.jsonl", gzip.compress(line(1) + line(2)), 2),
        ("emoji.jsonl", line(custom_id="\N{TICKET}-1"), 1),
    ],
)
def test_a_file_is_read_whatever_wrote_it(
    name: str, content: bytes, count: int, batch_run: Run
) -> None:
    """Windows' marks and line ends, a last line without one, gzip by its bytes and not its name."""
    Path(name).write_bytes(content)
    code, _ = batch_run(name, "--dry-run")

    assert ExitCode.DONE == code
    assert not Path(f"{name}.problems.jsonl").exists()


def test_all_items_of_a_packed_file_are_counted(capfd: pytest.CaptureFixture[str]) -> None:
    """By the document that programs read."""
    Path("packed.jsonl").write_bytes(gzip.compress(line(1) + line(2)))
    run(["batch", "run", "packed.jsonl", "--dry-run", "--json"])

    assert 2 == json.loads(capfd.readouterr().out)["items"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (line().replace(b"Hi", b"\xff"), "line 1: It is not JSON in UTF-8"),
        (line().decode().encode("utf-16"), "line 1: It is not JSON in UTF-8"),
        (line()[:-20], "line 1: It is not JSON in UTF-8"),
        (line(body={"assistant_id": "a", "temperature": float("nan")}), "It is not JSON in UTF-8"),
        (line(1) + line(1), "line 2: custom_id stands in line 1 already."),
        (line().replace(b'"method"', b'"custom_id": "b", "method"'), "'custom_id' stands twice"),
        (line().replace(b'"thread"', b'"assistant_id": "b", "thread"'), "'assistant_id' stands"),
        (line(custom_id="a\0b"), "line 1: custom_id can't hold control characters."),
        (gzip.compress(line() * 9)[:-12], "The gzip data is damaged or cut off here."),
    ],
)
def test_a_line_that_can_not_be_used_is_told(content: bytes, words: str, batch_run: Run) -> None:
    """With its number and the reason, on one line each, and what to do about it."""
    Path("in.jsonl").write_bytes(content)
    code, said = batch_run("in.jsonl")

    assert ExitCode.BAD_INPUT == code
    assert words in said
    assert "nothing was sent. Mend them, or go on without them:  --skip-invalid\n" in said
    assert Path("in.jsonl.problems.jsonl").read_text().splitlines()
    assert content == Path("in.jsonl").read_bytes()


def test_a_schedule_takes_only_whole_files(capfd: pytest.CaptureFixture[str]) -> None:
    """It isn't told of an option that its command doesn't have."""
    Path("in.jsonl").write_bytes(line() + b"[]\n")
    code = run(["schedule", "create", "nightly", "--batch", "in.jsonl", "--cron", "@daily"])
    said = capfd.readouterr().err

    assert ExitCode.BAD_INPUT == code
    assert "1 line of in.jsonl can't be used; nothing was sent. Mend them.\n" in said
    assert "--skip-invalid" not in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("directory", "Can't read directory: Is a directory."),
        (".", "Can't read .: Is a directory."),
        ("missing.jsonl", "Can't read missing.jsonl: No such file or directory."),
        ("empty.jsonl", "empty.jsonl holds no line that can be used; nothing was sent."),
        ("blank.jsonl", "blank.jsonl holds no line that can be used; nothing was sent."),
        ("pipe", "Can't read pipe: it is read twice, which a pipe can't be. Write it to a file"),
        ("-", "INPUT can't be standard input, for it is read twice. Write it to a file first."),
    ],
)
def test_what_is_no_input_is_said(name: str, words: str, batch_run: Run) -> None:
    """At once, with the file's name; a pipe that nobody writes to keeps nobody waiting."""
    Path("directory").mkdir()
    Path("empty.jsonl").touch()
    Path("blank.jsonl").write_bytes(b"\n  \n\r\n\n")
    os.mkfifo("pipe")
    code, said = batch_run(name)

    assert ExitCode.BAD_INPUT == code
    assert words in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "in.jsonl"], "--output and INPUT are one file, in.jsonl"),
        (["-o", "link.jsonl"], "--output and INPUT are one file, link.jsonl"),
        (["-o", "./sub/../in.jsonl"], "--output and INPUT are one file"),
        (["-o", "a.jsonl", "--errors", "in.jsonl"], "--errors and INPUT are one file, in.jsonl"),
        (["--problems", "in.jsonl"], "--problems and INPUT are one file, in.jsonl"),
        (["-o", "a.jsonl", "--errors", "a.jsonl"], "--errors and --output are one file, a.jsonl"),
        (["-o", "a.jsonl", "--problems", "a.jsonl"], "--output and --problems are one file"),
        (["-o", "none/a.jsonl"], "--output: there is no directory none."),
        (["-o", "a.jsonl", "--errors", "none/a"], "--errors: there is no directory none."),
        (["--problems", "none/a"], "--problems: there is no directory none."),
        (["-o", "sub"], "--output: sub is a directory. Name a file."),
        (["-o", "."], "--output: . is a directory. Name a file."),
        (["-o", ""], "--output: . is a directory. Name a file."),
        (["-o", "/"], "--output: / is a directory. Name a file."),
    ],
)
def test_a_place_that_can_not_be_is_refused_before_anything_is_written(
    words: list[str], said: str, batch_run: Run
) -> None:
    """The input is as it was, though a line of it is bad; nothing else is made."""
    content = line(1) + b"[]\n"
    Path("in.jsonl").write_bytes(content)
    Path("link.jsonl").symlink_to("in.jsonl")
    Path("sub").mkdir()
    before = sorted(Path().iterdir())
    code, told = batch_run("in.jsonl", *words)

    assert ExitCode.BAD_INPUT == code
    assert said in told
    assert content == Path("in.jsonl").read_bytes()
    assert before == sorted(Path().iterdir())


def test_places_may_be_missing() -> None:
    """Files that nobody wants are in nobody's way; the input's own place is looked at later."""
    check({INPUT: Path("nowhere/in.jsonl"), "--output": None, "--errors": Path("a.jsonl")})
    with pytest.raises(InvalidRequest, match="--errors"):
        check({"--output": Path("a.jsonl"), "--errors": Path("a.jsonl")})
