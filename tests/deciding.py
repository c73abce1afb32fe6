"""Runs whose calls wait for people, and decisions on them, without Temporal and without keys."""

import itertools
from typing import Any

from activities.contract import call_digest
from activities.decision import Decision, DecisionStatus
from activities.tools import Rule
from workflows import answers, approvals, decided
from workflows.state import KnownCall, OpenCall, RunState

ARGUMENTS = "sha256:" + "a" * 64
TOOL = "sha256:" + "b" * 64
OTHER = "sha256:" + "c" * 64

_numbers = itertools.count()


def rule(**fields: Any) -> Rule:
    """Return a rule for a call that waits for people."""
    return Rule(tool_digest=TOOL, arguments_digest=ARGUMENTS, **fields)


def waiting(call_id: str = "call_1", /, **fields: Any) -> RunState:
    """Return the state of a run with a call that waits for people, under this rule."""
    state = RunState(attempt=1)
    add(state, call_id, rule(**fields))
    return state


def add(state: RunState, call_id: str, under: Rule, **fields: Any) -> OpenCall:
    """Let a run wait for people about one more call."""
    arguments = fields.pop("arguments", '{"amount":1}')
    call = OpenCall(
        id=call_id,
        name="refund",
        arguments=arguments,
        key=answers.call_key("refund", arguments),
        since_at=0.0,
        handled_by="people",
        rule=under,
        **fields,
    )
    state.calls.append(call)
    state.known[call_id] = KnownCall(
        attempt=state.attempt, round=1, digest=call_digest("refund", arguments)
    )
    return call


def decision(kind: str = "approve", by: str = "ada", **fields: Any) -> Decision:
    """Return a decision that nobody has signed."""
    contents = {"reject": {"note": "Too much."}, "answer": {"output": "paid"}}.get(kind, {})
    return Decision.model_validate(
        {
            "id": f"dec_{next(_numbers):016d}",
            "kind": kind,
            "run_id": "run_1",
            "tool_call_id": "call_1",
            "arguments_digest": ARGUMENTS,
            "tool_digest": TOOL,
            "by": by,
            "at": 1.0,
            "signature": "c2ln",
            **contents,
            **fields,
        }
    )


def assess(state: RunState, given: Decision, now: float = 1.0, asker: str | None = None) -> str:
    """Return the word of the receipt that a decision would get."""
    return approvals.assess(state, given, run_id="run_1", requested_by=asker, now=now).status.value


def decide(state: RunState, given: Decision, now: float = 1.0, refusal: str | None = None) -> str:
    """Send a decision, and let its verification end at once."""
    status = assess(state, given, now)
    if status == DecisionStatus.RECORDED:
        decided.record(state, given, now)
        assert given in decided.unverified(state)
        decided.apply(state, given, refusal, now)
        assert given not in decided.unverified(state)
    return status


def output(state: RunState, call_id: str = "call_1") -> str | None:
    """Return the answer that a call has."""
    answer = answers.answer_of(state, call_id)
    return None if answer is None else answer.output


def handled(call: OpenCall) -> str:
    """Return who answers a call, read anew."""
    return call.handled_by
