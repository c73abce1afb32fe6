"""How a run ends, what it shows, and whether another upstream run is tried, without Temporal."""

from typing import Any

import pytest

from runsapi import Run
from workflows import attempts, ending
from workflows.contract import PENDING_MEMO_BYTES, RunOptions, RunRequest, canonical_json
from workflows.state import Answer, OpenCall, RunState, StopReason
from workflows.view import pending_memo, run_view, seed_run, total_usage


def request(**options: Any) -> RunRequest:
    """Return a request with these options."""
    params = {"assistant_id": "asst_1", "additional_messages": [{"role": "user", "content": "x"}]}
    return RunRequest(
        thread_id="thread_1", params=params, created_at=1.0, options=RunOptions(**options)
    )


def upstream(status: str, **fields: Any) -> Run:
    """Return an upstream run in a status."""
    return Run.model_validate({"id": "run_up", "status": status, **fields})


def held() -> Answer:
    """Return an answer that a further upstream run could take."""
    return Answer(
        tool_call_id="call_1",
        name="look_up",
        arguments='{"order": 1}',
        key="k",
        output="x",
        output_digest="d",
        attempt=1,
        round=1,
        answered_at=1.0,
        used_in=1,
        call_ids=["call_1"],
    )


@pytest.mark.parametrize(
    ("stop", "status", "shown"),
    [
        (None, "completed", "completed"),
        (None, "failed", "failed"),
        (None, "incomplete", "incomplete"),
        (None, "cancelled", "cancelled"),
        (None, "expired", "expired"),
        (StopReason.CANCEL, "cancelled", "cancelled"),
        (StopReason.CANCEL, "completed", "completed"),
        (StopReason.CANCEL, "failed", "failed"),
        (StopReason.CANCEL, "expired", "cancelled"),
        (StopReason.CANCEL, None, "cancelled"),
        (StopReason.CANCEL, "in_progress", "cancelled"),
        (StopReason.DEADLINE, "cancelled", "expired"),
        (StopReason.DEADLINE, "completed", "completed"),
        (StopReason.DEADLINE, None, "expired"),
        (StopReason.ROUNDS, "cancelled", "incomplete"),
        (StopReason.GONE, "in_progress", "failed"),
        (StopReason.REFUSED, None, "failed"),
    ],
)
def test_how_a_run_ends(stop: StopReason | None, status: str | None, shown: str) -> None:
    """What the upstream run reached by itself stands; else the reason of the stop decides."""
    state = RunState(stop=stop, run=None if status is None else upstream(status))

    ending.end(state, request(), 9.0)

    assert shown == state.status
    assert state.ended_at == 9.0


@pytest.mark.parametrize("stop", [StopReason.DEADLINE, StopReason.ROUNDS])
def test_an_end_of_our_own_gives_its_reason(stop: StopReason) -> None:
    """A deadline and a limit of rounds name the limit that was met."""
    state = RunState(stop=stop)

    ending.end(state, request(deadline=60.0, max_rounds=3), 9.0)

    assert state.last_error is not None
    assert ("60" if stop == StopReason.DEADLINE else "3") in state.last_error["message"]


def test_an_upstream_run_that_may_be_alive_is_named() -> None:
    """Where the truth couldn't be established, the run says so rather than guess."""
    state = RunState(stop=StopReason.CANCEL, run=upstream("cancelling"))

    ending.end(state, request(), 9.0)

    assert state.uncertain is not None
    assert "run_up" in state.uncertain


@pytest.mark.parametrize(
    ("barren", "answers", "may"),
    [(0, [], True), (1, [], False), (2, [held()], True), (3, [held()], False)],
)
def test_how_often_an_upstream_run_is_created_anew(
    barren: int, answers: list[Answer], may: bool
) -> None:
    """Three times in vain where answers are held, once where there are none."""
    assert may == attempts.may_recreate(RunState(attempt=1, barren=barren, answers=answers))


def test_messages_are_added_to_the_thread_once() -> None:
    """The first upstream run added them, so a later one must not."""
    first = attempts.create_params("run_1", request(), RunState())
    second = attempts.create_params("run_1", request(), RunState(attempt=1))

    assert "additional_messages" in first
    assert "additional_messages" not in second
    assert {"runlane_run_id": "run_1", "runlane_attempt": "2"} == second["metadata"]


def test_the_metadata_shown_is_the_callers() -> None:
    """Our stamps are the upstream's business."""
    stamps = attempts.stamped("run_1", 1, {"ticket": "7"})
    state = RunState(run=upstream("queued", metadata=stamps), metadata={"ticket": "7"})

    assert {"ticket": "7"} == seed_run("run_1", request(), state).metadata
    assert {"ticket": "7"} == attempts.unstamped(stamps)


def test_usage_is_summed_over_attempts() -> None:
    """All upstream runs were paid for."""
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    state = RunState(run=upstream("completed", usage=usage), past_usage=[5, 2, 7])

    assert [10, 4, 14] == total_usage(state)

    ending.end(state, request(), 9.0)
    shown = run_view("run_1", request(), state).run.usage

    assert shown is not None
    assert 14 == shown.total_tokens


def test_the_pending_memo_stays_small() -> None:
    """A memo that is too large would stop the workflow for good; the view has all calls."""
    calls = [
        OpenCall(id=f"call_{n}", name="n" * 64, arguments="ä" * 5000, key="k", since_at=1.0)
        for n in range(100)
    ]
    state = RunState(attempt=1, rounds=1, calls=calls, run=upstream("expired"))

    shown = pending_memo(state)

    assert 0 < len(shown) < 100
    assert len(canonical_json(shown).encode()) <= PENDING_MEMO_BYTES
    view = run_view("run_1", request(), state)
    assert 100 == len(view.runlane.pending)
    assert view.runlane.parked
    assert "requires_action" == view.run.status
