"""Which answer belongs to which call, without Temporal."""

import json

import pytest

from runsapi import MAX_TOOL_OUTPUTS_BYTES, Run
from workflows import answers
from workflows.contract import (
    MAX_EARLY_CALLS,
    AnswerOutcome,
    ToolOutputMessage,
    ToolOutputs,
)
from workflows.state import RunState, StopReason


def asking(*calls: tuple[str, str, str]) -> Run:
    """Return an upstream run that waits for calls, each of id, name and arguments."""
    return Run.model_validate(
        {
            "id": "run_up",
            "status": "requires_action",
            "required_action": {
                "type": "submit_tool_outputs",
                "submit_tool_outputs": {
                    "tool_calls": [
                        {
                            "id": call_id,
                            "type": "function",
                            "function": {"name": name, "arguments": arguments},
                        }
                        for call_id, name, arguments in calls
                    ]
                },
            },
        }
    )


def gathering(*calls: tuple[str, str, str]) -> RunState:
    """Return the state of a run in its first attempt that waits for calls."""
    state = RunState(attempt=1)
    assert answers.open_round(state, asking(*calls), 1.0)
    return state


def deliver(state: RunState, call_id: str, output: str, *, by_signal: bool = False) -> str:
    """Deliver one answer; return the receipt's word."""
    message = ToolOutputs(tool_outputs=[ToolOutputMessage(tool_call_id=call_id, output=output)])
    (receipt,) = answers.deliver(state, message, now=2.0, by_signal=by_signal)
    return str(receipt.status)


def recreate(state: RunState, *calls: tuple[str, str, str]) -> None:
    """Let the upstream run expire, and another one ask for calls."""
    state.attempt += 1
    state.calls = []
    answers.open_round(state, asking(*calls), 3.0)


ONE = ("call_1", "look_up", '{"a": 1, "b": 2}')


@pytest.mark.parametrize("by_signal", [False, True])
def test_the_answer_to_an_open_call_is_accepted_once(by_signal: bool) -> None:
    """The first content stands: the same again is a duplicate, another one a conflict."""
    state = gathering(ONE)

    assert deliver(state, "call_1", "x", by_signal=by_signal) == "accepted"
    assert deliver(state, "call_1", "x", by_signal=by_signal) == "duplicate"
    assert deliver(state, "call_1", "y", by_signal=by_signal) == "conflict"
    assert [a.output for a in state.answers] == ["x"]


def test_an_answer_before_anybody_asks_is_kept_and_used() -> None:
    """Early answers wait for their call; a second content for it is a conflict there too."""
    state = RunState(attempt=1)

    assert deliver(state, "call_1", "x") == "early"
    assert deliver(state, "call_1", "x") == "duplicate"
    assert deliver(state, "call_1", "y") == "conflict"

    answers.open_round(state, asking(ONE), 1.0)

    assert not state.early
    assert answers.unanswered(state) == []
    assert state.answers[0].output == "x"


def test_an_id_nobody_asked_for_is_told_so_by_update_and_kept_by_signal() -> None:
    """An update can be refused; a signal can't, so what it brings is buffered."""
    state = gathering(ONE)

    assert deliver(state, "call_2", "x") == "unknown"
    assert deliver(state, "call_2", "x", by_signal=True) == "early"


@pytest.mark.parametrize(
    ("outcome", "another"),
    [
        (AnswerOutcome.WAITING, "conflict"),
        (AnswerOutcome.SUBMITTED, "late"),
        (AnswerOutcome.OVERTAKEN, "late"),
        (AnswerOutcome.UNCERTAIN, "late"),
    ],
)
def test_another_content_after_the_round_closed_is_late(
    outcome: AnswerOutcome, another: str
) -> None:
    """Once an answer may have left for the upstream, another one comes late for it."""
    state = gathering(ONE)
    deliver(state, "call_1", "x")
    answers.close_round(state, outcome)

    assert deliver(state, "call_1", "x") == "duplicate"
    assert deliver(state, "call_1", "y") == another


def test_a_stopped_or_ended_run_takes_nothing_more() -> None:
    """While it is cancelled, and after its end, an answer is late, and a signal's is kept as
    rejected with its reason."""
    stopped, ended = gathering(ONE), gathering(ONE)
    stopped.stop, ended.ended_at = StopReason.CANCEL, 5.0

    assert deliver(stopped, "call_1", "x") == "late"
    assert deliver(ended, "call_9", "x", by_signal=True) == "late"
    assert [(r.tool_call_id, r.reason) for r in ended.rejected] == [("call_9", "late")]


def test_a_call_that_was_overtaken_unanswered_is_late() -> None:
    """Whoever answers a call that somebody else answered upstream hears that it is too late."""
    state = gathering(ONE)
    answers.close_round(state, AnswerOutcome.OVERTAKEN)

    assert deliver(state, "call_1", "x") == "late"


def test_a_round_stays_below_the_upstreams_limit() -> None:
    """What doesn't fit is refused with the room that is left, and nothing accepted is lost."""
    state = gathering(ONE, ("call_2", "look_up", "{}"))
    limit = MAX_TOOL_OUTPUTS_BYTES - 1
    deliver(state, "call_1", "x" * (limit - 3))

    receipt = answers.assess(state, ToolOutputMessage(tool_call_id="call_2", output="äää"))

    assert (receipt.status, receipt.room) == ("too_large", 3)
    assert deliver(state, "call_2", "äb") == "accepted"
    assert len(state.answers) == 2


