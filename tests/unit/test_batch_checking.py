"""Every line of an input is checked before anything is sent; the reason names field and limit."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import runlane
from runlane.batches.checked_line import CheckedLine, Problem, check
from runlane.batches.checking import Checking
from runlane.batches.lines import InputFile, Line
from runlane.tools.registry import Registry

ASSISTANT = {"assistant_id": "asst_1"}
NEW_THREAD = "/v1/threads/runs"


def line(number: int = 1, /, **changes: Any) -> Line:
    """Return a usable line with these fields changed; None takes one out."""
    fields = {"custom_id": "a", "method": "POST", "url": NEW_THREAD, "body": ASSISTANT} | changes
    kept = {name: value for name, value in fields.items() if value is not None}
    return Line(number, json.dumps(kept).encode())


def test_a_line_for_a_new_thread_keeps_the_thread_in_its_body() -> None:
    """The body is what was given; nobody's thread is named."""
    body = ASSISTANT | {
        "thread": {"messages": [{"role": "user", "content": "Where is it?"}]},
        "metadata": {"ticket": "7"},
    }
    given = line(body=body)

    assert CheckedLine(1, "a", None, body, given.digest()) == check(given)


def test_a_line_for_a_thread_names_it() -> None:
    """The thread's id is the one in the url."""
    found = check(line(url="/v1/threads/thread_7/runs"))

    assert isinstance(found, CheckedLine)
    assert "thread_7" == found.thread_id


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"custom_id": None}, "custom_id is required."),
        ({"custom_id": 7}, "custom_id must be a string of 1 to 255 characters."),
        ({"custom_id": ""}, "custom_id must be a string of 1 to 255 characters."),
        ({"custom_id": "a" * 256}, "custom_id must be a string of 1 to 255 characters."),
        ({"custom_id": "a\n"}, "custom_id can't hold control characters."),
        ({"method": "GET"}, "method must be POST."),
        ({"url": 1}, "url must be a string."),
        (
            {"url": "/v1/responses"},
            "url must be /v1/threads/runs or /v1/threads/ID/runs, not '/v1/responses'.",
        ),
        ({"url": "/v1/threads/%2e%2e/runs"}, "url: thread_id can't hold any of"),
        ({"body": []}, "body must be an object."),
        ({"body": {}}, "body.assistant_id is required."),
        ({"body": {"assistant_id": 1}}, "body.assistant_id must be a string, got a number."),
        ({"body": ASSISTANT | {"temperature": 3.0}}, "body.temperature must be between 0 and 2"),
        ({"body": ASSISTANT | {"instuctions": "x"}}, "body.instuctions is not a parameter"),
        ({"body": ASSISTANT | {"stream": True}}, "body.stream can't be true in a batch"),
        ({"body": ASSISTANT | {"metadata": {"runlane_x": "1"}}}, "body.metadata keys that begin"),
        ({"body": ASSISTANT | {"thread": []}}, "body.thread must be an object."),
        ({"body": ASSISTANT | {"thread": {"id": "t"}}}, "body.thread.'id' is not a parameter"),
        (
            {"body": ASSISTANT | {"thread": {"messages": [{"role": "system", "content": "x"}]}}},
            "body.thread.messages[0].role must be 'user' or 'assistant'.",
        ),
        (
            {"body": ASSISTANT | {"thread": {"metadata": {str(n): "" for n in range(17)}}}},
            "body.thread.metadata must have at most 16 pairs, got 17.",
        ),
        (
            {"body": ASSISTANT | {"thread": {"tool_resources": {"x": "y" * 2 * 10**6}}}},
            "body.thread has",
        ),
        ({"body": ASSISTANT | {"instructions": "x" * 256_001}}, "body.instructions must have"),
        (
            {
                "url": "/v1/threads/t/runs",
                "body": ASSISTANT | {"thread": {}},
            },
            "body.thread is not a parameter",
        ),
        ({"priority": 1}, "'priority' is not a field of a line"),
    ],
)
def test_what_cannot_be_used_is_named(changes: dict[str, Any], reason: str) -> None:
    """The reason names the field and its limit."""
    found = check(line(9, **changes))

    assert isinstance(found, Problem)
    assert 9 == found.line
    assert reason in found.reason


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{", "It is not JSON in UTF-8: EOF while parsing an object at byte 1."),
        (b'{"custom_id": "\xff"}', "It is not JSON in UTF-8"),
        (b'{"custom_id": "\\ud800"}', "It is not JSON in UTF-8"),
        (b'{"custom_id": NaN}', "It is not JSON in UTF-8"),
        (b"[" * 100_000, "It is not JSON in UTF-8: recursion limit"),
        (b"[]", "It must be a JSON object."),
        (b"null", "It must be a JSON object."),
    ],
)
def test_what_is_no_json_says_where(raw: bytes, reason: str) -> None:
    """Something that isn't JSON, or has no UTF-8, is a problem of its line."""
    found = check(Line(3, raw))

    assert isinstance(found, Problem)
    assert reason in found.reason


