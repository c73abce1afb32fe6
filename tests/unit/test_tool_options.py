"""Options of a tool: who approves, by when; what can't be used is refused by its name."""

import inspect
from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import runlane
from runlane import Registry
from runlane.errors import InvalidTool
from runlane.tools.deadline import Deadline, DeadlineOutcome, read_deadline
from runlane.tools.options import ToolOptions
from runlane.tools.policy import Policy
from runlane.tools.tool import Tool

BERLIN = ZoneInfo("Europe/Berlin")


def declared(**options: Any) -> Tool:
    """Return a tool with these options."""

    def pay(amount: int) -> None:
        """Pay."""

    return next(iter(Registry.of(runlane.tool(**options)(pay))))


def test_a_tool_without_options_needs_approval() -> None:
    """Nobody said that it is harmless, so it is taken for dangerous."""
    tool = declared()

    assert ToolOptions() == tool.options
    assert "unclassified" == tool.options.policy_name
    assert (Policy.APPROVE, "nobody classified the tool") == tool.classify({"amount": 1})


def test_every_option_reaches_the_tool() -> None:
    """As it was written, read."""
    tool = declared(
        policy="approve",
        read_only=False,
        approvers=["ann", "bob"],
        groups=["desk", "board"],
        approvals=2,
        deadline="17:00 Europe/Berlin",
        outcome="escalate",
        timeout="5m",
        retries=0,
        at_most_once=True,
    )

    expected = ToolOptions(
        policy=Policy.APPROVE,
        approvers=("ann", "bob"),
        groups=("desk", "board"),
        approvals=2,
        deadline=Deadline(at=time(17, tzinfo=BERLIN)),
        outcome=DeadlineOutcome.ESCALATE,
        timeout=timedelta(minutes=5),
        at_most_once=True,
    )
    assert expected == tool.options


def test_every_option_has_its_reader() -> None:
    """What the class has, the decorator takes, and refuses by name when it makes no sense."""
    parameters = set(inspect.signature(ToolOptions).parameters)

    for option in parameters:
        with pytest.raises(InvalidTool, match=f"Tool pay: {option} ") as caught:
            declared(**{option: object()})
        assert option == caught.value.param


@pytest.mark.parametrize(
    ("options", "param", "told"),
    [
        ({"policy": "always"}, "policy", "must be auto, approve, or a function"),
        ({"policy": lambda: "auto"}, "policy", "one parameter"),
        ({"policy": dict}, "policy", "must be auto, approve, or a function"),
        ({"read_only": 1}, "read_only", "true or false"),
        ({"approvers": "ann"}, "approvers", "a list"),
        ({"approvers": []}, "approvers", "1 to 100"),
        ({"approvers": ["ann", "ann"]}, "approvers", "different"),
        ({"groups": [" "]}, "groups", "1 to 255 characters"),
        ({"approvals": 0}, "approvals", "from 1 to 20"),
        ({"approvals": True}, "approvals", "from 1 to 20"),
        ({"approvals": 3, "approvers": ["ann", "bob"]}, "approvals", "at most 2"),
        ({"deadline": "soon"}, "deadline", "30s, 15m, 4h, 90d"),
        ({"deadline": 0}, "deadline", "more than 0"),
        ({"deadline": "17:00"}, "deadline", "must have a zone"),
        ({"deadline": time(17)}, "deadline", "must have a zone"),
        ({"deadline": "17:00 Mars/Base"}, "deadline", "'Mars/Base'"),
        ({"deadline": "25:00 UTC"}, "deadline", "a time with zone"),
        ({"outcome": "approve", "deadline": 1}, "outcome", "reject, fail, escalate"),
        ({"outcome": "reject"}, "outcome", "there is none"),
        ({"outcome": "escalate", "deadline": 1, "groups": ["a"]}, "outcome", "at least two"),
        ({"timeout": "25h"}, "timeout", "at most 1d"),
        ({"timeout": float("nan")}, "timeout", "more than 0"),
        ({"retries": -1}, "retries", "from 0 to 100"),
        ({"retries": 1, "at_most_once": True}, "retries", "must be 0"),
        ({"polizy": "auto"}, "polizy", "is not an option; those are policy, read_only"),
    ],
)
def test_a_bad_option_is_named_with_its_limit(
    options: dict[str, Any], param: str, told: str
) -> None:
    """Where the tool is written, not when a run needs it."""
    with pytest.raises(InvalidTool, match=f"^Tool pay: {param} ") as caught:
        declared(**options)

    assert param == caught.value.param
    assert told in caught.value.message


