"""What people type is read as they mean it, or refused in words."""

import io
import json
from datetime import timedelta
from pathlib import Path

import pytest

from runlane.cli import inputs
from runlane.errors import InvalidRequest


def test_an_answer_may_hold_anything_after_its_first_equals_sign() -> None:
    """JSON, equals signs and line ends pass unharmed."""
    given = inputs.answers(['call_1={"a": "b=c"}', "call_2=", "call_3=two\nlines"], None)

    assert [
        {"tool_call_id": "call_1", "output": '{"a": "b=c"}'},
        {"tool_call_id": "call_2", "output": ""},
        {"tool_call_id": "call_3", "output": "two\nlines"},
    ] == given


def test_an_answer_comes_from_a_file_by_an_at_sign(tmp_path: Path) -> None:
    """`@FILE` is the file's text as it is; `@@` is a plain at sign."""
    file = tmp_path / "answer.txt"
    file.write_text("grüße\n", encoding="utf-8")

    given = inputs.answers([f"call_1=@{file}", "call_2=@@here"], None)

    assert [
        {"tool_call_id": "call_1", "output": "grüße\n"},
        {"tool_call_id": "call_2", "output": "@here"},
    ] == given


@pytest.mark.parametrize("pair", ["call_1", "=output", ""])
def test_an_answer_without_its_call_is_refused(pair: str) -> None:
    """The form is repeated in the refusal."""
    with pytest.raises(InvalidRequest, match="CALL_ID=OUTPUT"):
        inputs.answers([pair], None)


@pytest.mark.parametrize(
    ("pairs", "hint"),
    [
        (["run_1"], "The run's id comes first"),
        (["call_1={state:", "shipped}"], "Quote an output"),
    ],
)
def test_a_common_mistake_in_an_answer_is_named(pairs: list[str], hint: str) -> None:
    """Arguments in the wrong order, and JSON without quotes."""
    with pytest.raises(InvalidRequest, match=hint):
        inputs.answers(pairs, None)


def test_no_answer_at_all_is_refused() -> None:
    """The three ways of giving one are named."""
    with pytest.raises(InvalidRequest, match="--outputs FILE"):
        inputs.answers([], None)


def test_a_submit_body_is_read_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` stands for standard input."""
    body = {"tool_outputs": [{"tool_call_id": "call_1", "output": "x"}]}
    stdin = io.TextIOWrapper(io.BytesIO(json.dumps(body).encode()))
    monkeypatch.setattr("sys.stdin", stdin)

    assert body["tool_outputs"] == inputs.answers([], "-")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ('{"tool_outputs": {}}', "tool_outputs"),
        ('{"outputs": []}', "outputs is not"),
    ],
)
def test_a_bad_submit_body_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    """Whatever is wrong with it is said."""
    file = tmp_path / "body.json"
    file.write_text(text)

    with pytest.raises(InvalidRequest, match=problem):
        inputs.answers([], str(file))


def test_a_file_that_is_not_there_is_bad_input() -> None:
    """The name is repeated."""
    with pytest.raises(InvalidRequest, match=r"nowhere\.json: No such file"):
        inputs.json_object("nowhere.json", "--params")


def test_a_file_that_is_not_text_is_bad_input(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 never become an answer."""
    file = tmp_path / "picture.png"
    file.write_bytes(b"\x89PNG\xff")

    with pytest.raises(InvalidRequest, match="UTF-8"):
        inputs.read_text(str(file), "--params")


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("4h", 14_400), ("90d", 7_776_000), ("7", 7)]
)
def test_times_are_read_with_and_without_unit(text: str, seconds: int) -> None:
    """Bare numbers are seconds."""
    assert timedelta(seconds=seconds) == inputs.duration(text, "--timeout")


def test_a_bad_time_names_its_option() -> None:
    """The refusal shows how times are written."""
    with pytest.raises(InvalidRequest, match="30s") as refused:
        inputs.duration("soon", "--timeout")

    assert "--timeout" == refused.value.param


def test_metadata_is_read_pair_by_pair() -> None:
    """A value may be empty or hold equals signs; a key comes once."""
    assert {"a": "1", "b": "", "c": "x=y"} == inputs.metadata(["a=1", "b=", "c=x=y"])
    for pairs in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(InvalidRequest):
            inputs.metadata(pairs)
