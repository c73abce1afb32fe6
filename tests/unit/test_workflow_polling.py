"""When to look again, and what a failure upstream becomes, without Temporal."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import failures
from activities.polling import curve, poll_interval
from runsapi import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    InvalidParameter,
    RunsAPIError,
)


@pytest.mark.parametrize(
    ("age", "expected"),
    [(0, 0.5), (15, 0.5), (30, 1.0), (300, 10.0), (27_000, 900.0), (604_800, 900.0)],
)
def test_our_curve_is_a_thirtieth_of_the_age(age: float, expected: float) -> None:
    """At least half a second, at most a quarter of an hour."""
    assert curve(age, floor=0.5, ceiling=900.0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("fixed", "asked", "expected"),
    [(2000, 7000, 2.0), (None, 7000, 7.0), (None, None, 10.0), (100, None, 0.1)],
)
def test_the_caller_beats_the_header_and_the_header_beats_our_curve(
    fixed: int | None, asked: int | None, expected: float
) -> None:
    """The order of precedence is the SDKs' own."""
    interval = poll_interval(
        300.0, poll_interval_ms=fixed, poll_after_ms=asked, floor=0.5, ceiling=900.0
    )

    assert interval == pytest.approx(expected)


def test_a_week_long_leg_is_looked_at_about_780_times() -> None:
    """The budget of a week's leg by timers: eleven events a look are under 10,000."""
    age, looks = 300.0, 0
    while age < 7 * 86_400:
        age += curve(age, floor=0.5, ceiling=900.0)
        looks += 1

    assert 770 < looks < 800
    assert looks * 11 < 10_000


def _status(status: int, **fields: object) -> APIStatusError:
    return APIStatusError(
        status,
        str(fields.pop("message", "It said so")),
        url="https://upstream.test/v1/threads/t/runs",
        **fields,  # type: ignore[arg-type]  # whichever field a case needs
    )


def _translated(error: RunsAPIError, *, creating: bool) -> ApplicationError:
    def translate() -> None:
        failures.raise_for_upstream(error, creating=creating)

    with pytest.raises(ApplicationError) as raised:
        ActivityEnvironment().run(translate)
    return raised.value


_BUSY = {"x-should-retry": "true"}
_FINAL = {"x-should-retry": "false"}


@pytest.mark.parametrize("creating", [True, False])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (APIConnectionError("No answer"), failures.UNAVAILABLE),
        (APIResponseError("No JSON"), failures.UNAVAILABLE),
        (_status(408), failures.UNAVAILABLE),
        (_status(409), failures.UNAVAILABLE),
        (_status(429), failures.RATE_LIMITED),
        (_status(500), failures.UNAVAILABLE),
        (_status(503), failures.UNAVAILABLE),
        (_status(529), failures.UNAVAILABLE),
        (_status(400, code="conversation_locked"), failures.UNAVAILABLE),
        (_status(400, headers=_BUSY), failures.UNAVAILABLE),
    ],
    ids=repr,
)
def test_what_may_pass_is_tried_again(error: RunsAPIError, kind: str, creating: bool) -> None:
    """No answer, an overload or a lock says nothing about the request itself."""
    translated = _translated(error, creating=creating)

    assert kind == translated.type
    assert not translated.non_retryable


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (_status(400), "invalid_prompt"),
        (_status(401), "server_error"),
        (_status(403), "server_error"),
        (_status(404), "server_error"),
        (_status(422), "invalid_prompt"),
        (_status(429, code="insufficient_quota"), "rate_limit_exceeded"),
        (_status(429, type="insufficient_quota"), "rate_limit_exceeded"),
        (_status(503, headers=_FINAL), "server_error"),
        (InvalidParameter(param="model", message="too long"), "invalid_prompt"),
    ],
    ids=repr,
)
def test_a_create_that_can_never_work_is_final(error: RunsAPIError, code: str) -> None:
    """With nothing to keep alive, the run fails with one of the protocol's three codes."""
    translated = _translated(error, creating=True)

    assert failures.REFUSED == translated.type
    assert translated.non_retryable
    assert code == translated.details[0]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_status(401), "credentials"),
        (_status(403), "credentials"),
        (_status(404), "not_found"),
        (_status(429, code="insufficient_quota"), "quota"),
    ],
    ids=repr,
)
def test_on_a_run_that_exists_what_somebody_can_mend_blocks(error: RunsAPIError, kind: str) -> None:
    """A rotated key or a paid bill lets the run go on, so nothing of it is lost."""
    translated = _translated(error, creating=False)

    assert failures.BLOCKED == translated.type
    assert translated.non_retryable
    assert kind == translated.details[0]


@pytest.mark.parametrize("creating", [True, False])
def test_a_404_names_what_was_called(creating: bool) -> None:
    """The usual cause is a wrong base URL, which only the URL shows."""
    assert "https://upstream.test/v1/threads/t/runs" in str(
        _translated(_status(404), creating=creating)
    )


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "86400"}, 3600.0),
    ],
)
def test_the_server_says_when_to_come_back(headers: dict[str, str], seconds: float) -> None:
    """`retry-after-ms`, then `retry-after`, and never more than an hour."""
    delay = _translated(_status(429, headers=headers), creating=False).next_retry_delay

    assert timedelta(seconds=seconds) == delay


def test_the_server_may_say_it_by_a_date() -> None:
    """The HTTP-date form counts from now."""
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    delay = _translated(_status(503, headers={"retry-after": when}), creating=True).next_retry_delay

    assert delay is not None
    assert timedelta(seconds=27) < delay <= timedelta(seconds=30)


@pytest.mark.parametrize("value", ["0", "-5", "soon", "Sat, 01 Jan 2000 00:00:00 GMT", "nan"])
def test_an_unusable_retry_after_leaves_our_own_backoff(value: str) -> None:
    """What is past, zero or no time at all must not make a hot loop."""
    error = _status(429, headers={"retry-after": value})

    delay = _translated(error, creating=False).next_retry_delay

    assert timedelta(seconds=1) == delay


def test_an_error_never_holds_a_key() -> None:
    """Of an answer only its words are passed on, shortened; no header is."""
    error = _status(500, message="m" * 5000, headers={"authorization": "Bearer sk-secret"})
    translated = _translated(error, creating=False)

    assert "sk-secret" not in repr((translated, translated.details))
    assert len(str(translated)) < 500
