"""Business hours: what a deadline counts where people decide in office hours only."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from runlane.errors import InvalidTool

LONGEST = timedelta(days=3650)
"""No deadline is further away than this, however few hours a calendar has."""
MAX_SPANS = 10
"""Of a day's hours."""

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SPAN = re.compile(r"([0-9]{2}):([0-9]{2})\s*-\s*([0-9]{2}):([0-9]{2})")
_MIDNIGHT = 24 * 60


@dataclass(frozen=True, init=False)
class Calendar:
    """When people are at work: hours of weekdays in a zone, public holidays left out."""

    zone: ZoneInfo
    hours: tuple[tuple[int, int], ...]
    """Spans in minutes of the day, in order; an end of 1440 is midnight."""
    weekdays: frozenset[int]
    """0 is Monday."""
    holidays: str | None
    """A country, or a country and its subdivision: `DE`, `DE-BY`."""

    def __init__(
        self,
        *,
        zone: str,
        hours: str | Iterable[str] = "09:00-17:00",
        weekdays: Iterable[str] = _DAYS[:5],
        holidays: str | None = None,
    ) -> None:
        """Declare a calendar.

        Args:
            zone: an IANA name, `Europe/Berlin`.
            hours: `09:00-17:00`, or several such spans; a span ends by `24:00`.
            weekdays: out of `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`; default `mon` to
                `fri`.
            holidays: whose public holidays are free: a country, or a country and its subdivision,
                by their ISO 3166 codes: `DE`, `DE-BY`, `US-CA`. Default: nobody's.

        Raises:
            InvalidTool: the message names the parameter and what it may be.
        """
        # Frozen, and made of other things than it is given.
        for name, value, reader in (
            ("zone", zone, read_zone),
            ("hours", hours, _read_hours),
            ("weekdays", weekdays, _read_weekdays),
            ("holidays", holidays, _read_holidays),
        ):
            try:
                object.__setattr__(self, name, reader(value))
            except ValueError as error:
                raise InvalidTool(f"Calendar: {name} {error}.", param=name) from None

    def __str__(self) -> str:
        """Return it in words: `mon-fri 09:00-17:00 Europe/Berlin, but holidays of DE-BY`."""
        hours = " ".join(f"{_clock(start)}-{_clock(end)}" for start, end in self.hours)
        free = f", but holidays of {self.holidays}" if self.holidays else ""
        return f"{_days(sorted(self.weekdays))} {hours} {self.zone}{free}"

    def is_business_day(self, day: date) -> bool:
        """Tell whether people are at work on a day of the calendar's zone."""
        return day.weekday() in self.weekdays and not (
            self.holidays and day in _public_holidays(self.holidays, day.year)
        )

    def after(self, start: datetime, duration: timedelta) -> datetime:
        """Return when this much business time has passed, in UTC, at most `LONGEST` after `start`.

        Time that ends with a day's hours ends there, and not when the next ones begin.

        Args:
            start: with a zone.
            duration: above 0.
        """
        left = duration
        for opens, closes in self._open(start.astimezone(UTC)):
            if left <= closes - opens:
                return opens + left
            left -= closes - opens
        return start.astimezone(UTC) + LONGEST

    def _open(self, start: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield the times at work from `start` on, in UTC, in order and apart from each other."""
        last = start + LONGEST
        done = start
        day = start.astimezone(self.zone).date()
        while done < last:
            if self.is_business_day(day):
                for opens, closes in self.hours:
                    # A clock that is put forward may skip a span, or push it into the next one.
                    begin = max(done, self._instant(day, opens))
                    end = min(last, self._instant(day, closes))
                    if begin < end:
                        yield begin, end
                        done = end
            day += timedelta(days=1)
            if self._instant(day, 0) >= last:
                return

    def _instant(self, day: date, minute: int) -> datetime:
        if minute == _MIDNIGHT:
            day, minute = day + timedelta(days=1), 0
        clock = time(minute // 60, minute % 60, tzinfo=self.zone)
        return datetime.combine(day, clock).astimezone(UTC)


def read_calendar(given: object) -> Calendar:
    """Return a calendar as it was given to a tool.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(given, Calendar):
        raise ValueError("must be a runlane.Calendar; in runlane.toml the NAME of [calendars.NAME]")
    return given


def declared_calendar(name: str, table: dict[str, Any]) -> Calendar:
    """Return a calendar as a file declares it, by the parameters of `Calendar`.

    Raises:
        InvalidTool: the message names the field and what it may be.
    """
    known = ("zone", "hours", "weekdays", "holidays")
    for key in table.keys() - set(known):
        text = f"Calendar {name}: {key} is not known; there are {', '.join(known)}."
        raise InvalidTool(text, param=key)
    try:
        return Calendar(**{"zone": None, **table})
    except InvalidTool as error:
        text = error.message.replace("Calendar:", f"Calendar {name}:", 1)
        raise InvalidTool(text, param=error.param) from None


def read_zone(given: object) -> ZoneInfo:
    """Return the zone of an IANA name.

    Raises:
        ValueError: there is none of this name here.
    """
    if not isinstance(given, str):
        raise ValueError("must be the name of a zone: Europe/Berlin")
    try:
        return ZoneInfo(given.strip())
    except (ValueError, OSError, KeyError):
        raise ValueError(f"names a zone that this machine doesn't know: {given!r}") from None


def _read_hours(given: object) -> tuple[tuple[int, int], ...]:
    limit = f"must be 1 to {MAX_SPANS} spans such as 09:00-17:00, in order and apart, until 24:00"
    spans = [given] if isinstance(given, str) else _listed(given, limit)
    found: list[tuple[int, int]] = []
    for span in spans:
        match = _SPAN.fullmatch(span.strip()) if isinstance(span, str) else None
        if match is None:
            raise ValueError(limit)
        clocks = [int(each) for each in match.groups()]
        start, end = clocks[0] * 60 + clocks[1], clocks[2] * 60 + clocks[3]
        before = found[-1][1] if found else 0
        if max(clocks[1], clocks[3]) > 59 or not before <= start < end <= _MIDNIGHT:
            raise ValueError(limit)
        found.append((start, end))
    if not 1 <= len(found) <= MAX_SPANS:
        raise ValueError(limit)
    return tuple(found)


def _read_weekdays(given: object) -> frozenset[int]:
    limit = f"must be a list of one or more out of {', '.join(_DAYS)}"
    days = _listed(given, limit)
    if not days or not all(day in _DAYS for day in days):
        raise ValueError(limit)
    return frozenset(_DAYS.index(day) for day in days)


def _read_holidays(given: object) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str) or not given:
        raise ValueError("must be a country, or a country and its subdivision: DE, DE-BY")
    try:
        _public_holidays(given, 2026)
    except NotImplementedError:  # how `holidays` says that it knows no such place
        raise ValueError(
            f"names no country or subdivision whose public holidays are known: {given!r}"
        ) from None
    return given


def _listed(given: object, limit: str) -> list[Any]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ValueError(limit)
    return list(given)


@cache
def _public_holidays(where: str, year: int) -> frozenset[date]:
    # Deferred: it takes a tenth of a second. A year at a time and kept as it is, because the
    # package's own dictionary, growing while it is asked, would leave days out in other threads.
    from holidays import country_holidays  # noqa: PLC0415

    country, _, subdivision = where.partition("-")
    return frozenset(country_holidays(country, subdiv=subdivision or None, years=year))


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _days(days: list[int]) -> str:
    if len(days) > 2 and days == list(range(days[0], days[-1] + 1)):
        return f"{_DAYS[days[0]]}-{_DAYS[days[-1]]}"
    return ",".join(_DAYS[day] for day in days)
