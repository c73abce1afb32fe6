"""What is printed can't drive a terminal, and is as long as a person can read."""

import time

import pytest

from runlane.blocked import REMEDIES
from runlane.cli import approval_words, doctor, output, progress, shows
from runlane.doctor import Finding
from runlane.errors import ExitCode
from runlane.waiting_calls import WaitingCall
from runsapi import Run
from workflows.contract import (
    AnswerOutcome,
    AnswerView,
    BlockedKind,
    BlockedView,
    PendingCall,
    RunlaneView,
    RunView,
)


def _view(status: str, **known: object) -> RunView:
    run = Run.model_validate({"id": "run_1", "status": status})
    return RunView(run=run, runlane=RunlaneView.model_validate(known))


def _call(call_id: str = "call_1", arguments: str = "{}") -> PendingCall:
    return PendingCall(
        tool_call_id=call_id, name="lookup", arguments=arguments, arguments_digest="sha256:0"
    )


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "a\rb", "a\nb", "\x9b31m", "\u202eabc", "\x07", "\u2028"]
)
def test_nothing_from_outside_reaches_the_terminal_as_a_command(text: str) -> None:
    """Escapes, line ends and direction marks are shown, not obeyed."""
    shown = output.safe(text)

    assert shown.isprintable()
    assert "\\" in shown


def test_arguments_are_shortened_on_one_line() -> None:
    """However long and however many lines the model wrote."""
    shown = output.shortened('{"a":\n   "' + "x" * 500 + '"}')

    assert output.ARGUMENTS_SHOWN == len(shown)
    assert shown.startswith('{"a": "x')
    assert shown.endswith("…")


def test_an_odd_id_is_quoted_in_a_command_to_copy() -> None:
    """Nothing in an id runs in the shell of whoever copies the line."""
    [hint] = progress.how_to_answer(_view("requires_action", pending=[_call("x; rm -rf $HOME")]))

    assert "submit run_1 'x; rm -rf $HOME'=OUTPUT" in hint


def test_the_hint_names_every_call_that_waits() -> None:
    """Two calls, two answers, one command."""
    calls = [_call("a"), _call("b")]
    [hint] = progress.how_to_answer(_view("requires_action", pending=calls))

    assert "Waits for 2 answers. Give them:  runlane submit run_1 a=OUTPUT b=OUTPUT" == hint

    held = [_call(name).model_copy(update={"handled_by": "people"}) for name in ("c", "d")]
    hints = progress.how_to_answer(_view("requires_action", pending=[*calls, held[0]]))
    assert [hint, "Waits for a person's decision:  runlane approval show c"] == hints
    # What people have let run waits for nobody.
    runs = held[1].model_copy(update={"state": "running"})
    assert hints == progress.how_to_answer(
        _view("requires_action", pending=[*calls, held[0], runs])
    )
    [hint] = progress.how_to_answer(_view("requires_action", pending=held))
    assert "Waits for 2 decisions of people:  runlane approval list --run run_1" == hint


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("completed", ExitCode.DONE),
        ("requires_action", ExitCode.WAITING),
        ("failed", ExitCode.NOT_COMPLETED),
        ("cancelled", ExitCode.NOT_COMPLETED),
        ("expired", ExitCode.NOT_COMPLETED),
        ("incomplete", ExitCode.NOT_COMPLETED),
    ],
)
def test_a_waits_exit_code_is_the_runs_status(status: str, code: ExitCode) -> None:
    """Scripts tell completed, waiting and otherwise ended apart."""
    assert code == progress.exit_code(_view(status))


def test_an_answer_that_was_not_used_is_said() -> None:
    """Somebody gave it, and would otherwise believe that it counted."""
    unused = AnswerView(
        tool_call_id="call_1",
        name="lookup",
        attempt=1,
        round=1,
        outcome=AnswerOutcome.UNUSED,
        output_digest="sha256:0",
    )

    (line,) = progress.closing_lines(_view("completed", answers=[unused]))

    assert "call_1 (lookup) was not used: the run ended without asking for it again" in line


def test_what_hinders_a_run_is_said() -> None:
    """Blocked, parked and retrying runs say so, and why."""
    blocked = BlockedView(kind=BlockedKind.QUOTA, message="no money left", since_at=0)
    view = _view("in_progress", blocked=blocked, parked=True, retrying="429\nslow down")

    remarks = progress.remarks(view)

    assert ["parked", "blocked", "trying again"] == [remark.split(":")[0] for remark in remarks]
    assert remarks[2].endswith("429 slow down")


def test_an_upstreams_own_status_word_drives_no_terminal() -> None:
    """A status may be any word of the upstream's own, control characters included."""
    attempts = [{"attempt": 1, "upstream_run_id": "run_up", "status": "\x1b[2J"}]

    shown = dict(shows._long(_view("in_progress", attempts=attempts)))

    assert "\x1b" not in shown["attempt 1"]


def test_a_time_names_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads it elsewhere knows when it was."""
    try:
        for zone, shown in (("UTC", "01:14:05+00:00"), ("XXX-5:30", "06:44:05+05:30")):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert f"2026-11-23 {shown}" == output.moment(1_795_396_445)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("kind", BlockedKind)
def test_remedies_fit_and_their_commands_can_be_copied(kind: BlockedKind) -> None:
    """However a remedy is folded, no command in it is."""
    lines = output.folded(f"{kind}: {REMEDIES[kind]}")

    assert max(len(line) for line in lines) <= output.FOLDED_WIDTH
    assert f"{kind}: {REMEDIES[kind]}" == " ".join(lines)
    for command in ("runlane nudge --blocked --kind quota", "runlane up --simulate"):
        assert (command in REMEDIES[kind]) == any(command in line for line in lines)


def test_findings_are_folded_below_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    """However long a finding is, its lines stand in one column, and its command in one line."""
    command = "temporal workflow terminate -w run_72NSQXNBJTD7GISGNR2K7H7C"
    finding = Finding("workflow tasks", "problem", "word " * 40, f"{'word ' * 6}{command}, then")

    doctor._print_finding(finding)

    first, *more = capsys.readouterr().out.splitlines()
    assert first.startswith("problem workflow tasks    word")
    assert all(line.startswith(" " * 26 + line.strip()[:1]) for line in more)
    assert max(len(line) for line in (first, *more)) <= output.FOLDED_WIDTH
    assert any(command in line for line in more)


def test_the_next_person_sees_the_arguments_that_others_have_edited(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All must approve the same, so the command for the call's own would be refused."""
    call = _call(arguments='{"amount": 250}').model_copy(
        update={"handled_by": "people", "approved_by": ["ann"]}
    )
    edited = call.model_copy(update={"approved_arguments": '{"amount": 150}'})

    approval_words.show(WaitingCall("run_1", call))
    plain = capsys.readouterr().out
    approval_words.show(WaitingCall("run_1", edited))
    shown = capsys.readouterr().out

    assert "--arguments" not in plain
    assert "edited arguments, approved by ann" in shown
    assert '"amount": 150' in shown
    assert "runlane approval approve call_1 --arguments FILE" in shown
