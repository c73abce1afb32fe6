"""A request is refused before it leaves, with the parameter's name and its limit."""

from datetime import timedelta
from typing import Any

import pytest

from runlane.errors import InvalidRequest
from runlane.requests import asked, checked_metadata, first_view
from workflows.contract import MAX_MESSAGE_BYTES, derive_run_id

ASSISTANT = {"assistant_id": "asst_1"}


def test_a_key_always_names_the_same_run() -> None:
    """The run id follows from the key; without one it is new each time."""
    first = asked("thread_1", ASSISTANT, idempotency_key="k")
    second = asked("thread_1", ASSISTANT, idempotency_key="k")

    assert first.run_id == second.run_id == derive_run_id("", "k")
    assert asked("thread_1", ASSISTANT).run_id != asked("thread_1", ASSISTANT).run_id


def test_how_one_listens_is_no_part_of_a_request() -> None:
    """A key that comes again with `stream`, or from before there was this option, is the same."""
    plain = asked("thread_1", ASSISTANT, idempotency_key="k").request
    streamed = asked("thread_1", ASSISTANT, idempotency_key="k", stream=True).request
    other = asked("thread_1", ASSISTANT, idempotency_key="k", max_rounds=3).request

    assert (False, True) == (plain.options.stream, streamed.options.stream)
    assert plain.digest() == streamed.digest()
    assert plain.digest() != other.digest()


def test_run_ids_look_alike_with_and_without_a_key() -> None:
    """Nobody can tell from an id whether a key was given."""
    drawn = asked("thread_1", ASSISTANT).run_id
    derived = asked("thread_1", ASSISTANT, idempotency_key="k").run_id

    assert len(derived) == len(drawn) == len("run_") + 24
    assert drawn.startswith("run_")


@pytest.mark.parametrize(
    ("thread_id", "params", "options", "param"),
    [
        ("", ASSISTANT, {}, "thread_id"),
        ("t" * 256, ASSISTANT, {}, "thread_id"),
        ("thread\n1", ASSISTANT, {}, "thread_id"),
        ('say "hi"', ASSISTANT, {}, "thread_id"),
        ("back\\slash", ASSISTANT, {}, "thread_id"),
        ("quoted'", ASSISTANT, {}, "thread_id"),
        ("../admin", ASSISTANT, {}, "thread_id"),
        ("..", ASSISTANT, {}, "thread_id"),
        ("thread_1?x=1", ASSISTANT, {}, "thread_id"),
        ("thread_1#x", ASSISTANT, {}, "thread_id"),
        ("%2e%2e", ASSISTANT, {}, "thread_id"),
        ("thread_1", {}, {}, "assistant_id"),
        ("thread_1", {"assistant_id": "a" * 256}, {}, "assistant_id"),
        ("thread_1", {**ASSISTANT, "temperature": 3}, {}, "temperature"),
        ("thread_1", {**ASSISTANT, "instuctions": "x"}, {}, "instuctions"),
        ("thread_1", {**ASSISTANT, "stream": True}, {}, "stream"),
        ("thread_1", {**ASSISTANT, "metadata": {"runlane_run_id": "x"}}, {}, "metadata"),
        ("thread_1", ASSISTANT, {"idempotency_key": ""}, "idempotency_key"),
        ("thread_1", ASSISTANT, {"on_expiry": "retry"}, "on_expiry"),
        ("thread_1", ASSISTANT, {"max_rounds": 0}, "max_rounds"),
        ("thread_1", ASSISTANT, {"deadline": 0}, "deadline"),
        ("thread_1", ASSISTANT, {"deadline": timedelta(days=9000)}, "deadline"),
    ],
)
def test_what_cannot_be_used_is_named(
    thread_id: str, params: dict[str, Any], options: dict[str, Any], param: str
) -> None:
    """Each refusal names the parameter at fault."""
    with pytest.raises(InvalidRequest) as refused:
        asked(thread_id, params, **options)

    assert refused.value.param == param
    assert param in refused.value.message


def test_null_and_absent_stay_different() -> None:
    """What was given as null is sent as null, and what wasn't given isn't sent."""
    request = asked("thread_1", {**ASSISTANT, "model": None}).request

    assert {"assistant_id": "asst_1", "model": None} == request.params


def test_a_large_request_is_refused_with_both_numbers() -> None:
    """Over the limit, the message says how large the request is and how large it may be."""
    messages = [{"role": "user", "content": "x" * 200_000} for _ in range(6)]

    with pytest.raises(InvalidRequest, match=f"{MAX_MESSAGE_BYTES:,}") as refused:
        asked("thread_1", {**ASSISTANT, "additional_messages": messages})

    assert "too_large" == refused.value.code
    stored = asked("thread_1", {**ASSISTANT, "additional_messages": messages}, max_bytes=8_000_000)
    assert messages == stored.request.params["additional_messages"]


@pytest.mark.parametrize(
    ("given", "used"),
    [(None, None), (0, None), (-5, None), (1, 100), (2_000, 2_000), (10**9, 3_600_000)],
)
def test_poll_intervals_are_kept_within_their_limits(given: int | None, used: int | None) -> None:
    """0 and below are as good as none; others are kept within 100 ms and 1 h."""
    request = asked("thread_1", ASSISTANT, poll_interval_ms=given).request

    assert used == request.options.poll_interval_ms


def test_creation_times_have_milliseconds() -> None:
    """What lists are ordered by is the same number on every server."""
    created_at = asked("thread_1", ASSISTANT).request.created_at

    assert round(created_at, 3) == created_at


def test_a_fresh_run_is_queued_and_has_its_deadline() -> None:
    """What `create` returns needs no question to Temporal."""
    run_id, request = asked("thread_1", {**ASSISTANT, "metadata": {"a": "b"}}, deadline=60)

    view = first_view(run_id, request)

    assert ("queued", "thread_1", {"a": "b"}) == (
        view.run.status,
        view.run.thread_id,
        view.run.metadata,
    )
    assert int(request.created_at + 60) == view.run.expires_at


def test_metadata_has_room_for_fourteen_pairs() -> None:
    """Two of the protocol's sixteen are Runlane's."""
    fourteen = {f"k{number}": "v" for number in range(14)}

    assert fourteen == checked_metadata(fourteen)
    with pytest.raises(InvalidRequest, match="14"):
        checked_metadata({**fourteen, "one": "more"})


@pytest.mark.parametrize(
    "params",
    [
        {"instructions": "\ud83d"},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": 10**5000}}}]},
    ],
    ids=["half a pair", "huge integer"],
)
def test_what_json_in_utf8_cannot_hold_is_refused(params: dict[str, Any]) -> None:
    """It would fail at Temporal's client, or much later at the upstream."""
    with pytest.raises(InvalidRequest, match="JSON in UTF-8"):
        asked("thread_1", {**ASSISTANT, **params})


def test_half_a_round_is_no_limit() -> None:
    """Limits that are no whole numbers are refused by name."""
    with pytest.raises(InvalidRequest, match="max_rounds"):
        asked("thread_1", ASSISTANT, max_rounds=2.5)  # type: ignore[arg-type]
