"""What a run makes of decisions, without Temporal."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.decision import DecisionKind, DecisionStatus
from tests.deciding import (
    ARGUMENTS,
    OTHER,
    TOOL,
    add,
    assess,
    decide,
    decision,
    handled,
    output,
    rule,
    waiting,
)
from workflows import answers, approvals, decided, view
from workflows.approval import CLAIM_FOR
from workflows.contract import AnswerOutcome, canonical_json
from workflows.state import StopReason

_OLD_FORM = (
    '{"id":"dec_0000000000000001","kind":"approve","run_id":"run_1","tool_call_id":"call_1",'
    f'"arguments_digest":"{ARGUMENTS}","tool_digest":"{TOOL}","by":"ada","groups":[],"at":1.0,'
    '"note":null,"arguments":null,"output":null,"for_rest_of_run":false,"face":"","token":null,'
    '"shown":null,"key_id":"","signature":"c2ln"}'
)
"""A decision's JSON before decisions named the maker of a token."""

# What each kind does


def test_an_approved_call_goes_to_the_worker() -> None:
    """With the decisions that let it run, and no answer yet."""
    state = waiting()
    approval = decision(arguments='{"amount":2}')

    assert decide(state, approval) == "recorded"

    (call,) = state.calls
    assert handled(call) == "worker"
    assert call.approval is not None
    assert call.approval.approvals == [approval]
    assert call.approval.decided_by == ["ada"]
    assert output(state) is None


def test_a_rejection_is_an_answer_with_its_reason() -> None:
    """At once, however many would have had to approve."""
    state = waiting(approvals=3)
    decide(state, decision(by="bob"))

    assert decide(state, decision("reject")) == "recorded"

    assert "Too much." in (output(state) or "")
    assert "not run" in (output(state) or "")
    assert state.answers[0].by == "person:ada"


def test_a_person_can_answer_instead_of_the_tool() -> None:
    """The output is the person's own."""
    state = waiting()
    decide(state, decision("answer"))

    assert output(state) == "paid"
    assert state.answers[0].by == "person:ada"


def test_what_must_fit_the_round_does() -> None:
    """An answer too large is refused; a rejection's reason is cut."""
    state = waiting()
    add(state, "call_2", rule())
    decide(state, decision("answer", tool_call_id="call_2", output="x" * 511_990))

    assert decide(state, decision("answer", output="x" * 10)) == "too_large"
    assert decide(state, decision("reject", note="é" * 100)) == "recorded"
    assert len((output(state) or "").encode()) <= 9


def test_nothing_counts_before_it_is_verified() -> None:
    """Another decision on the call waits meanwhile; the same one is with the run already."""
    state = waiting()
    first = decision()
    decided.record(state, first, 1.0)

    assert handled(state.calls[0]) == "people"
    assert assess(state, first) == "duplicate"
    assert assess(state, decision("reject", by="bob")) == "busy"


def test_a_forged_decision_does_not_stand_in_the_true_ones_way() -> None:
    """Not even under the same id."""
    state = waiting()
    true = decision()
    forged = true.model_copy(update={"signature": "Zm9yZ2Vk"})

    decide(state, forged, refusal="The signature doesn't fit.")
    assert handled(state.calls[0]) == "people"
    assert decide(state, true) == "recorded"

    assert handled(state.calls[0]) == "worker"
    assert [each.state for each in state.decisions] == ["refused", "counted"]
    assert state.decisions[0].reason == "The signature doesn't fit."


def test_a_decision_counts_once() -> None:
    """Also where the upstream gives the id of its call to an equal one, in a later round."""
    state = waiting()
    true = decision()
    decide(state, true)
    assert assess(state, true) == "duplicate"

    state.calls.clear()
    add(state, "call_1", rule())

    assert assess(state, true) == "duplicate"
    assert assess(state, true.model_copy(update={"note": "New."})) == "already_decided"


def test_one_that_came_too_late_is_not_kept_for_the_next_call() -> None:
    """It was true, so whoever has seen it could send it again."""
    state = waiting()
    true = decision()
    decided.record(state, true, 1.0)
    answers.close_round(state, AnswerOutcome.OVERTAKEN)
    decided.apply(state, true, None, 2.0)
    add(state, "call_1", rule())

    assert [each.state for each in state.decisions] == ["late"]
    assert assess(state, true) == "duplicate"


