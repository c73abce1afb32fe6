"""Watching a run: what ends a wait, and what doesn't."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from runlane.errors import TemporalUnreachable, WaitTimeout
from runlane.waiting import Look, watch
from runsapi import Run
from workflows.contract import RunlaneView, RunView


def _view(status: str) -> RunView:
    run = Run.model_validate({"id": "run_1", "status": status})
    return RunView(run=run, runlane=RunlaneView())


async def _looks(*answers: RunView | Exception, timeout: float | None = None) -> list[Look]:
    left = list(answers)

    async def read(_patience: timedelta) -> RunView:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return [look async for look in watch(read, timeout=timeout)]


@pytest.mark.parametrize(
    "status", ["requires_action", "completed", "failed", "cancelled", "expired", "incomplete"]
)
async def test_a_wait_ends_where_the_protocols_poll_does(status: str) -> None:
    """`requires_action` ends it too: it is a pause in which the caller must act."""
    looks = await _looks(_view("queued"), _view("in_progress"), _view("cancelling"), _view(status))

    assert status == looks[-1].view.run.status if looks[-1].view else None
    assert 4 == len(looks)


async def test_a_timeout_carries_the_run_as_seen_last() -> None:
    """The caller's patience ends, and the run does not."""
    with pytest.raises(WaitTimeout, match="goes on") as error:
        await _looks(_view("in_progress"), timeout=0.3)

    assert "in_progress" == error.value.view.run.status


async def test_an_unknown_status_is_waited_out() -> None:
    """A word nobody has heard of neither ends the wait nor spins it."""
    looks = await _looks(_view("hibernating"), _view("completed"))

    assert 2 == len(looks)


async def test_a_short_outage_is_waited_out() -> None:
    """Temporal may be restarted during a wait; the look says that it was gone."""
    looks = await _looks(_view("queued"), TemporalUnreachable("gone"), _view("completed"))

    assert [False, True, False] == [look.problem is not None for look in looks]


async def test_who_was_never_there_is_not_waited_for() -> None:
    """A wrong address is told at once."""
    with pytest.raises(TemporalUnreachable):
        await _looks(TemporalUnreachable("gone"))


@pytest.mark.parametrize(
    ("given", "pause"), [(None, 0.1), (0, 0.1), (-1, 0.1), (10, 0.1), (250, 0.25), (10**9, 3600)]
)
async def test_pauses_follow_the_interval_within_limits(
    monkeypatch: pytest.MonkeyPatch, given: float | None, pause: float
) -> None:
    """A given interval is kept within 100 ms and 1 h; without one the first pause is 0.1 s."""
    paused: list[float] = []

    async def sleep(seconds: float) -> None:
        paused.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    left = [_view("queued"), _view("completed")]
    read: Callable[[timedelta], object] = lambda _: _popped(left)  # noqa: E731

    async for _ in watch(read, poll_interval_ms=given):  # type: ignore[arg-type]
        pass

    assert [pytest.approx(pause)] == paused


async def _popped(left: list[RunView]) -> RunView:
    return left.pop(0)
