"""A point in time after which a batch begins nothing, as people say it."""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from activities.clock_times import next_time
from runlane.errors import InvalidRequest

WINDOWS = {"24h": timedelta(hours=24)}
"""What OpenAI's API calls a completion window: how long a batch may begin items."""

_CLOCK = re.compile(r"(\d{1,2}):(\d{2})")
_OPTION = "--deadline"


def read(text: str, zone: str | None, now: datetime) -> datetime:
    """Read `06:00`, the next time a clock shows it, or `2026-12-01T06:00`.

    Args:
        text: what was typed.
        zone: an IANA name such as `Europe/Berlin`; None: the machine's own.
        now: with a zone.

    Returns:
        The instant, in UTC.

    Raises:
        InvalidRequest: it is no time, is past, or there is no such zone.
    """
    here = now.astimezone(_zone(zone))
    clock = _CLOCK.fullmatch(text.strip())
    if clock is not None:
        hour, minute = int(clock[1]), int(clock[2])
        if hour > 23 or minute > 59:
            raise _unreadable(text)
        return _settled(next_time(here, hour, minute), zone)
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise _unreadable(text) from None
    instant = _settled(found, zone) if found.tzinfo is None else found.astimezone(UTC)
    if instant <= now:
        raise InvalidRequest(f"{_OPTION} {text} is past.", param=_OPTION)
    return instant


def _settled(found: datetime, zone: str | None) -> datetime:
    # Without a zone of its own the machine's rules for that day count, and not those of today.
    plain = found.replace(tzinfo=None)
    return (plain if zone is None else plain.replace(tzinfo=_zone(zone))).astimezone(UTC)


def _zone(name: str | None) -> ZoneInfo | None:
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        text = f"There is no time zone {name!r}: write one such as Europe/Berlin."
        raise InvalidRequest(text, param="--timezone") from None


def _unreadable(text: str) -> InvalidRequest:
    wanted = "a time such as 06:00 or 2026-12-01T06:00"
    return InvalidRequest(f"{_OPTION} must be {wanted}, got {text!r}.", param=_OPTION)