def test_a_call_stands_in_lists_whoever_is_asked() -> None:
    """A memo holds 8 kB, and its change costs an event: what is long or changes isn't in it."""
    names = [f"{number:03}" + "n" * 250 for number in range(100)]
    state = waiting(approvers=names, groups=names, approvals=2, reason="r" * 2_000)
    before = view.pending_memo(state)
    (shown,) = before
    assert shown["tool_call_id"] == "call_1"
    assert shown["handled_by"] == "people"
    assert len(canonical_json(before)) < 1_500

    decide(state, decision("claim", by=names[0]))
    decide(state, decision(by=names[0], arguments='{"amount":2}'))

    assert view.pending_memo(state) == before
    (pending,) = view.pending_calls(state)
    assert pending.approvals is not None
    assert (pending.approvals.have, pending.approvals.need) == (1, 2)
    assert pending.approvers == names


# Who may, on what, until when


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"run_id": "run_2"}, "unknown"),
        ({"tool_call_id": "call_9"}, "unknown"),
        ({"arguments_digest": OTHER}, "other_digest"),
        ({"tool_digest": OTHER}, "other_digest"),
        ({"by": "eve"}, "not_allowed"),
        ({"by": "eve", "groups": ["support"]}, "recorded"),
        ({"by": "eve", "groups": ["sales"]}, "not_allowed"),
        ({}, "recorded"),
    ],
)
def test_who_may_decide_on_what(fields: dict[str, Any], status: str) -> None:
    """The call, its arguments and its tool as they are, by somebody who is asked."""
    state = waiting(approvers=["ada"], groups=["support"])

    assert assess(state, decision(**fields)) == status


def test_the_second_decision_is_told_of_the_first() -> None:
    """By name: somebody else was first."""
    state = waiting()
    decide(state, decision(by="bob"))

    receipt = approvals.assess(
        state, decision("reject"), run_id="run_1", requested_by=None, now=1.0
    )

    assert receipt.status is DecisionStatus.ALREADY_DECIDED
    assert "approved by bob" in receipt.message


def test_what_waits_for_nobody_takes_no_decision() -> None:
    """Neither a caller's call nor a worker's; one that is too new is tried again."""
    for handled_by, status in (
        ("caller", "not_waiting"),
        ("worker", "not_waiting"),
        ("unclassified", "busy"),
    ):
        state = waiting()
        state.calls[0].handled_by = handled_by  # type: ignore[assignment]  # each of them
        assert assess(state, decision()) == status


def test_after_its_round_and_after_the_end_it_is_too_late() -> None:
    """The receipt says so, and not that there never was such a call."""
    state = waiting()
    answers.close_round(state, AnswerOutcome.OVERTAKEN)
    assert assess(state, decision()) == "too_late"

    state = waiting()
    state.stop = StopReason.CANCEL
    assert assess(state, decision()) == "too_late"


@pytest.mark.parametrize("kind", ["approve", "answer", "claim"])
def test_who_asked_does_not_approve(kind: str) -> None:
    """By person, however the name is written; to reject is always allowed."""
    state = waiting()

    assert assess(state, decision(kind, by=" ADA"), asker="ada") == "not_allowed"
    assert assess(state, decision("reject"), asker="ada") == "recorded"
    assert assess(waiting(requester_may_approve=True), decision(kind), asker="ada") == "recorded"


def test_two_people_are_two_people() -> None:
    """One of them doesn't count twice, with another token neither."""
    state = waiting(approvals=2)

    assert decide(state, decision(token="laptop")) == "recorded"
    assert handled(state.calls[0]) == "people"
    assert decide(state, decision(token="phone", by="Ada")) == "not_allowed"
    assert decide(state, decision(by="bob")) == "recorded"
    assert handled(state.calls[0]) == "worker"