def test_early_answers_have_a_limit() -> None:
    """Nobody can fill a history with answers that no call asks for."""
    state = RunState(attempt=1)
    for number in range(MAX_EARLY_CALLS):
        assert deliver(state, f"call_{number}", "x") == "early"

    assert deliver(state, "call_one_more", "x") == "too_large"


def test_ids_of_older_attempts_are_known() -> None:
    """Answering by an older attempt's id is late, a duplicate or a conflict, never unknown."""
    state = gathering(ONE, ("call_2", "look_up", "{}"))
    deliver(state, "call_1", "x")
    recreate(state, ("call_3", "look_up", "{}"), ("call_4", ONE[1], ONE[2]))

    assert deliver(state, "call_2", "y") == "late"
    assert deliver(state, "call_1", "x") == "duplicate"
    assert deliver(state, "call_1", "y") == "conflict"
    assert deliver(state, "call_4", "x") == "duplicate"


def test_equal_arguments_are_equal_however_they_are_written() -> None:
    """A re-created run's call with the same name and JSON arguments gets the answer at once."""
    state = gathering(ONE)
    deliver(state, "call_1", "x")
    recreate(state, ("call_2", "look_up", json.dumps({"b": 2, "a": 1}, indent=2)))

    assert answers.unanswered(state) == []
    answer = answers.answer_of(state, "call_2")
    assert answer is not None
    assert (answer.output, answer.call_ids) == ("x", ["call_1", "call_2"])
    assert state.counted_rounds == 1


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("look_up", '{"a": 1, "b": 3}'),
        ("refund", '{"a": 1, "b": 2}'),
        ("look_up", '{"a": 1, "b": "2"}'),
        ("look_up", '{"a": 1, "b": 2'),
    ],
)
def test_other_arguments_are_asked_anew(name: str, arguments: str) -> None:
    """An answer never applies to another call: it waits for a person, and rewording is noted."""
    state = gathering(ONE)
    deliver(state, "call_1", "x")
    recreate(state, ("call_2", name, arguments))

    assert [call.id for call in answers.unanswered(state)] == ["call_2"]
    assert state.reworded


def test_two_equal_calls_need_two_answers() -> None:
    """Held answers are a multiset: each serves one call of an attempt, and only one."""
    state = gathering(ONE)
    deliver(state, "call_1", "x")
    recreate(state, ("call_2", *ONE[1:]), ("call_3", *ONE[1:]))

    assert [call.id for call in answers.unanswered(state)] == ["call_3"]

    deliver(state, "call_3", "y")
    recreate(state, ("call_4", *ONE[1:]), ("call_5", *ONE[1:]))

    assert answers.unanswered(state) == []
    held = [answers.answer_of(state, call_id) for call_id in ("call_4", "call_5")]
    assert ["x", "y"] == sorted(a.output or "" for a in held if a is not None)


def test_the_same_attempt_never_reuses_an_answer() -> None:
    """A model that asks the same again in one upstream run wants to know anew."""
    state = gathering(ONE)
    deliver(state, "call_1", "x")
    answers.close_round(state, AnswerOutcome.SUBMITTED)
    answers.open_round(state, asking(("call_2", *ONE[1:])), 3.0)

    assert [call.id for call in answers.unanswered(state)] == ["call_2"]


def test_seeing_a_round_again_opens_nothing() -> None:
    """A poll that shows the open calls once more costs no round."""
    state = gathering(ONE)

    assert not answers.open_round(state, asking(ONE), 9.0)
    assert state.rounds == 1


def test_an_unused_answer_is_said_to_be_unused() -> None:
    """When the last upstream run ends without asking for it, an answer's outcome says so."""
    state = gathering(ONE, ("call_2", "look_up", "{}"))
    deliver(state, "call_1", "x")
    deliver(state, "call_2", "y")
    recreate(state, ("call_3", "look_up", "{}"))
    answers.close_round(state, AnswerOutcome.SUBMITTED)
    answers.settle(state)

    assert {a.tool_call_id: a.outcome for a in state.answers} == {
        "call_1": "unused",
        "call_2": "submitted",
    }
    assert all(a.output is None for a in state.answers)


def test_a_call_asked_again_under_its_own_id() -> None:
    """A replica that lags brings no round; a call that is still asked for a minute later does."""
    state = gathering(("call_0", "status", "{}"))
    deliver(state, "call_0", "not yet")
    answers.close_round(state, AnswerOutcome.SUBMITTED)
    state.leg_started_at = 10.0

    assert not answers.open_round(state, asking(("call_0", "status", "{}")), 69.0)
    assert answers.open_round(state, asking(("call_0", "status", "{}")), 70.0)

    assert deliver(state, "call_0", "done") == "accepted"
    assert [answer.output for answer in state.answers] == ["not yet", "done"]
    assert state.rounds == 2


def test_arguments_that_name_a_thing_twice_equal_nothing_else() -> None:
    """Readers differ in which of the two counts, so an answer to one isn't an answer to it."""
    assert answers.call_key("f", '{"a":1,"a":2}') != answers.call_key("f", '{"a":2}')
    assert answers.call_key("f", '{"a": 1}') == answers.call_key("f", '{"a":1}')


def test_a_signal_cannot_fill_the_state_with_ids() -> None:
    """An id that no call can have is not kept as early, and not at its full length."""
    state = gathering(("call_1", "f", "{}"))

    assert deliver(state, "x" * 1_000_000, "o", by_signal=True) == "unknown"
    assert deliver(state, "", "o", by_signal=True) == "unknown"

    assert (state.early, [len(r.tool_call_id) for r in state.rejected]) == ({}, [255, 0])