def test_what_is_added_to_every_line_is_checked_with_it() -> None:
    """Tools come after a line's own; where they don't fit, the line is told."""
    registry = Registry.of(look)
    tool = {"type": "function", "function": {"name": "look"}}

    alone = check(line(), registry.added_to)
    twice = check(line(body=ASSISTANT | {"tools": [tool]}), registry.added_to)
    wrong = check(line(body=ASSISTANT | {"tools": "look"}), registry.added_to)

    assert isinstance(alone, CheckedLine)
    assert ["look"] == [each["function"]["name"] for each in alone.body["tools"]]
    assert isinstance(twice, Problem)
    assert "body: The tool look is given in tools, and registered too." in twice.reason
    assert isinstance(wrong, Problem)
    assert "body.tools must be a list" in wrong.reason


@runlane.tool(policy="auto")
def look(order_id: str) -> str:
    """Look an order up."""
    return order_id


def test_no_content_stands_in_a_reason() -> None:
    """A report may be shown to whoever may not read the requests."""
    secret = "my card is 4111"
    bodies: list[dict[str, Any]] = [
        ASSISTANT | {"instructions": [secret]},
        ASSISTANT | {"metadata": {"a": secret * 100}},
        ASSISTANT | {"thread": {"messages": [{"role": secret, "content": secret}]}},
        ASSISTANT | {"response_format": secret},
    ]

    for body in bodies:
        found = check(line(body=body))
        assert isinstance(found, Problem)
        assert "4111" not in found.reason


def numbers(digits: int) -> bytes:
    """Return a line whose schema holds a number of so many digits."""
    schema = b'{"type": "object", "x": ' + b"9" * digits + b"}"
    tool = b'{"type": "function", "function": {"name": "f", "parameters": ' + schema + b"}}"
    body = b'{"assistant_id": "a", "tools": [' + tool + b"]}"
    return b'{"custom_id": "a", "method": "POST", "url": "/v1/threads/runs", "body": ' + body + b"}"


@pytest.mark.parametrize("digits", [5_000, 400])
def test_a_number_that_nobody_can_write_is_refused(digits: int) -> None:
    """Python writes no integer of thousands of digits."""
    assert (digits > 4300) is isinstance(check(Line(1, numbers(digits))), Problem)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
lines_of_any_kind = st.binary(max_size=200) | st.fixed_dictionaries(
    {},
    optional={
        "custom_id": json_values,
        "method": st.just("POST") | json_values,
        "url": st.sampled_from([NEW_THREAD, "/v1/threads/t/runs"]) | json_values,
        "body": st.dictionaries(
            st.sampled_from(["assistant_id", "thread", "tools", "metadata", "tool_choice"])
            | st.text(max_size=8),
            json_values,
            max_size=4,
        )
        | json_values,
        "further": json_values,
    },
).map(lambda value: json.dumps(value).encode())


# The first text of all takes a while on a machine that is busy.
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(raw=lines_of_any_kind)
def test_any_bytes_are_a_request_or_a_problem(raw: bytes) -> None:
    """Whatever a line holds, nothing is raised, and a request can be written as JSON again."""
    found = check(Line(1, raw))

    if isinstance(found, CheckedLine):
        json.dumps(found.body, allow_nan=False).encode()
    else:
        assert found.reason


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(content=st.lists(lines_of_any_kind, max_size=6).map(b"\n".join))
def test_any_file_gives_a_list_of_problems(content: bytes, tmp_path: Path) -> None:
    """Each line that holds something is told of once, in order."""
    (tmp_path / "in").write_bytes(content)

    with InputFile(tmp_path / "in") as source:
        checking = Checking(source)
        found = list(checking.lines())

    told = [each.line if isinstance(each, Problem) else each.number for each in found]
    assert sorted(set(told)) == told
    assert len(told) == checking.totals.usable + checking.totals.unusable


def test_a_custom_id_that_comes_twice_names_both_lines(tmp_path: Path) -> None:
    """The first one stands, and the second says where that is."""
    lines = [line(custom_id=name).raw or b"" for name in ("a", "b", "a", "a")]
    (tmp_path / "in").write_bytes(b"\n\n".join(lines))

    with InputFile(tmp_path / "in") as source:
        checking = Checking(source)
        problems = [str(found) for found in checking.lines() if isinstance(found, Problem)]

    said = "custom_id stands in line 1 already."
    assert [f"line 5: {said}", f"line 7: {said}"] == problems
    assert (2, 2) == (checking.totals.usable, checking.totals.unusable)


def many(path: Path, count: int) -> None:
    """Write a file of so many usable lines."""
    with path.open("w") as file:
        for number in range(count):
            body = json.dumps(ASSISTANT | {"metadata": {"ticket": str(number)}})
            file.write(
                f'{{"custom_id": "ticket number {number:>40}", "method": "POST", '
                f'"url": "{NEW_THREAD}", "body": {body}}}\n'
            )


def test_the_check_of_a_long_file_takes_no_more_memory(tmp_path: Path) -> None:
    """Ten times the lines take the same memory of Python's."""
    peaks = []
    for count in (300, 3_000):
        many(tmp_path / "in", count)
        tracemalloc.start()
        with InputFile(tmp_path / "in") as source:
            assert count == sum(isinstance(each, CheckedLine) for each in Checking(source).lines())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < peaks[0] + 100_000