@pytest.mark.parametrize("maker_first", [True, False])
def test_whoever_made_a_token_is_not_the_second_person_through_it(maker_first: bool) -> None:
    """In neither order; the receipt says why. Somebody else is."""
    state = waiting(approvals=2)
    own, through = decision(), decision(by="bob", token="bob", token_made_by="Ada")
    first, second = (own, through) if maker_first else (through, own)
    decide(state, first)

    receipt = approvals.assess(state, second, run_id="run_1", requested_by=None, now=1.0)

    assert DecisionStatus.NOT_ALLOWED is receipt.status
    assert "made the token of bob" in receipt.message
    assert "people" == handled(state.calls[0])
    assert "recorded" == decide(state, decision(by="cid", token="cid", token_made_by="eve"))
    assert "worker" == handled(state.calls[0])


@pytest.mark.parametrize("kind", ["approve", "answer", "claim"])
def test_who_asked_does_not_approve_through_a_token_made_for_somebody(kind: str) -> None:
    """Whoever makes a token may keep it."""
    its = decision(kind, by="bob", token="bob", token_made_by="ada")

    assert "not_allowed" == assess(waiting(), its, asker="ada")
    assert "recorded" == assess(waiting(), its, asker="cid")


def test_a_decision_without_a_maker_is_what_it_was() -> None:
    """Its digest stands in the states of living runs, by which it is known when sent again."""
    given = decision().model_copy(update={"id": "dec_0000000000000001"})

    assert "sha256:" + hashlib.sha256(_OLD_FORM.encode()).hexdigest() == approvals.content(given)


def test_all_approve_the_same_arguments() -> None:
    """Edited ones are approved by everybody, or by nobody."""
    state = waiting(approvals=2)
    decide(state, decision(arguments='{"amount":2}'))

    (shown,) = view.pending_calls(state)
    assert (shown.approved_by, shown.approved_arguments) == (["ada"], '{"amount":2}')
    assert decide(state, decision(by="bob")) == "conflict"
    assert decide(state, decision(by="bob", arguments='{"amount":3}')) == "conflict"
    assert decide(state, decision(by="bob", arguments='{"amount":2}')) == "recorded"
    assert handled(state.calls[0]) == "worker"


# Claims


def test_a_claim_keeps_others_out_until_it_ends() -> None:
    """By a release, by the person's own decision, or by itself."""
    state = waiting(approvals=2)

    assert decide(state, decision("claim")) == "recorded"
    assert decide(state, decision(by="bob")) == "claimed"
    assert decide(state, decision("release", by="bob")) == "not_allowed"
    assert decide(state, decision("release")) == "recorded"
    assert decide(state, decision("release")) == "not_waiting"
    assert decide(state, decision("claim"), 2.0) == "recorded"
    assert decide(state, decision(by="bob"), 2.0 + CLAIM_FOR - 1) == "claimed"
    assert decide(state, decision(by="bob"), 2.0 + CLAIM_FOR) == "recorded"
    assert decide(state, decision("claim", by="eve"), 2.0 + CLAIM_FOR) == "recorded"
    assert decide(state, decision(by="eve"), 2.0 + CLAIM_FOR) == "recorded"
    assert handled(state.calls[0]) == "worker"


# Deadlines and reminders


def test_silence_rejects() -> None:
    """From the deadline on nothing is taken any more."""
    state = waiting(deadlines=[10.0])
    assert decided.next_at(state) == 10.0
    assert decided.lapse(state, 9.9) is None
    assert output(state) is None
    assert assess(state, decision(), 10.0) == "too_late"

    decided.lapse(state, 10.0)

    assert "in time" in (output(state) or "")
    assert state.answers[0].by == "deadline"
    assert decided.next_at(state) is None
    assert assess(state, decision(), 10.0) == "already_decided"


def test_silence_asks_the_next_group_and_then_rejects() -> None:
    """Each group has its turn; who is named is asked all the time."""
    state = waiting(
        outcome="escalate", groups=["support", "managers"], approvers=["eve"],
        deadlines=[10.0, 20.0],
    )  # fmt: skip
    manager = decision(groups=["managers"])
    assert assess(state, manager) == "not_allowed"

    decided.lapse(state, 10.0)

    assert decided.next_at(state) == 20.0
    assert assess(state, decision(groups=["support"]), 11.0) == "not_allowed"
    assert assess(state, manager, 11.0) == "recorded"
    assert assess(state, decision(by="eve"), 11.0) == "recorded"
    decided.lapse(state, 20.0)
    assert "in time" in (output(state) or "")


