"""What of a child's log reaches the terminal of `runlane up`."""

import asyncio

from runlane.attention import Attention

FAILED = "2026-01-01 12:00:00,000 WARNING Completing activity as failed ({'activity_id': '1'})"
TRACEBACK = ["Traceback (most recent call last):", '  File "a.py", line 1, in a', "    a()"]
APPLICATION_ERROR = "temporalio.exceptions.ApplicationError: "


async def told(*lines: str) -> list[str]:
    """Return what was passed on of the lines."""
    said: list[str] = []
    attention = Attention(said.append, "worker")
    for line in lines:
        attention(line)
    await asyncio.sleep(0.3)
    return said


async def test_warnings_and_errors_are_passed_on_and_nothing_else() -> None:
    """Without time and level, and without the SDK's dict of where it happened."""
    assert ["worker: low on slots", "worker: broken"] == await told(
        "2026-01-01 12:00:00,000 INFO fine",
        "2026-01-01 12:00:00,000 WARNING low on slots ({'queue': 'q'})",
        "2026-01-01 12:00:00,000 ERROR broken",
        "a line of somebody else's",
    )


async def test_a_failed_activity_is_told_by_its_last_error() -> None:
    """Of a chain the cause is for the log; the error that came of it says what is wrong."""
    assert ["worker: UpstreamUnavailable: no answer"] == await told(
        FAILED,
        *TRACEBACK,
        "httpx.ConnectError: refused",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        *TRACEBACK,
        f"{APPLICATION_ERROR}UpstreamUnavailable: no answer",
    )


async def test_the_same_is_told_once() -> None:
    """An activity that is tried again fails the same way each second."""
    lines = [FAILED, *TRACEBACK, "KeyError: 'a'"]

    assert ["worker: KeyError: 'a'"] == await told(*lines, *lines, *lines)


async def test_a_handover_is_no_failure() -> None:
    """A worker that ends gives its polls back; nobody has to know."""
    handover = f"{APPLICATION_ERROR}Handover: The worker is shutting down"

    assert [] == await told(FAILED, *TRACEBACK, handover)


async def test_what_a_terminal_would_obey_is_made_visible() -> None:
    """A log may hold what an upstream said."""
    assert ["worker: red \\x1b[31m"] == await told("2026-01-01 12:00:00,000 ERROR red \x1b[31m")
