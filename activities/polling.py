"""When to look at an upstream run again. Pure, and shared by the attached poll and the workflow."""


def poll_interval(
    leg_age: float,
    *,
    poll_interval_ms: int | None,
    poll_after_ms: int | None,
    floor: float,
    ceiling: float,
    ending: bool = False,
) -> float:
    """Return the seconds until the next look.

    The order of precedence is the SDKs' own: what the caller fixed, then what the upstream's
    latest answer asked for, then our curve, a thirtieth of the leg's age. By the curve a result
    is noticed, in the mean, within a sixtieth of the time it took.

    Args:
        leg_age: Seconds since the upstream run was created or took our outputs.
        poll_interval_ms: The caller's interval, already kept within its limits.
        poll_after_ms: The `openai-poll-after-ms` header of the latest answer, likewise.
        floor: The curve's shortest interval, in seconds.
        ceiling: The curve's longest one.
        ending: The run is being stopped. A cancel takes moments, and an interval meant for a long
            leg would outlast the time in which its truth is sought: the curve is the longest.
    """
    own = curve(leg_age, floor=floor, ceiling=ceiling)
    asked = poll_interval_ms if poll_interval_ms is not None else poll_after_ms
    if asked is None:
        return own
    return min(asked / 1000, own) if ending else asked / 1000


def curve(age: float, *, floor: float, ceiling: float) -> float:
    """Return a thirtieth of `age` within the bounds; all in seconds."""
    return min(max(age / 30, floor), ceiling)
