"""Calls whose tools workers run: begun, attached to the call that waits for them, ended. Pure.

An execution outlives the round that asked for it: what changes something outside runs to its end
whatever the upstream does meanwhile, and answers the next equal call.
"""

from activities.contract import canonical_arguments
from activities.tools import Handling
from runsapi import MAX_TOOL_OUTPUTS_BYTES, RunStatus
from workflows import answers, decided
from workflows.contract import content_digest
from workflows.state import Execution, OpenCall, RunState

BY = "tool:"
"""What stands before a tool's name where a view says who gave an answer."""
TOO_LARGE = "The tool ran. Its output is too large for this round of calls."

_MAX_CHANGES = 3
"""How often a call that may run is found to be otherwise where it is to."""
_CHANGES = "its workers' tools differ, or its policy says now this, now that"
_LEAST_ROOM = 32_000
"""Bytes that an output may have although the round's others could then have less."""


def classify(call: OpenCall, handling: Handling) -> None:
    """Take what a worker says of who answers a call."""
    call.handled_by, call.timeout = handling.by, handling.timeout
    call.rule, call.beside = handling.rule, handling.beside
    if handling.by == "worker" and handling.rule is not None and call.changes >= _MAX_CHANGES:
        # Workers with different tools would hand it to each other for ever.
        call.handled_by = "people"
        call.rule = handling.rule.model_copy(update={"reason": _CHANGES})


def unready(state: RunState) -> list[OpenCall]:
    """Return the calls for which the run must wait before it goes on.

    Where the upstream run has expired, one that a worker is to run and that hasn't begun is none
    of them: it runs when another upstream run asks for it.
    """
    parked = _is_parked(state)
    return [
        call
        for call in answers.unanswered(state)
        if not (parked and call.handled_by == "worker" and call.execution is None)
    ]


def is_busy(state: RunState) -> bool:
    """Tell whether a tool runs that must not be given up."""
    return any(each.uncertain is None and not each.rule.read_only for each in state.executions)


