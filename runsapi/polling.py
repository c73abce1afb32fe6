"""How long to wait between two looks at a run.

The caller's interval comes first, then the one in the latest answer's ``openai-poll-after-ms``,
then a default. The header is read anew from every answer: a server that is told to slow down
mid-way says so there.
"""

import math
import re
from collections.abc import Mapping

POLL_AFTER_HEADER = "openai-poll-after-ms"
"""The header in which a server says how long to wait, in milliseconds."""

DEFAULT_POLL_INTERVAL_MS = 5_000
"""What the seed waits when neither caller nor server says anything."""

MIN_POLL_INTERVAL_MS = 100
"""The shortest wait; less would be a hot loop."""

MAX_POLL_INTERVAL_MS = 3_600_000
"""The longest wait: one hour."""

_LEADING_NUMBER = re.compile(r"\s*([+-]?[0-9]{1,15})")


def usable_interval_ms(value: object) -> int | None:
    """An interval in milliseconds, kept within 100 ms and one hour.

    Args:
        value: A number, or a string that begins with one.

    Returns:
        ``None`` for what is to be ignored: 0, less than 0, and what is no number.
    """
    if isinstance(value, str):
        match = _LEADING_NUMBER.match(value)
        value = int(match.group(1)) if match else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if math.isnan(value) or value <= 0:
        return None
    return int(min(max(value, MIN_POLL_INTERVAL_MS), MAX_POLL_INTERVAL_MS))


def poll_after_ms(headers: Mapping[str, str]) -> int | None:
    """The interval an answer asks for, in milliseconds, or ``None`` if it asks for no usable
    one.
    """
    for name, value in headers.items():
        if name.lower() == POLL_AFTER_HEADER:
            return usable_interval_ms(value)
    return None


def next_interval_ms(poll_interval_ms: object, headers: Mapping[str, str]) -> int:
    """The wait before the next look, in milliseconds.

    Args:
        poll_interval_ms: What the caller wishes, if anything.
        headers: Those of the latest answer.
    """
    return (
        usable_interval_ms(poll_interval_ms) or poll_after_ms(headers) or DEFAULT_POLL_INTERVAL_MS
    )
