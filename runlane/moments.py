"""How times are printed for people: in the machine's own zone, which they name."""

from datetime import UTC, datetime


def format_moment(seconds: float) -> str:
    """Return a time in Unix seconds as `2026-11-23 02:14:05+01:00`."""
    local = datetime.fromtimestamp(seconds, UTC).astimezone()
    return local.isoformat(" ", timespec="seconds")
