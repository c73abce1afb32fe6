"""Approvals that outlive the call they were given for, without Temporal."""

from typing import Any

import pytest

from activities.tools import Beside
from tests.deciding import OTHER, add, assess, decide, decision, handled, rule, waiting
from workflows import kept_approvals
from workflows.state import OpenCall, RunState


def recreate(state: RunState, **fields: Any) -> OpenCall:
    """Let the upstream run expire, and another one ask for a call."""
    kept_approvals.keep(state, kept_approvals.unused(state, parked=True))
    state.attempt += 1
    state.calls = []
    call = add(state, "call_2", rule(), **fields)
    kept_approvals.attach(state, call)
    return call


def test_an_approval_waits_for_the_upstream_to_ask_again() -> None:
    """For the same call, and once."""
    state = waiting()
    approval = decision()
    decide(state, approval)

    again = recreate(state)

    assert handled(again) == "worker"
    assert again.approval is not None
    assert again.approval.approvals == [approval]
    twice = add(state, "call_3", rule())
    kept_approvals.attach(state, twice)
    assert handled(twice) == "people"


def test_an_approval_never_applies_to_other_arguments_or_another_tool() -> None:
    """The call waits for people like any new one."""
    state = waiting()
    decide(state, decision())
    assert recreate(state, arguments='{"amount":2}').handled_by == "people"

    state = waiting()
    decide(state, decision())
    kept_approvals.keep(state, kept_approvals.unused(state, parked=True))
    state.attempt, state.calls = 2, []
    changed = add(state, "call_2", rule().model_copy(update={"tool_digest": OTHER}))
    kept_approvals.attach(state, changed)
    assert handled(changed) == "people"


def test_half_a_quorum_is_kept_too() -> None:
    """The second person needn't wait for the first one's second word."""
    state = waiting(approvals=2)
    decide(state, decision())
    kept_approvals.keep(state, kept_approvals.unused(state, parked=True))
    state.attempt, state.calls = 2, []
    again = add(state, "call_2", rule(approvals=2))
    kept_approvals.attach(state, again)

    assert handled(again) == "people"
    assert decide(state, decision(by="bob", tool_call_id="call_2")) == "recorded"
    assert handled(again) == "worker"


def test_a_round_that_comes_back_has_its_approvals() -> None:
    """A lagging replica seems to have moved on; but a later equal call is another one."""
    state = waiting()
    decide(state, decision())
    kept_approvals.keep(state, kept_approvals.unused(state, parked=False))
    state.calls = []
    later = add(state, "call_5", rule())
    kept_approvals.attach(state, later)
    back = add(state, "call_1", rule())
    kept_approvals.attach(state, back)

    assert handled(later) == "people"
    assert handled(back) == "worker"


def test_the_rest_of_the_run_is_approved_until_revoked() -> None:
    """Later calls of the tool, with whatever arguments, under the same schema."""
    state = waiting()
    decide(state, decision(for_rest_of_run=True))
    later = add(state, "call_2", rule().model_copy(update={"arguments_digest": OTHER}))
    kept_approvals.attach(state, later)
    assert handled(later) == "worker"

    revocation = decision("revoke", by="bob")
    assert decide(state, revocation) == "recorded"
    assert assess(state, decision("revoke")) == "not_waiting"
    last = add(state, "call_3", rule())
    kept_approvals.attach(state, last)
    assert handled(last) == "people"


@pytest.mark.parametrize(
    "fields", [{"approvals": 2}, {"at_most_once": True}], ids=["quorum", "at_most_once"]
)
def test_some_tools_are_approved_call_by_call(fields: dict[str, Any]) -> None:
    """Neither can it be asked for, nor does an approval from before apply."""
    state = waiting(**fields)
    assert assess(state, decision(for_rest_of_run=True)) == "not_allowed"

    state = waiting()
    decide(state, decision(for_rest_of_run=True))
    call = add(state, "call_2", rule(**fields))
    kept_approvals.attach(state, call)
    assert handled(call) == "people"


def test_what_is_asked_otherwise_is_decided_by_itself() -> None:
    """An approval for the rest of the run doesn't cover a call that may repeat what was done."""
    state = waiting()
    decide(state, decision(for_rest_of_run=True))
    beside = Beside(name="refund", arguments="{}", outcome="returned", at=1.0)
    call = add(state, "call_2", rule(), beside=[beside])
    kept_approvals.attach(state, call)

    assert handled(call) == "people"
    given = decision(tool_call_id="call_2", for_rest_of_run=True)
    assert assess(state, given) == "not_allowed"
