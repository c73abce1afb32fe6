"""The benchmarks' table and verdict: a target that is missed can't be overlooked."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import conclude, main
from benchmarks.figures import BatchRow, Row, Target

FACTS = {"date": "2026-11-22", "processors": 2, "machine": "Linux", "runlane": "1", "quick": False}
REACHED = Row(
    subject="history", what="one tool round", unit="events", runlane=40, workflow=139,
    target=Target("at most 40", reached=True),
)  # fmt: skip
MISSED = replace(REACHED, runlane=41, target=Target("at most 40", reached=False))
PLAIN = replace(REACHED, runlane=12.34, target=None)


def test_all_targets_reached(capsys: pytest.CaptureFixture[str]) -> None:
    """Each figure stands in the table beside the baseline's, and the exit code is 0."""
    assert conclude([REACHED, PLAIN], FACTS, None) == 0

    shown = capsys.readouterr().out
    assert "one tool round, events" in shown
    assert "139" in shown
    assert "yes" in shown
    assert "NO" not in shown


def test_a_missed_target_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """One target missed among others is shown and makes the exit code 1."""
    assert conclude([REACHED, MISSED, PLAIN], FACTS, None) == 1
    assert "NO" in capsys.readouterr().out


def test_the_file_has_what_the_table_has(tmp_path: Path) -> None:
    """`--json` writes the machine and every row with its target."""
    file = tmp_path / "figures.json"

    conclude([MISSED, PLAIN], FACTS, file)

    written = json.loads(file.read_text())
    assert written["processors"] == 2
    assert written["rows"][0]["runlane"] == 41
    assert written["rows"][0]["target"] == {"text": "at most 40", "reached": False}
    assert written["rows"][1]["target"] is None


def test_the_table_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    """The longest figure there is, in all columns, is folded and not cut."""
    what = "cancel to upstream, beside 500 attached polls and 300 waiting runs"
    target = Target("at most 1.8, 3% of it", reached=False)
    row = Row(
        subject="submit", what=what, unit="s, median", runlane=123_456, workflow=234_567,
        loop_1s=345_678, loop_5s=456_789, target=target,
    )  # fmt: skip

    conclude([REACHED, row], FACTS, None)

    shown = capsys.readouterr().out
    assert max(len(line) for line in shown.splitlines()) <= 110
    for fact in (*what.split(), *target.text.split(), "123,456", "234,567", "345,678", "456,789"):
        assert fact in shown
    assert "…" not in shown
    assert "NO" in shown


def test_batches_have_a_table_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Rows that compare other ways stand below with those ways' names, and may miss targets."""
    target = Target("fewer than 0.5", reached=False)
    row = BatchRow(
        subject="batches", what="processor time, all but the upstream", unit="ms an item",
        runlane=123_456, postgres=234_567, run_each=345_678, script=456_789, dbos=567_890,
        dbos_postgres=0.0123, target=target,
    )  # fmt: skip

    assert conclude([row, REACHED], FACTS, None) == 1

    shown = capsys.readouterr().out
    assert max(len(line) for line in shown.splitlines()) <= 110
    for fact in ("DBOS,", "script", "123,456", "345,678", "567,890", "0.012", "fewer than", "NO"):
        assert fact in shown
    assert "…" not in shown
    assert shown.index("one tool round") > shown.index("567,890")
    assert shown.count("2026-11-22") == 1


def test_an_unknown_subject_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped subject is named, with those that there are."""
    with pytest.raises(SystemExit):
        main(["memroy"])

    assert "memroy" in capsys.readouterr().err