def test_an_async_policy_is_refused() -> None:
    """It would be true, whatever it says."""

    async def policy(arguments: Mapping[str, Any]) -> str:
        return "auto"

    with pytest.raises(InvalidTool, match="policy must be a plain function"):
        declared(policy=policy)


def test_a_policy_sees_the_arguments_and_gives_its_reason() -> None:
    """Small sums by code alone, larger ones by a person, who is told why."""

    def policy(arguments: Mapping[str, Any]) -> str | tuple[str, str]:
        return ("approve", "over 100") if arguments["amount"] > 100 else "auto"

    tool = declared(policy=policy)

    assert (Policy.AUTO, None) == tool.classify({"amount": 100})
    assert (Policy.APPROVE, "over 100") == tool.classify({"amount": 101})
    assert "function" == tool.options.policy_name


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (lambda arguments: arguments["nothing"], "KeyError"),
        (lambda arguments: True, "ValueError"),
        (lambda arguments: None, "ValueError"),
        (lambda arguments: ("auto", 7), "TypeError"),
        (lambda arguments: ("auto", "why", "what"), "ValueError"),
    ],
)
def test_a_policy_that_fails_approves_nothing(
    given: Any, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake in it, or an answer that is none, leaves the call to a person."""
    arguments = {"amount": 4711}

    assert (Policy.APPROVE, f"its policy failed: {error}") == declared(policy=given).classify(
        arguments
    )
    assert "A tool's policy failed" in caplog.text
    assert "4711" not in caplog.text


def test_a_policy_can_not_change_what_it_judges() -> None:
    """The tool gets the arguments that were judged."""
    arguments = {"amount": 1}

    declared(policy=lambda given: given.update(amount=1000) or "auto").classify(arguments)

    assert {"amount": 1} == arguments


@pytest.mark.parametrize(
    ("given", "asked", "instant"),
    [
        ("4h", "2026-03-02T10:00Z", "2026-03-02T14:00Z"),
        (90, "2026-03-02T10:00Z", "2026-03-02T10:01:30Z"),
        (timedelta(days=2), "2026-03-02T10:00+02:00", "2026-03-04T08:00Z"),
        ("17:00 Europe/Berlin", "2026-03-02T10:00Z", "2026-03-02T16:00Z"),
        ("17:00 Europe/Berlin", "2026-03-02T16:00Z", "2026-03-03T16:00Z"),
        ("17:00 Europe/Berlin", "2026-07-01T10:00Z", "2026-07-01T15:00Z"),
        # Berlin's day has begun, UTC's hasn't.
        ("00:30 Europe/Berlin", "2026-03-02T23:15Z", "2026-03-02T23:30Z"),
        # New York's day hasn't ended, UTC's has.
        ("22:00 America/New_York", "2026-03-03T02:00Z", "2026-03-03T03:00Z"),
        # 02:30 doesn't exist on that day: clocks go from 2 to 3.
        ("02:30 Europe/Berlin", "2026-03-28T12:00Z", "2026-03-29T01:30Z"),
        (time(9, tzinfo=UTC), "2026-03-02T10:00Z", "2026-03-03T09:00Z"),
    ],
)
def test_a_deadline_is_an_instant_once_a_call_is_asked(
    given: object, asked: str, instant: str
) -> None:
    """A time of day is the next one in its zone, summer or winter."""
    found = read_deadline(given).instant(datetime.fromisoformat(asked))

    assert datetime.fromisoformat(instant) == found
    assert UTC is found.tzinfo


@pytest.mark.parametrize("text", ["4h", "90d", "250ms", "17:00 Europe/Berlin"])
def test_a_deadline_is_shown_as_it_is_written(text: str) -> None:
    """What a list shows can be put into the code."""
    assert text == str(read_deadline(text))
