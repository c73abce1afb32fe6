"""When a clock on a wall next shows a time, whatever it is put back or forward meanwhile."""

from datetime import datetime, timedelta


def next_time(here: datetime, hour: int, minute: int) -> datetime:
    """Return the next time of day after `here`, by the calendar: a day may have 23 or 25 hours.

    Args:
        here: with a zone, whose clock it is.
        hour: 0 to 23.
        minute: 0 to 59.
    """
    found = here.replace(hour=hour, minute=minute, second=0, microsecond=0, fold=0)
    if found > here:
        return found
    return (found.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=found.tzinfo)
