from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlane.durations import DurationError, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("250ms", timedelta(milliseconds=250)),
        ("2s", timedelta(seconds=2)),
        ("30", timedelta(seconds=30)),
        ("0.7", timedelta(milliseconds=700)),
        (" 1.5 m ", timedelta(seconds=90)),
        ("4h", timedelta(hours=4)),
        ("90d", timedelta(days=90)),
        ("0", timedelta(0)),
    ],
)
def test_a_duration_is_read_with_its_unit_or_as_seconds(text: str, expected: timedelta) -> None:
    """Every unit people write is understood, and a bare number means seconds."""
    assert expected == parse_duration(text)


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "1w", "1h30m", "1e3", "nan", "inf", "٣s", "1..5", "999999999999d"]
)
def test_anything_else_is_refused_with_examples(text: str) -> None:
    """A text that is no duration is refused, and the error shows how to write one."""
    with pytest.raises(DurationError, match=r"30s, 15m, 4h"):
        parse_duration(text)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=36_500)))
def test_printing_and_reading_are_inverse(duration: timedelta) -> None:
    """What is printed reads back as the same duration, to the microsecond."""
    assert duration == parse_duration(format_duration(duration))


def test_the_largest_whole_unit_is_printed() -> None:
    """A duration prints as a person would write it."""
    printed = [
        format_duration(d)
        for d in (
            timedelta(days=90),
            timedelta(hours=36),
            timedelta(seconds=90),
            timedelta(milliseconds=1500),
            timedelta(0),
        )
    ]
    assert ["90d", "36h", "90s", "1500ms", "0s"] == printed


def test_a_negative_duration_is_not_printed() -> None:
    """What could not be read back is refused rather than printed."""
    with pytest.raises(DurationError):
        format_duration(timedelta(seconds=-1))
