"""What a schedule is asked to do is checked in full before anything is sent."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from activities.scheduled_batch_contract import ClockTime
from runlane.batches.scheduling import clock_time
from runlane.errors import InvalidRequest
from runlane.scheduling import MAX_REQUEST_BYTES, OVERLAPS, Wanted

ASKED = Wanted(
    name="nightly",
    cron=["0 2 * * *"],
    timezone="Europe/Berlin",
    params={"assistant_id": "asst_1", "metadata": {"k": "v"}},
    options={"max_rounds": 3, "requested_by": "ben"},
)


def test_overlaps_are_called_as_temporal_calls_them() -> None:
    """All that Temporal knows, in the words of its command line."""
    assert [
        "skip", "buffer-one", "buffer-all", "cancel-other", "terminate-other", "allow-all",
    ] == list(OVERLAPS)  # fmt: skip


def test_a_start_asks_for_what_create_would() -> None:
    """Parameters and options are those of a run; without a thread each start makes one."""
    request = ASKED.request()

    assert ("nightly", None) == (request.schedule, request.thread_id)
    assert {"assistant_id": "asst_1", "metadata": {"k": "v"}} == request.params
    assert (3, "ben") == (request.options.max_rounds, request.requested_by)
    assert "thread_9" == replace(ASKED, thread_id="thread_9").request().thread_id


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"name": ""}, "NAME", "1 to 200"),
        ({"name": "two\nlines"}, "NAME", "a line of"),
        ({"name": " nightly"}, "NAME", "a line of"),
        ({"name": "n" * 201}, "NAME", "1 to 200"),
        ({"cron": []}, "--cron", "needs a --cron"),
        ({"cron": [" "]}, "--cron", "must be a line such as"),
        ({"cron": ["CRON_TZ=Asia/Tokyo 0 2 * * *"]}, "--cron", "by --timezone"),
        ({"timezone": "Europe/Bielefeld"}, "--timezone", "no time zone 'Europe/Bielefeld'"),
        ({"timezone": "../etc/passwd"}, "--timezone", "no time zone"),
        ({"overlap": "kill"}, "--overlap", "must be one of skip, buffer-one"),
        ({"catchup_window": timedelta(seconds=9)}, "--catchup-window", "between 10s and 365d"),
        ({"catchup_window": timedelta(days=366)}, "--catchup-window", "got 366d"),
        ({"params": {}}, "assistant_id", "assistant_id"),
        ({"params": {"assistant_id": "a", "colour": "red"}}, "colour", "colour"),
        ({"thread_id": "a/b"}, "thread_id", "can't hold any of"),
        (
            {"params": {"assistant_id": "a", "instructions": "x" * MAX_REQUEST_BYTES}},
            "params",
            "a schedule may hold 24,000",
        ),
    ],
)
def test_what_cant_be_used_is_refused(fields: dict[str, Any], param: str, said: str) -> None:
    """The error names the option and its limit."""
    with pytest.raises(InvalidRequest, match=said) as refused:
        replace(ASKED, **fields).request()

    assert param == refused.value.param


def test_the_same_schedule_is_known_again() -> None:
    """By all that was asked for; by whom doesn't count."""
    other_person = replace(ASKED, options={**ASKED.options, "requested_by": "ann"})
    others = [
        replace(ASKED, cron=["0 3 * * *"]),
        replace(ASKED, timezone="UTC"),
        replace(ASKED, overlap="allow-all"),
        replace(ASKED, catchup_window=timedelta(hours=1)),
        replace(ASKED, thread_id="thread_1"),
        replace(ASKED, params={"assistant_id": "asst_2"}),
        replace(ASKED, options={"max_rounds": 4}),
    ]

    assert ASKED.digest() == replace(ASKED).digest() == other_person.digest()
    assert len(others) + 1 == len({ASKED.digest(), *(each.digest() for each in others)})


@pytest.mark.parametrize("text", ["24:00", "6", "06:60", "tomorrow", "2026-12-01T06:00", ""])
def test_a_deadline_of_batches_is_a_time_of_day(text: str) -> None:
    """A date would be over after the first of them."""
    with pytest.raises(InvalidRequest, match="a time such as 06:00") as refused:
        clock_time(text, "UTC")
    assert "--deadline" == refused.value.param
    assert ClockTime(hour=6, minute=5, zone="Asia/Tokyo") == clock_time(" 6:05", "Asia/Tokyo")
