"""What a person sees of a batch: figures that fit a line of 80 columns, and an exit code."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ledger.batch_item import ItemState
from ledger.batch_record import BatchCounts, BatchRecord, BatchStatus, batch_id
from ledger.run_record import Usage
from runlane.cli.batch_standing import Speed, Standing, clock, exit_code, goes_on, short
from runlane.errors import ExitCode

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
BATCH = BatchRecord(
    id=batch_id("", "in.jsonl"),
    name="in.jsonl",
    input_digest="sha256:" + "0" * 64,
    status=BatchStatus.IN_PROGRESS,
    total=1_000_000,
    created_at=NOON,
)


def standing(
    states: Mapping[ItemState, int],
    batch: BatchRecord = BATCH,
    *,
    rate: float | None = None,
    kinds: Mapping[str, int] | None = None,
    tokens: tuple[int, int] = (0, 0),
    people: int | None = 0,
) -> Standing:
    """Return how a batch stands whose items are in these states."""
    usage = Usage(prompt_tokens=tokens[0], completion_tokens=tokens[1], total_tokens=sum(tokens))
    by_state = dict.fromkeys(ItemState, 0) | dict(states)
    return Standing(
        batch, BatchCounts(by_state=by_state, by_error_kind=kinds or {}, usage=usage), rate, people
    )


def test_figures_of_a_large_batch_fit_a_terminal() -> None:
    """Rate, what is left, in flight, people, tokens and cost: 80 columns at a million items."""
    priced = replace(BATCH, options={"prices": "2.5,10"})

    found = standing(
        {ItemState.WAITING: 999_000, ItemState.BEGUN: 1_000, ItemState.PROMOTED: 12_000},
        priced,
        rate=150.5,
        tokens=(100_000_000, 20_000_000),
        people=12_000,
    )

    assert "150.5/s · 1:50:45 left · 1,000 in flight · 12,000 with people" == found.figures()
    assert "120.0M tokens · cost 450.00" == found.spent()


def test_a_cancel_is_told_until_the_end() -> None:
    """What has begun may take minutes to end, under a limit of requests a minute for one."""
    states = {ItemState.BEGUN: 64}

    assert (
        "cancelling · 64 in flight"
        == standing(states, replace(BATCH, status=BatchStatus.CANCELLING)).figures()
    )
    assert "64 in flight" == standing(states).figures()


def test_a_429_is_told_for_as_long_as_it_holds() -> None:
    """All stands still meanwhile; a batch that has ended waits for nothing."""
    until = datetime.now(UTC) + timedelta(seconds=40.5)
    held = replace(BATCH, held_until=until)
    over = replace(held, held_until=datetime.now(UTC))

    told = standing({ItemState.BEGUN: 3}, held).figures()
    assert told in {f"3 in flight · upstream says 429, 0:{left}" for left in (39, 40, 41)}
    ended = replace(held, status=BatchStatus.CANCELLED)
    for batch in (over, ended):
        assert "3 in flight" == standing({ItemState.BEGUN: 3}, batch).figures()


def test_what_waits_for_people_has_no_time_left() -> None:
    """Nobody knows how long people take; a rate of zero says nothing either."""
    assert "left" not in standing({ItemState.PROMOTED: 3}, rate=5.0, people=3).figures()
    assert "left" not in standing({ItemState.WAITING: 3}, rate=0.0).figures()


@pytest.mark.parametrize(
    ("states", "people", "figures", "only"),
    [
        ({ItemState.PROMOTED: 3}, 3, "0 in flight · 3 with people", True),
        ({ItemState.PROMOTED: 3}, 2, "1 in flight · 2 with people", False),
        ({ItemState.PROMOTED: 3}, 0, "3 in flight", False),
        ({ItemState.PROMOTED: 3}, None, "3 in flight", False),
        ({ItemState.PROMOTED: 3, ItemState.BEGUN: 1}, 3, "1 in flight · 3 with people", False),
        ({ItemState.COMPLETED: 3}, 0, "0 in flight", False),
    ],
)
def test_a_run_that_a_worker_answers_is_in_flight(
    states: Mapping[ItemState, int], people: int | None, figures: str, only: bool
) -> None:
    """Only what waits for people is with people, and where nobody can tell, nothing is."""
    found = standing(states, people=people)

    assert figures == found.figures()
    assert only == found.only_people_left


def test_failures_are_told_by_kind_the_commonest_first() -> None:
    """Three kinds are named, and that there are more."""
    found = standing(
        {ItemState.FAILED: 9, ItemState.UNCERTAIN: 1},
        kinds={"server_error": 1, "rate_limit_exceeded": 5, "uncertain": 1, "expired": 3},
    )

    kinds = "rate_limit_exceeded 5, expired 3, server_error 1, …"
    assert f"10 not completed: {kinds}" == found.failures()
    assert standing({ItemState.COMPLETED: 9}).failures() is None


@pytest.mark.parametrize(
    ("status", "state", "can"),
    [
        (BatchStatus.COMPLETED, ItemState.FAILED, True),
        (BatchStatus.EXPIRED, ItemState.EXPIRED, True),
        (BatchStatus.COMPLETED, ItemState.UNCERTAIN, False),
        (BatchStatus.COMPLETED, ItemState.COMPLETED, False),
        (BatchStatus.CANCELLED, ItemState.FAILED, False),
    ],
)
def test_a_retry_is_offered_where_it_does_something(
    status: BatchStatus, state: ItemState, can: bool
) -> None:
    """What is uncertain isn't tried again, and of a cancelled batch nothing is."""
    assert can == standing({state: 1}, replace(BATCH, status=status)).can_be_retried


