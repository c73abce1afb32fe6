"""Which notices about approvals are due, and when."""

from typing import Any

from activities.decision import DecisionKind
from activities.notify import Notice
from activities.tools import Rule
from workflows.approval import Approval
from workflows.notices import due
from workflows.state import OpenCall, RunState

NOW = 1_000.0


def a_call(call_id: str = "call_1", *, notify: bool = True, **fields: Any) -> OpenCall:
    rule = Rule(
        tool_digest="sha256:t",
        arguments_digest="sha256:a",
        reason="over 100 euros",
        groups=["desk", "board"],
        approvals=2,
        deadlines=[2_000.0, 3_000.0],
        outcome="escalate",
        notify=notify,
    )
    given: dict[str, Any] = {"handled_by": "people", "rule": rule} | fields
    return OpenCall(id=call_id, name="refund", arguments="{}", key="k", since_at=NOW - 1, **given)


def told(state: RunState, now: float = NOW) -> list[Notice]:
    return list(due(state, "run_1", now))


def test_who_is_asked_is_told_once() -> None:
    """With reason, deadline and the group whose turn it is."""
    state = RunState(calls=[a_call()])
    (notice,) = told(state)

    assert ("approval.requested", "refund", "over 100 euros") == (
        notice.event,
        notice.tool,
        notice.reason,
    )
    assert (["desk"], 0, 2, 2_000.0) == (notice.groups, notice.have, notice.need, notice.deadline)
    assert [] == told(state)


def test_nothing_is_told_where_nobody_listens_or_nobody_is_asked() -> None:
    """Only where the worker that classified has webhooks, and only of what waits for people."""
    calls = [
        a_call("1", notify=False),
        a_call("2", handled_by="worker"),
        a_call("3", rule=None),
        a_call("4", approval=Approval(decided=DecisionKind.APPROVE)),
    ]

    assert [] == told(RunState(calls=calls))


def test_reminders_and_escalation() -> None:
    """Each is told once, and an escalation to the next group with its deadline."""
    call = a_call(approval=Approval())
    state = RunState(calls=[call])
    told(state)
    assert call.approval is not None

    call.approval.reminders = 1
    assert ["approval.reminder"] == [notice.event for notice in told(state)]
    call.approval.group, call.approval.reminders = 1, 2
    (escalated,) = told(state)

    assert ("approval.escalated", ["board"], 3_000.0) == (
        escalated.event,
        escalated.groups,
        escalated.deadline,
    )
    assert [] == told(state)


def test_a_decision_is_told_with_who_made_it() -> None:
    """Whatever becomes of the call afterwards."""
    call = a_call()
    state = RunState(calls=[call])
    told(state)
    call.approval = Approval(decided=DecisionKind.REJECT, decided_by=["ann"])
    call.handled_by = "worker"
    (decided,) = told(state)

    assert ("approval.decided", "reject", ["ann"]) == (
        decided.event,
        decided.outcome,
        decided.by,
    )
    assert [] == told(state)


def test_what_nobody_decided_is_told_when_it_is_over() -> None:
    """A run that is cancelled, or whose upstream moved on, takes its request back."""
    state = RunState(calls=[a_call()])
    (requested,) = told(state)
    state.calls = []
    (closed,) = told(state, NOW + 5)

    assert ("approval.decided", "closed", "refund", NOW + 5) == (
        closed.event,
        closed.outcome,
        closed.tool,
        closed.at,
    )
    assert closed.id != requested.id


def test_a_call_that_is_asked_for_again_is_told_again() -> None:
    """Approved, run, and nobody knows whether it ran: another request, under another id."""
    call = a_call()
    state = RunState(calls=[call])
    (first,) = told(state)
    call.approval = Approval(decided=DecisionKind.APPROVE, decided_by=["ann"])
    call.handled_by = "worker"
    told(state)
    call.handled_by, call.approval, call.uncertain = "people", None, "the worker died"
    (again,) = told(state)

    assert ("approval.requested", "the worker died") == (again.event, again.reason)
    assert again.id != first.id


def test_ids_are_the_same_whoever_works_them_out() -> None:
    """A replay, or the same state handed on, tells the same notice and no other."""
    one, other = (RunState(calls=[a_call()]) for _ in range(2))

    assert told(one) == told(other)
    assert [] == told(RunState.model_validate_json(one.model_dump_json()))
