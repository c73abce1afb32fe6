"""Calendars: what 4 hours mean where people decide in business hours only."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import runlane
from runlane import Calendar
from runlane.errors import InvalidTool
from runlane.settings import Settings
from runlane.tools.calendar import LONGEST
from runlane.tools.deadline import read_deadline
from runlane.tools.functions import tool_of
from runlane.tools.loading import load
from runlane.tools.options import ToolOptions

OFFICE = Calendar(zone="Europe/Berlin", holidays="DE-BY")
LUNCH = Calendar(zone="Europe/Berlin", hours=["09:00-12:00", "13:00-17:00"])
NIGHT = Calendar(zone="Europe/Berlin", hours=["00:30-02:30", "03:00-04:00"], weekdays=["sun"])
ALWAYS = Calendar(
    zone="America/New_York",
    hours="00:00-24:00",
    weekdays=["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
)


def at(text: str) -> datetime:
    """Return a time in Berlin, as an instant."""
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin"))
    return local.astimezone(UTC)


def options_of(**options: Any) -> ToolOptions:
    """Return the options of a tool that is declared with them."""

    @runlane.tool(**options)
    def pay(amount: int) -> None:
        """Pay."""

    declared = tool_of(pay)
    assert declared is not None
    return declared.options


@pytest.mark.parametrize(
    ("calendar", "deadline", "asked", "instant"),
    [
        (OFFICE, "4h", "2026-11-23 10:00", "2026-11-23 14:00"),
        # All of the day that is left: at its end, and not at the next one's beginning.
        (OFFICE, "4h", "2026-11-23 13:00", "2026-11-23 17:00"),
        (OFFICE, "4h", "2026-11-23 15:00", "2026-11-24 11:00"),
        # After hours, before hours, on a Friday evening, on a Saturday.
        (OFFICE, "4h", "2026-11-23 17:00", "2026-11-24 13:00"),
        (OFFICE, "4h", "2026-11-23 03:00", "2026-11-23 13:00"),
        (OFFICE, "4h", "2026-11-27 16:00", "2026-11-30 12:00"),
        (OFFICE, "4h", "2026-11-28 12:00", "2026-11-30 13:00"),
        # Over Christmas, the weekend after it, the year's end and Epiphany, which Bavaria has.
        (OFFICE, "1h", "2026-12-24 16:30", "2026-12-28 09:30"),
        (OFFICE, "8h", "2026-12-31 13:00", "2027-01-04 13:00"),
        (OFFICE, "8h", "2027-01-05 13:00", "2027-01-07 13:00"),
        # A day of 48 business hours is six working days.
        (OFFICE, "2d", "2026-11-23 09:00", "2026-11-30 17:00"),
        (LUNCH, "4h", "2026-11-23 10:00", "2026-11-23 15:00"),
        (LUNCH, "1h", "2026-11-23 12:30", "2026-11-23 14:00"),
        # Clocks go forward on Sunday 29 March 2026, and back on 25 October, with people at work.
        (NIGHT, "1h", "2026-03-29 00:00", "2026-03-29 01:30"),
        (NIGHT, "2h", "2026-10-25 00:00", "2026-10-25 02:30"),
        (OFFICE, "8h", "2026-03-27 13:00", "2026-03-30 13:00"),
        # A time of day is one of the next business day that has it.
        (OFFICE, "17:00 Europe/Berlin", "2026-11-27 12:00", "2026-11-27 17:00"),
        (OFFICE, "17:00 Europe/Berlin", "2026-11-27 17:00", "2026-11-30 17:00"),
        (OFFICE, "12:00 Europe/Berlin", "2026-12-24 12:00", "2026-12-28 12:00"),
        # 08:00 in Tokyo is midnight in Berlin, and the days are the calendar's.
        (OFFICE, "08:00 Asia/Tokyo", "2026-11-27 12:00", "2026-11-30 00:00"),
    ],
)
def test_a_deadline_counts_business_hours(
    calendar: Calendar, deadline: str, asked: str, instant: str
) -> None:
    """Nights, weekends and public holidays count nothing."""
    found = read_deadline(deadline).instant(at(asked), calendar)

    assert at(instant) == found
    assert UTC is found.tzinfo


def test_a_clock_that_is_put_back_gives_an_hour_more() -> None:
    """From 0:00 to 24:00 in New York that day has 25 hours, and in spring 23."""
    zone = ZoneInfo("America/New_York")
    for day, hours in ((date(2026, 11, 1), 25), (date(2026, 3, 8), 23)):
        start = datetime(day.year, day.month, day.day, tzinfo=zone)

        ended = ALWAYS.after(start, timedelta(hours=hours)).astimezone(zone)

        assert (day + timedelta(days=1), 0) == (ended.date(), ended.hour)


def _clock(quarters: int) -> str:
    return f"{quarters // 4:02}:{quarters % 4 * 15:02}"


CALENDARS = st.builds(
    lambda zone, start, length, days, holidays: Calendar(
        zone=zone,
        # Away from the hours in which clocks are changed: the counting below knows nothing of them.
        hours=f"{_clock(start)}-{_clock(start + length)}",
        weekdays=days,
        holidays=holidays,
    ),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Sydney"]),
    st.integers(4 * 4, 4 * 20),
    st.integers(4, 4 * 4 - 1),
    st.sets(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=3),
    st.sampled_from([None, "DE", "US-CA"]),
)


# No deadline: a machine that is busy has none to keep.
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(CALENDARS, st.integers(0, 2 * 365 * 24 * 4), st.integers(1, 40))
def test_as_many_quarters_are_open_as_the_deadline_says(
    calendar: Calendar, start: int, quarters: int
) -> None:
    """Counted one by one; and the last one of them is open."""
    quarter = timedelta(minutes=15)
    asked = datetime(2026, 1, 1, tzinfo=UTC) + start * quarter

    until = calendar.after(asked, quarters * quarter)

    def is_open(begin: datetime) -> bool:
        local = begin.astimezone(calendar.zone)
        [(opens, closes)] = calendar.hours
        in_hours = opens <= local.hour * 60 + local.minute < closes
        return in_hours and calendar.is_business_day(local.date())

    passed = [asked + n * quarter for n in range((until - asked) // quarter)]
    assert quarters == sum(map(is_open, passed))
    assert is_open(until - quarter)


def test_no_deadline_is_further_than_ten_years() -> None:
    """Not even with a minute a week."""
    rare = Calendar(zone="UTC", hours="09:00-09:01", weekdays=["mon"])
    asked = at("2026-11-23 10:00")

    assert asked + LONGEST == rare.after(asked, timedelta(hours=24))


def test_each_group_has_its_time_and_reminders_end_with_the_last() -> None:
    """A group is asked when the one before has had its hours; nobody is reminded after all."""
    asked = at("2026-11-26 15:00").timestamp()
    options = options_of(
        policy="approve",
        groups=["desk", "board", "chair"],
        deadline="4h",
        outcome="escalate",
        calendar=OFFICE,
        reminders=["2h", "30m", "12h"],
    )

    assert [
        at(text).timestamp()
        for text in ("2026-11-27 11:00", "2026-11-27 15:00", "2026-11-30 11:00")
    ] == options.deadlines_of(asked)
    assert [
        at(text).timestamp() for text in ("2026-11-26 15:30", "2026-11-26 17:00")
    ] == options.reminders_of(asked)


def test_without_a_deadline_there_is_none_and_reminders_stand() -> None:
    """A call waits as long as its run does; it may be called to mind meanwhile."""
    assert [] == options_of().deadlines_of(5.0)
    assert [] == options_of().reminders_of(5.0)
    reminded = options_of(reminders=[60, "1h"])
    assert [65.0, 3605.0] == reminded.reminders_of(5.0)
    rejected = options_of(groups=["a", "b"], deadline=60, reminders=[60, 30])
    assert ([65.0], [35.0]) == (rejected.deadlines_of(5.0), rejected.reminders_of(5.0))


@pytest.mark.parametrize(
    ("given", "param", "told"),
    [
        ({"zone": "Mars/Base"}, "zone", "'Mars/Base'"),
        ({"zone": None}, "zone", "name of a zone"),
        ({"hours": []}, "hours", "1 to 10 spans"),
        ({"hours": "9-17"}, "hours", "09:00-17:00"),
        ({"hours": "17:00-09:00"}, "hours", "in order"),
        ({"hours": "09:00-09:00"}, "hours", "in order"),
        ({"hours": "09:00-24:01"}, "hours", "until 24:00"),
        ({"hours": "09:60-17:00"}, "hours", "until 24:00"),
        ({"hours": ["09:00-12:00", "11:00-17:00"]}, "hours", "apart"),
        ({"hours": [9]}, "hours", "1 to 10 spans"),
        ({"weekdays": []}, "weekdays", "one or more out of mon, tue"),
        ({"weekdays": "mon"}, "weekdays", "a list"),
        ({"weekdays": ["monday"]}, "weekdays", "out of mon"),
        ({"holidays": "XX"}, "holidays", "'XX'"),
        ({"holidays": "DE-ZZ"}, "holidays", "'DE-ZZ'"),
        ({"holidays": 1}, "holidays", "DE-BY"),
    ],
)
def test_a_calendar_that_can_not_be_used_is_refused(
    given: dict[str, Any], param: str, told: str
) -> None:
    """By the name of what is wrong, where it is written; one without hours is none."""
    with pytest.raises(InvalidTool, match=f"^Calendar: {param} ") as caught:
        Calendar(**{"zone": "UTC", **given})

    assert param == caught.value.param
    assert told in caught.value.message


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"calendar": "office", "deadline": "4h"}, "calendar"),
        ({"calendar": OFFICE}, "calendar"),
        ({"reminders": "1h"}, "reminders"),
        ({"reminders": []}, "reminders"),
        ({"reminders": ["soon"]}, "reminders"),
        ({"reminders": range(1, 22)}, "reminders"),
    ],
)
def test_options_about_time_are_checked(options: dict[str, Any], param: str) -> None:
    """A calendar that nothing counts by is a mistake, and so are reminders without a time."""
    with pytest.raises(InvalidTool, match=f"^Tool pay: {param} ") as caught:
        options_of(**options)

    assert param == caught.value.param


SHIP = """
[tools.ship]
description = "Ship."
url = "http://127.0.0.1:1"
deadline = "4h"
reminders = ["1h"]
calendar = "office"
"""


def test_a_file_declares_calendars_by_name(tmp_path: Path) -> None:
    """And its tools name them; they are the same as those of code."""
    file = tmp_path / "runlane.toml"
    file.write_text(
        '[calendars.office]\nzone = "Europe/Berlin"\nhours = "09:00-17:00"\n'
        f'weekdays = ["mon", "tue", "wed", "thu", "fri"]\nholidays = "DE-BY"\n{SHIP}'
    )

    [tool] = load(Settings(config_file=file))

    assert OFFICE == tool.options.calendar
    assert "mon-fri 09:00-17:00 Europe/Berlin, but holidays of DE-BY" == str(tool.options.calendar)
    assert (timedelta(hours=1),) == tool.options.reminders


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SHIP, "Tool ship: calendar must name a [calendars.NAME] of this file; there are: none."),
        ('[calendars.office]\nhours = "09:00-17:00"', "Calendar office: zone must be the name"),
        ('[calendars.office]\nzone = "UTC"\nday = 1', "Calendar office: day is not known"),
        ('[calendars.office]\nzone = "UTC"\nhours = []', "Calendar office: hours must be 1 to 10"),
        ("[calendars]\noffice = 1", "calendars.office must be a table"),
    ],
)
def test_what_a_file_says_of_calendars_is_checked(tmp_path: Path, text: str, told: str) -> None:
    """With the file, the calendar and the field."""
    file = tmp_path / "runlane.toml"
    file.write_text(text)

    with pytest.raises(InvalidTool, match=r"runlane\.toml: ") as caught:
        load(Settings(config_file=file))

    assert told in caught.value.message
