"""A deadline is read as people say it, in the zone that they name."""

from datetime import UTC, datetime

import pytest

from runlane.batches.deadlines import read
from runlane.errors import InvalidRequest

BERLIN = "Europe/Berlin"


@pytest.mark.parametrize(
    ("text", "zone", "now", "expected"),
    [
        ("06:00", "UTC", "2026-11-29T22:00", "2026-11-30T06:00"),
        ("6:00", "UTC", "2026-11-29T05:59", "2026-11-29T06:00"),
        ("06:00", "UTC", "2026-11-29T06:00", "2026-11-30T06:00"),
        ("06:00", BERLIN, "2026-11-29T22:00", "2026-11-30T05:00"),
        # The night in which Berlin's clocks go forward, and the one in which they go back.
        ("06:00", BERLIN, "2026-03-28T22:00", "2026-03-29T04:00"),
        ("06:00", BERLIN, "2026-10-24T22:00", "2026-10-25T05:00"),
        ("2026-12-01T06:00", BERLIN, "2026-11-29T22:00", "2026-12-01T05:00"),
        ("2026-12-01T06:00+09:00", BERLIN, "2026-11-29T22:00", "2026-11-30T21:00"),
    ],
)
def test_a_time_is_the_next_one(text: str, zone: str, now: str, expected: str) -> None:
    """A clock's time is the next time that a clock there shows it, also where clocks change."""
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)

    assert datetime.fromisoformat(expected).replace(tzinfo=UTC) == read(text, zone, at)


@pytest.mark.parametrize(
    ("text", "zone", "said"),
    [
        ("25:00", "UTC", "must be a time such as 06:00"),
        ("06:60", "UTC", "must be a time such as 06:00"),
        ("soon", "UTC", "must be a time such as 06:00"),
        ("2026-11-29T21:59", "UTC", "is past"),
        ("06:00", "Europe/Berln", "There is no time zone 'Europe/Berln'"),
        ("06:00", "../etc/passwd", "There is no time zone"),
        ("06:00", "", "There is no time zone"),
    ],
)
def test_what_is_no_time_is_refused(text: str, zone: str, said: str) -> None:
    """The option is named, and an example given."""
    with pytest.raises(InvalidRequest) as refused:
        read(text, zone, datetime(2026, 11, 29, 22, tzinfo=UTC))

    assert said in refused.value.message