def begin(state: RunState, now: float) -> None:
    """Begin what a worker is to run, where a live upstream run asks for it."""
    if state.stop is not None or not _is_live(state, now):
        return
    calls = [call for call in answers.unanswered(state) if call.handled_by == "worker"]
    left = MAX_TOOL_OUTPUTS_BYTES - 1 - answers.round_bytes(state)
    room = max(min(left, max(left // max(len(calls), 1), _LEAST_ROOM)), 0)
    for call in calls:
        if call.execution is None and call.rule is not None:
            _begin(state, call, room, now)


def attach(state: RunState) -> None:
    """Give the calls of a new round what runs already for an equal one."""
    linked = {call.execution for call in answers.unanswered(state)}
    for call in answers.unanswered(state):
        free = (each for each in state.executions if each.id not in linked)
        execution = next((each for each in free if each.key == call.key), None)
        if execution is not None and call.execution is None:
            linked.add(execution.id)
            call.execution, call.rule = execution.id, execution.rule
            call.timeout = execution.timeout
            call.handled_by = "worker"
            if execution.uncertain is not None:
                _ask_people(call, execution.uncertain)


def wanted(state: RunState, execution: Execution) -> bool:
    """Tell whether an execution is to go on: one that only reads just while its call waits."""
    if execution.uncertain is not None:
        return False
    return not execution.rule.read_only or _call_of(state, execution) is not None


def end(
    state: RunState, execution: Execution, output: str, failure: str | None, now: float
) -> None:
    """Take what a tool gave: the answer of the call that waits for it, else of an equal one."""
    _remove(state, execution)
    call = _call_of(state, execution)
    room = MAX_TOOL_OUTPUTS_BYTES - 1 - (0 if call is None else answers.round_bytes(state))
    if len(output.encode()) > room:
        output = TOO_LARGE[: max(room, 0)]
    by = BY + execution.name
    if call is None:
        answers.hold(state, execution, output, by, now)
    else:
        answers.give(state, call, output, by, now)
    state.answers[-1].failure = failure


def undo(state: RunState, execution: Execution) -> None:
    """Take back an execution that never began: its number is free again, its call unclassified."""
    _free(state, execution)
    # It may be what let it run here, and not there.
    state.standing = [s for s in state.standing if s.decision not in execution.decisions]
    call = _call_of(state, execution)
    if call is not None:
        call.handled_by, call.changes = "unclassified", call.changes + 1
        call.rule, call.approval, call.execution = None, None, None


def doubt(state: RunState, execution: Execution, reason: str) -> None:
    """Leave it to people to say whether a tool ran."""
    execution.uncertain = reason
    call = _call_of(state, execution)
    if call is not None:
        _ask_people(call, reason)


def resume(state: RunState) -> None:
    """Let run again what people have said did not run, as soon as it is asked for."""
    for call in answers.unanswered(state):
        execution = _of_call(state, call)
        if call.handled_by == "worker" and execution is not None and execution.uncertain:
            _free(state, execution)
            call.execution = None
            edited = any(each.arguments is not None for each in execution.decisions)
            if edited and call.approval is not None:
                # Who says that it did not run has seen what it was to run with.
                call.approval.approvals = execution.decisions


def settled(state: RunState) -> None:
    """Forget the uncertain executions whose calls people have answered."""
    done = {call.execution for call in state.calls if answers.answer_of(state, call.id) is not None}
    state.executions = [
        each for each in state.executions if each.uncertain is None or each.id not in done
    ]


def doubts(state: RunState) -> str | None:
    """Say, when the run ends, of which tools nobody knows what they did."""
    told = [
        f"What the tool {each.name} did for the call {each.tool_call_id} is not known: "
        + (each.uncertain or "it was still running when the run ended")
        for each in state.executions
        if not each.rule.read_only
    ]
    return "; ".join(told) or None


def _begin(state: RunState, call: OpenCall, room: int, now: float) -> None:
    rule = call.rule
    if rule is None:
        return
    decisions = [] if call.approval is None else call.approval.approvals
    edited = next((each.arguments for each in decisions if each.arguments is not None), None)
    arguments = call.arguments if edited is None else edited
    intent = answers.call_key(call.name, arguments)
    numbers = state.begun.setdefault(intent, [])
    # Without gaps, or a history that was restored would count otherwise than the ledger.
    ordinal = next(number for number in range(len(numbers) + 1) if number not in numbers)
    numbers.append(ordinal)
    execution = Execution(
        tool_call_id=call.id,
        name=call.name,
        arguments=call.arguments,
        key=call.key,
        begun_at=now,
        intent=intent,
        arguments_digest=content_digest(canonical_arguments(arguments)),
        ordinal=ordinal,
        attempt=state.attempt,
        round=state.rounds,
        rule=rule,
        timeout=call.timeout,
        room=room,
        decisions=decisions,
    )
    state.executions.append(execution)
    call.execution = execution.id
    if not rule.read_only:
        state.begun_here.append(_number(execution))


def _free(state: RunState, execution: Execution) -> None:
    """Forget an execution that did not run; its number is the next one's."""
    _remove(state, execution)
    state.begun[execution.intent].remove(execution.ordinal)
    state.begun_here = [each for each in state.begun_here if each != _number(execution)]


def _number(execution: Execution) -> tuple[str, str, int]:
    return execution.name, execution.arguments_digest, execution.ordinal


def _ask_people(call: OpenCall, reason: str) -> None:
    # What was approved before has been used.
    decided.reopen(call, reason)


def _call_of(state: RunState, execution: Execution) -> OpenCall | None:
    calls = (call for call in answers.unanswered(state) if call.execution == execution.id)
    return next(calls, None)


def _of_call(state: RunState, call: OpenCall) -> Execution | None:
    return next((each for each in state.executions if each.id == call.execution), None)


def _remove(state: RunState, execution: Execution) -> None:
    state.executions = [each for each in state.executions if each.id != execution.id]


def _is_parked(state: RunState) -> bool:
    return state.run is not None and state.run.status == RunStatus.EXPIRED


def _is_live(state: RunState, now: float) -> bool:
    """Tell whether the upstream run waits, as far as that is known without asking it."""
    if state.run is None or state.run.status != RunStatus.REQUIRES_ACTION or state.blocked:
        return False
    due = state.expires_at
    return due is None or now < due or state.seen_at >= due