def test_silence_can_fail_the_run() -> None:
    """The caller is told for which call."""
    state = waiting(outcome="fail", deadlines=[10.0])

    assert decided.lapse(state, 10.0) is state.calls[0]
    assert output(state) is None


def test_a_decision_in_time_counts_however_long_its_verification_takes() -> None:
    """The ledger may be down over the deadline; the call waits for the decision it has."""
    state = waiting(deadlines=[10.0])
    late = decision()
    decided.record(state, late, 9.0)

    assert decided.next_at(state) is None
    assert decided.lapse(state, 100.0) is None
    decided.apply(state, late, None, 100.0)

    assert handled(state.calls[0]) == "worker"


def test_a_forged_decision_only_delays_the_deadline() -> None:
    """Once it is refused, what is due is due."""
    state = waiting(deadlines=[10.0])
    forged = decision()
    decided.record(state, forged, 9.0)
    decided.apply(state, forged, "It was forged.", 11.0)

    assert decided.next_at(state) == 10.0
    decided.lapse(state, 11.0)
    assert "in time" in (output(state) or "")


def test_each_reminder_is_due_once() -> None:
    """After a worker was away, those that passed are one."""
    state = waiting(remind_at=[3.0, 1.0, 2.0], deadlines=[10.0])
    assert decided.next_at(state) == 1.0

    decided.remind(state, 2.5)

    assert state.calls[0].approval is not None
    assert state.calls[0].approval.reminders == 2
    assert decided.next_at(state) == 3.0
    decided.remind(state, 3.0)
    assert decided.next_at(state) == 10.0


# Uncertain calls


def test_of_an_uncertain_call_people_are_asked_anew() -> None:
    """What they approved is used, no deadline answers, and its arguments stay."""
    state = waiting(deadlines=[10.0])
    decide(state, decision())
    decided.reopen(state.calls[0], "its worker ended while it ran")

    assert handled(state.calls[0]) == "people"
    assert decided.next_at(state) is None
    assert assess(state, decision(arguments="{}"), 11.0) == "not_allowed"
    assert assess(state, decision(for_rest_of_run=True), 11.0) == "not_allowed"
    assert decide(state, decision(), 11.0) == "recorded"
    assert handled(state.calls[0]) == "worker"
    assert state.calls[0].uncertain is None


def test_to_reject_an_uncertain_call_claims_nothing_of_it() -> None:
    """The model isn't told that it was not run: nobody knows."""
    state = waiting()
    decided.reopen(state.calls[0], "its worker ended while it ran")
    decide(state, decision("reject"))

    assert "not known" in (output(state) or "")
    assert "not run" not in (output(state) or "")


# Whatever comes


PEOPLE = ("ada", "bob", "eve")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(list(DecisionKind)),
        st.sampled_from(PEOPLE),
        st.booleans(),
        st.floats(0, 30),
    ),
    max_size=12,
)


@given(steps=STEPS, need=st.integers(1, 3), outcome=st.sampled_from(["reject", "fail"]))
def test_nothing_runs_without_enough_people(
    steps: list[tuple[DecisionKind, str, bool, float]], need: int, outcome: str
) -> None:
    """Whatever is sent, true or forged, and whatever time passes."""
    state = waiting(approvals=need, outcome=outcome, deadlines=[20.0], approvers=["ada", "bob"])
    call, now, approved_by = state.calls[0], 0.0, set()
    for kind, by, is_true, seconds in steps:
        now += seconds
        decided.remind(state, now)
        decided.lapse(state, now)
        given = decision(kind.value, by=by)
        status = decide(state, given, now, None if is_true else "It was forged.")
        if status == "recorded" and is_true and kind is DecisionKind.APPROVE:
            assert now < 20.0
            approved_by.add(by)
        assert approved_by <= {"ada", "bob"}
        assert (handled(call) == "worker") == (len(approved_by) >= need)
        at = decided.next_at(state)
        assert at is None or handled(call) == "people"
    assert len({each.id for each in state.decisions}) == len(state.decisions)