def test_a_kind_from_outside_cannot_paint_the_terminal() -> None:
    """An upstream's word for an error is shown as text."""
    found = standing({ItemState.FAILED: 1}, kinds={"\x1b[2Jgone": 1}).failures()

    assert "1 failed: \\x1b[2Jgone 1" == found


@pytest.mark.parametrize(
    ("status", "states", "code"),
    [
        (BatchStatus.COMPLETED, {ItemState.COMPLETED: 2}, ExitCode.DONE),
        (
            BatchStatus.COMPLETED,
            {ItemState.COMPLETED: 1, ItemState.FAILED: 1},
            ExitCode.NOT_COMPLETED,
        ),
        (BatchStatus.EXPIRED, {ItemState.EXPIRED: 2}, ExitCode.NOT_COMPLETED),
        (BatchStatus.CANCELLED, {ItemState.COMPLETED: 2}, ExitCode.NOT_COMPLETED),
        (
            BatchStatus.IN_PROGRESS,
            {ItemState.COMPLETED: 1, ItemState.PROMOTED: 1},
            ExitCode.WAITING,
        ),
    ],
)
def test_the_exit_code_says_how_it_ended(
    status: BatchStatus, states: Mapping[ItemState, int], code: ExitCode
) -> None:
    """0 where all completed, 3 where some didn't, 4 where only people's are left."""
    assert code == exit_code(standing(states, replace(BATCH, status=status)))


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    """It needs a second from the first end on, forgets what is past, and begins anew by a retry."""
    speed = Speed()

    assert speed.rate(-60.0, 0) is None
    assert speed.rate(0.0, 0) is None
    assert speed.rate(10.0, 100) == 10.0
    assert speed.rate(40.0, 100) == 0.0
    assert speed.rate(41.0, 50) is None
    assert speed.rate(43.0, 54) == 2.0


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (36_061, "10:01:01")]
)
def test_a_time_is_shown_as_a_clock_does(seconds: float, shown: str) -> None:
    """Minutes and seconds, and hours where there are some."""
    assert shown == clock(seconds)


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (1_000, "1.0k"),
        (99_999, "100.0k"),
        (250_000, "250k"),
        (1_200_000, "1.2M"),
    ],
)
def test_a_number_is_shown_short(number: int, shown: str) -> None:
    """No more than six characters, whatever it is."""
    assert shown == short(number)


@pytest.mark.parametrize(
    ("waiting", "status", "expected"),
    [
        (3, BatchStatus.IN_PROGRESS, True),
        (3, BatchStatus.COMPLETED, True),
        (0, BatchStatus.COMPLETED, False),
        (3, BatchStatus.CANCELLING, False),
        (3, BatchStatus.CANCELLED, False),
        (3, BatchStatus.EXPIRED, False),
    ],
)
def test_a_batch_goes_on_only_where_somebody_resumed_it(
    waiting: int, status: BatchStatus, expected: bool
) -> None:
    """What waited has begun only where somebody resumed the batch, however soon it ended then."""
    paused = replace(BATCH, paused_at=NOON, paused_by="ada", paused_reason="lunch")
    before = standing({ItemState.WAITING: waiting, ItemState.BEGUN: 2}, paused)

    assert expected is goes_on(before, standing({}, replace(BATCH, status=status)))
    assert not goes_on(before, before)
