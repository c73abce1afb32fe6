"""When the caller was asked, as a run remembers it, without Temporal."""

from runsapi import RunStatus
from tests.unit.test_workflow_answers import asking, deliver, gathering, recreate
from workflows import answers, asks
from workflows.contract import AnswerOutcome, AskView
from workflows.state import RunState, StopReason

A = ("call_a", "a", "{}")
B = ("call_b", "b", "{}")


def noted(state: RunState) -> list[AskView]:
    """Return what a run remembers after it has shown itself twice."""
    asks.note(state)
    asks.note(state)
    return state.asks


def test_a_round_is_remembered_once_and_after_its_answer() -> None:
    """One entry a round, which stays when nothing waits any more."""
    state = gathering(A, B)
    state.run = asking(A, B)
    assert [AskView(attempt=1, round=1, call_ids=["call_a", "call_b"])] == noted(state)
    deliver(state, "call_a", "1")
    deliver(state, "call_b", "2")
    answers.close_round(state, AnswerOutcome.SUBMITTED)
    assert 1 == len(noted(state))


def test_another_attempt_that_asks_the_same_asks_nobody() -> None:
    """A re-created upstream run whose calls have their answers is no new question."""
    state = gathering(A)
    state.run = asking(A)
    asks.note(state)
    deliver(state, "call_a", "1")
    recreate(state, ("call_z", "a", "{}"))
    assert 1 == len(noted(state))


def test_a_call_that_is_new_in_another_attempt_is_a_question() -> None:
    """What is asked for then is what `required_action` lists: the answered call too."""
    state = gathering(A)
    state.run = asking(A)
    asks.note(state)
    deliver(state, "call_a", "1")
    recreate(state, ("call_z", "a", "{}"), B)
    assert AskView(attempt=2, round=2, call_ids=["call_z", "call_b"]) == noted(state)[-1]


def test_calls_that_people_decide_ask_nothing_of_the_caller() -> None:
    """Nor do those that a worker answers."""
    state = gathering(A, B)
    state.run = asking(A, B)
    state.calls[0].handled_by = "people"
    state.calls[1].handled_by = "worker"
    assert [] == noted(state)


def test_a_run_that_is_being_ended_asks_nothing() -> None:
    """Calls may still be open while it is cancelled."""
    state = gathering(A)
    state.run = asking(A)
    state.stop = StopReason.CANCEL
    assert [] == noted(state)


def test_an_action_that_outputs_cant_answer_is_remembered_without_calls() -> None:
    """Whoever follows the run must hear of it, as whoever polls does."""
    run = asking(A).model_copy(update={"required_action": None})
    assert RunStatus.REQUIRES_ACTION == run.status
    assert [AskView(attempt=1, round=0)] == noted(RunState(attempt=1, run=run))
