"""Durations as people write them: `30s`, `4h`, `90d`, `250ms`, or a bare number of seconds.

Nothing here knows a clock; a duration is a `datetime.timedelta` everywhere else.
"""

import re
from datetime import timedelta
from decimal import Decimal

_MICROSECONDS = {
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
}
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(ms|s|m|h|d)?")


class DurationError(ValueError):
    """Not a duration. Write `250ms`, `30s`, `15m`, `4h`, `90d` or a number of seconds."""


def parse_duration(text: str) -> timedelta:
    """Read a duration; a bare number is in seconds, fractions are exact to the microsecond.

    Raises:
        DurationError: the text is no duration, is negative, or exceeds what a `timedelta` holds.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise DurationError(_problem(text))
    number, unit = match.groups()
    # Decimal, because 0.1 and 0.7 have no exact float and would come back as other text.
    microseconds = Decimal(number) * _MICROSECONDS[unit or "s"]
    try:
        return timedelta(microseconds=int(microseconds))
    except OverflowError:
        raise DurationError(_problem(text)) from None


def format_duration(duration: timedelta) -> str:
    """Print a duration in the largest unit that needs no fraction: the inverse of `parse_duration`.

    Raises:
        DurationError: the duration is negative, which `parse_duration` could not read back.
    """
    microseconds = duration // timedelta(microseconds=1)
    if microseconds < 0:
        msg = f"A duration can't be negative: {duration}."
        raise DurationError(msg)
    if microseconds == 0:
        return "0s"
    for unit, size in _MICROSECONDS.items():
        if microseconds % size == 0:
            return f"{microseconds // size}{unit}"
    return f"{(Decimal(microseconds) / 1_000).normalize():f}ms"


def _problem(text: str) -> str:
    return f"{text!r} is not a duration: write 250ms, 30s, 15m, 4h, 90d or a number of seconds."
