"""A worker's clock that is a day off, and jumps: nothing is decided by it."""

import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path

import pytest

from runsapi import retry_after
from tests.histories import history
from tests.hostile import HostileUpstream, says
from tests.lab import eventually
from tests.processes import Plant

DAY = 86_400
_CLOCK = """
import pathlib, time
_real, _offset = time.time, pathlib.Path({path!r})
time.time = lambda: _real() + float(_offset.read_text())
"""


class Clock:
    """The wall clock of worker processes, as far as Python code can see it."""

    def __init__(self, directory: Path) -> None:
        self._offset = directory / "offset"
        self.step(0)
        text = _CLOCK.format(path=str(self._offset))
        (directory / "sitecustomize.py").write_text(text, encoding="utf-8")
        self.path = str(directory)
        """For `PYTHONPATH`."""

    def step(self, seconds: float) -> None:
        """Set it so far off, at once."""
        new = self._offset.with_suffix(".new")
        new.write_text(str(seconds), encoding="utf-8")
        new.replace(self._offset)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
async def upstream() -> AsyncIterator[HostileUpstream]:
    """An upstream that doesn't tell the time."""
    async with HostileUpstream().serving() as upstream:
        yield upstream


@pytest.mark.parametrize("offset", [DAY, -DAY], ids=["ahead", "behind"])
async def test_a_create_is_found_whatever_the_clock_says(
    plant: Plant, upstream: HostileUpstream, clock: Clock, offset: int
) -> None:
    """The upstream run of a lost answer is no other's because our clock makes it too old, and the
    run goes on while the clock jumps the other way.
    """
    await plant.worker(RUNLANE_UPSTREAM_URL=upstream.url, PYTHONPATH=clock.path)
    lost = says(b'{"id":', "Content-Length: 100")
    upstream.attacks["thread_lost"] = ("create", lost)
    began = time.time()
    clock.step(offset)
    run = await plant.lab.start(thread_id="thread_lost")

    async def created() -> int:
        return upstream.creates.get("thread_lost", 0)

    await eventually(created, lambda count: count == 1)
    del upstream.attacks["thread_lost"]
    view = await run.until(lambda view: bool(view.runlane.pending))
    clock.step(-offset)
    await run.submit((view.runlane.pending[0].tool_call_id, "ok"))
    result = await run.result()

    assert result.run.status == "completed"
    assert upstream.creates["thread_lost"] == 1
    assert upstream.submits["thread_lost"] == 1
    times = [event.event_time.ToDatetime().timestamp() for event in await history(run)]
    assert times == sorted(times)
    for answer in result.runlane.answers:
        assert answer.answered_at is not None
        assert began - 5 < answer.answered_at < time.time() + 5


async def test_a_date_to_come_back_at_is_the_upstreams(
    plant: Plant, upstream: HostileUpstream, clock: Clock
) -> None:
    """`retry-after` as a date, two seconds ahead on the upstream's clock and a day on ours."""
    await plant.worker(RUNLANE_UPSTREAM_URL=upstream.url, PYTHONPATH=clock.path)
    clock.step(-DAY)
    now = time.time()
    headers = [
        f"Date: {formatdate(now, usegmt=True)}",
        f"Retry-After: {formatdate(now + 2, usegmt=True)}",
        "Content-Length: 2",
    ]
    upstream.attacks["thread_busy"] = ("create", says(b"{}", *headers, status="503 Busy"))
    run = await plant.lab.start(thread_id="thread_busy")

    async def created() -> int:
        return upstream.creates.get("thread_busy", 0)

    await eventually(created, lambda count: count == 1)
    upstream.attacks.clear()
    await run.signal(("call_1", "ok"))

    assert (await run.result(seconds=40)).run.status == "completed"
    assert upstream.creates["thread_busy"] == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        (
            {
                "retry-after": "Fri, 22 Nov 2026 10:00:09 GMT",
                "date": "Fri, 22 Nov 2026 10:00:00 GMT",
            },
            9,
        ),
        ({"retry-after": "Fri, 22 Nov 2999 10:00:00 GMT"}, 60),
        ({"retry-after": "Fri, 22 Nov 1999 10:00:00 GMT"}, None),
        ({"retry-after": "1e309"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_how_long_an_upstream_is_left_alone(headers: dict[str, str], seconds: float | None) -> None:
    """By number or by date, and never by a mistake."""
    assert retry_after(headers) == seconds
