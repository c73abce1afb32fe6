"""By when a person must have decided a call, and what happens when nobody has."""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum

from runlane.durations import DurationError, format_duration, parse_duration
from runlane.tools.calendar import LONGEST, Calendar, read_zone


class DeadlineOutcome(StrEnum):
    """What happens to a call that nobody decided in time; it is never approved."""

    REJECT = "reject"
    """The model is told that it was rejected."""
    FAIL = "fail"
    """The run ends failed."""
    ESCALATE = "escalate"
    """The next group is asked."""


@dataclass(frozen=True)
class Deadline:
    """A time after the call was asked for, or the next such time of day; one of both is set."""

    after: timedelta | None = None
    at: time | None = None
    """With a zone."""

    def __str__(self) -> str:
        """Return the deadline as it is written: `4h`, `17:00 Europe/Berlin`."""
        if self.after is not None:
            return format_duration(self.after)
        assert self.at is not None
        return f"{self.at:%H:%M} {self.at.tzinfo}"

    def instant(self, asked_at: datetime, calendar: Calendar | None = None) -> datetime:
        """Return the instant, in UTC, that the deadline means for a call.

        Args:
            asked_at: when the call was asked for, with a zone.
            calendar: then a duration counts its hours alone, and a time of day is one of its
                business days.
        """
        asked_at = asked_at.astimezone(UTC)
        if self.after is not None:
            return calendar.after(asked_at, self.after) if calendar else asked_at + self.after
        assert self.at is not None
        day = asked_at.astimezone(self.at.tzinfo).date()
        last = asked_at + LONGEST
        while (found := datetime.combine(day, self.at).astimezone(UTC)) < last:
            if found > asked_at and _suits(found, calendar):
                return found
            day += timedelta(days=1)
        return last


def read_deadline(given: object) -> Deadline:
    """Read a `timedelta`, seconds, a `datetime.time` with a zone, or either as text.

    Raises:
        ValueError: it is none of them; the message says what it may be.
    """
    if isinstance(given, time):
        return Deadline(at=_with_zone(given))
    if isinstance(given, str) and ":" in given:
        return Deadline(at=_time_of_day(given))
    return Deadline(after=read_duration(given, LONGEST))


def _suits(instant: datetime, calendar: Calendar | None) -> bool:
    return calendar is None or calendar.is_business_day(instant.astimezone(calendar.zone).date())


def read_duration(given: object, most: timedelta) -> timedelta:
    """Read a `timedelta`, seconds, or text such as `30s` and `4h`; above 0, at most `most`.

    Raises:
        ValueError: it is none; the message says what it may be.
    """
    limit = f"must be more than 0 and at most {format_duration(most)}, as a timedelta, seconds or "
    limit += "text such as 30s, 15m, 4h, 90d"
    try:
        if isinstance(given, str):
            given = parse_duration(given)
        elif isinstance(given, int | float) and not isinstance(given, bool):
            given = timedelta(seconds=given)
    except (DurationError, OverflowError, ValueError):
        raise ValueError(limit) from None
    if not isinstance(given, timedelta) or not timedelta(0) < given <= most:
        raise ValueError(limit)
    return given


def _with_zone(given: time) -> time:
    if given.tzinfo is None:
        raise ValueError("must have a zone when it is a time of day: 17:00 Europe/Berlin")
    return given


def _time_of_day(text: str) -> time:
    clock, _, zone = text.strip().partition(" ")
    try:
        at = datetime.strptime(clock, "%H:%M").time()  # noqa: DTZ007 - the zone comes next
    except ValueError:
        raise ValueError("must be a duration, or a time with zone: 17:00 Europe/Berlin") from None
    if not zone.strip():
        return _with_zone(at)
    return at.replace(tzinfo=read_zone(zone.strip()))
