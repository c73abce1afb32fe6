"""Which answer belongs to which call. Pure: it changes the state it is given and nothing else.

An answer applies to the call it was given for. When an upstream run expires and another one is
created in its place, a call with the same name and equal arguments gets the answer again, once
per occurrence; an answer never applies to other arguments.
"""

from activities.contract import (
    LONGEST_LAG,
    answerable,
    asked_of,
    call_digest,
    canonical_arguments,
)
from runsapi import MAX_TOOL_OUTPUTS_BYTES, Run
from workflows.contract import (
    MAX_EARLY_CALLS,
    MAX_ID_LENGTH,
    AnswerOutcome,
    Receipt,
    ReceiptStatus,
    RejectedAnswer,
    ToolOutputMessage,
    ToolOutputs,
    content_digest,
    receipt_for,
)
from workflows.state import Answer, EarlyAnswer, Execution, KnownCall, OpenCall, RunState

MAX_REJECTED = 100
"""Rejected answers kept for `view`; the oldest go first."""


MAX_REMINDER = 50_000
"""Characters of the instructions that name the answered calls; the protocol takes 256,000."""


def call_key(name: str, arguments: str) -> str:
    """Return what makes two calls the same call: the name and the arguments as canonical JSON."""
    return content_digest(f"{name}\0{canonical_arguments(arguments)}")


def open_round(state: RunState, run: Run, now: float, *, with_tools: bool = False) -> bool:
    """Take over the calls that `run` waits for, with the answers that are there already.

    Some upstreams number the calls of each round anew, so an id alone doesn't tell a call.

    Returns:
        Whether a round was opened: not for the round that is open already, not for one whose
        outputs are in, and not for an action that outputs can't answer.
    """
    asked = asked_of(run)
    is_open = asked == {call.id: call_digest(call.name, call.arguments) for call in state.calls}
    outputs_are_in = asked.items() <= taken(state).items()
    lags = outputs_are_in and now - state.leg_started_at < LONGEST_LAG
    if not answerable(run) or is_open or lags:
        return False
    # A round seems over when a replica lags or others are said to have answered; it may come back.
    comes_back = not outputs_are_in and all(
        _is_known(state, call_id, digest) for call_id, digest in asked.items()
    )
    # Calls still open were answered by somebody else, or the upstream gave them up.
    close_round(state, AnswerOutcome.OVERTAKEN)
    if not comes_back:
        state.rounds += 1
    for call in run.tool_calls:
        function = call.function
        if function is None:
            continue
        opened = OpenCall(
            id=call.id,
            name=function.name,
            arguments=function.arguments,
            key=call_key(function.name, function.arguments),
            since_at=now,
            handled_by="unclassified" if with_tools else "caller",
        )
        state.calls.append(opened)
        if not comes_back:
            state.known[call.id] = KnownCall(
                attempt=state.attempt, round=state.rounds, digest=asked[call.id]
            )
    for opened in state.calls:
        answer = answer_of(state, opened.id)
        if answer is None:
            _use_held(state, opened)
        elif answer.outcome == AnswerOutcome.OVERTAKEN:
            answer.outcome = AnswerOutcome.WAITING
    if not comes_back and any(answer_of(state, opened.id) is None for opened in state.calls):
        state.counted_rounds += 1
        # What was answered before and isn't asked for again was asked for otherwise.
        state.reworded = state.reworded or any(_is_held(state, a) for a in state.answers)
    use_early(state)
    return True


def use_early(state: RunState) -> None:
    """Give the open calls the answers that came before anybody knew who is to answer them."""
    for call in state.calls:
        if call.handled_by != "unclassified" and call.id in state.early:
            _use_early(state, call, state.early.pop(call.id))


def give(state: RunState, call: OpenCall, output: str, by: str, now: float) -> None:
    """Record what a tool gave for an open call, whatever becomes of the run."""
    _accept(state, call, output, by, now)


def hold(state: RunState, execution: Execution, output: str, by: str, now: float) -> None:
    """Record what a tool gave for a call that waits no more: an equal one may be asked for yet."""
    known = state.known.get(execution.tool_call_id)
    digest = call_digest(execution.name, execution.arguments)
    here = (execution.attempt, execution.round, digest)
    if known is not None and (known.attempt, known.round, known.digest) == here:
        known.answer = len(state.answers) if known.answer is None else known.answer
    is_past = execution.attempt < state.attempt
    state.answers.append(
        Answer(
            tool_call_id=execution.tool_call_id,
            name=execution.name,
            arguments=execution.arguments,
            key=execution.key,
            output=output,
            output_digest=content_digest(output),
            attempt=execution.attempt,
            round=execution.round,
            by=by,
            answered_at=now,
            outcome=AnswerOutcome.WAITING if is_past else AnswerOutcome.OVERTAKEN,
            used_in=execution.attempt,
            call_ids=[execution.tool_call_id],
        )
    )


def deliver(
    state: RunState,
    outputs: ToolOutputs,
    *,
    now: float,
    by_signal: bool,
    decided: bool = False,
) -> list[Receipt]:
    """Record delivered answers; return a receipt for each, in order.

    Args:
        state: of the run.
        outputs: the answers.
        now: unix seconds.
        by_signal: nothing is refused, so what can't be used is kept as rejected.
        decided: a verified decision, or what it let run, gives them.
    """
    receipts = []
    for output in outputs.tool_outputs:
        receipt = assess(state, output, by_signal=by_signal, decided=decided)
        if receipt.status == ReceiptStatus.ACCEPTED:
            _accept(state, _open(state, output.tool_call_id), output.output, outputs.by, now)
        elif receipt.status == ReceiptStatus.EARLY:
            state.early[output.tool_call_id] = EarlyAnswer(
                output=output.output, by=outputs.by, at=now
            )
        elif by_signal and receipt.status != ReceiptStatus.DUPLICATE:
            _reject(state, output.tool_call_id, receipt.status, now, outputs.by)
        receipts.append(receipt)
    return receipts


def assess(
    state: RunState, output: ToolOutputMessage, *, by_signal: bool = False, decided: bool = False
) -> Receipt:
    """Tell what would become of an answer; changes nothing.

    A signal is never refused, so an answer that it brings for a call nobody knows is kept as
    early, even while other calls are awaited.
    """
    call_id, digest = output.tool_call_id, content_digest(output.output)
    size = len(output.output.encode())
    status, room = ReceiptStatus.LATE, None
    call = next((call for call in state.calls if call.id == call_id), None)
    is_unclassified = call is not None and call.handled_by == "unclassified"
    if (answer := answer_of(state, call_id)) is not None:
        status = receipt_for(answer.outcome, answer.output_digest, digest)
    elif state.stop is not None or state.ended_at is not None:
        status = ReceiptStatus.LATE
    elif call_id in state.known and not is_unclassified:
        if call is not None and not decided and _is_held_back(call):
            status = ReceiptStatus.HELD
        elif call is not None:
            room = MAX_TOOL_OUTPUTS_BYTES - 1 - round_bytes(state)
            status = ReceiptStatus.ACCEPTED
    elif (early := state.early.get(call_id)) is not None:
        same = content_digest(early.output) == digest
        status = ReceiptStatus.DUPLICATE if same else ReceiptStatus.CONFLICT
    elif (unanswered(state) and not by_signal and call is None) or not 1 <= len(
        call_id
    ) <= MAX_ID_LENGTH:
        status = ReceiptStatus.UNKNOWN
    else:
        full = len(state.early) >= MAX_EARLY_CALLS
        room = 0 if full else MAX_TOOL_OUTPUTS_BYTES - 1 - _early_bytes(state)
        status = ReceiptStatus.EARLY
    if room is not None and size > room:
        return Receipt(tool_call_id=call_id, status=ReceiptStatus.TOO_LARGE, room=max(room, 0))
    return Receipt(tool_call_id=call_id, status=status)


def answer_of(state: RunState, call_id: str) -> Answer | None:
    """Return the answer that a call has, if it has one."""
    known = state.known.get(call_id)
    return None if known is None or known.answer is None else state.answers[known.answer]


def unanswered(state: RunState) -> list[OpenCall]:
    """Return the open round's calls that still wait."""
    return [call for call in state.calls if answer_of(state, call.id) is None]


def awaited(state: RunState) -> list[OpenCall]:
    """Return those of them that wait for the caller, or for a person to decide."""
    return [call for call in unanswered(state) if call.handled_by in ("caller", "people")]


def close_round(state: RunState, outcome: AnswerOutcome) -> None:
    """Close the open round: its answers have that outcome, its calls wait no more.

    An answer that an earlier upstream run took stays submitted, whatever a later one does.
    """
    for call in state.calls:
        state.known[call.id].taken = outcome == AnswerOutcome.SUBMITTED
        answer = answer_of(state, call.id)
        if answer is None or answer.outcome == AnswerOutcome.SUBMITTED:
            continue
        if outcome == AnswerOutcome.SUBMITTED:
            state.barren = 0
        answer.outcome = outcome
    state.calls = []


def taken(state: RunState) -> dict[str, str]:
    """Return the calls of the present upstream run whose outputs it took, with their digests."""
    return {
        call_id: known.digest
        for call_id, known in state.known.items()
        if known.taken and known.attempt == state.attempt
    }


def held(state: RunState) -> list[Answer]:
    """Return the answers that a further upstream run could ask for again."""
    return [answer for answer in state.answers if answer.output is not None]


def reminder(state: RunState) -> str:
    """Return instructions that make a re-created run ask for the answered calls verbatim.

    Models reword. Without this, each rewording would need a person within ten minutes.
    """
    text = (
        "This run was interrupted and is repeated. These function calls were made and answered "
        "before. Where you need one of them, make it again with exactly the same arguments:"
    )
    for answer in held(state):
        line = f"\n- {answer.name}({answer.arguments})"
        if len(text) + len(line) > MAX_REMINDER:
            break
        text += line
    return text


def settle(state: RunState) -> None:
    """At the end, say of every answer that the last upstream run didn't take: not used."""
    for answer in state.answers:
        if answer.outcome == AnswerOutcome.WAITING or answer.used_in < state.attempt:
            answer.outcome = AnswerOutcome.UNUSED
        answer.output = None
    state.calls = []


def _is_known(state: RunState, call_id: str, digest: str) -> bool:
    known = state.known.get(call_id)
    return known is not None and known.attempt == state.attempt and known.digest == digest


def _open(state: RunState, call_id: str) -> OpenCall:
    return next(call for call in state.calls if call.id == call_id)


def _accept(state: RunState, call: OpenCall, output: str, by: str | None, now: float) -> None:
    known = state.known[call.id]
    known.answer = len(state.answers)
    state.answers.append(
        Answer(
            tool_call_id=call.id,
            name=call.name,
            arguments=call.arguments,
            key=call.key,
            output=output,
            output_digest=content_digest(output),
            attempt=known.attempt,
            round=known.round,
            by=by,
            answered_at=now,
            used_in=state.attempt,
            call_ids=[call.id],
        )
    )


def _is_held(state: RunState, answer: Answer) -> bool:
    return (
        answer.output is not None
        and answer.attempt < state.attempt
        and answer.used_in < state.attempt
    )


def _use_held(state: RunState, call: OpenCall) -> None:
    room = MAX_TOOL_OUTPUTS_BYTES - 1 - round_bytes(state)
    for index, answer in enumerate(state.answers):
        fits = len((answer.output or "").encode()) <= room
        if answer.key == call.key and _is_held(state, answer) and fits:
            answer.used_in = state.attempt
            answer.call_ids.append(call.id)
            state.known[call.id].answer = index
            return


def _use_early(state: RunState, call: OpenCall, early: EarlyAnswer) -> None:
    delivered = ToolOutputMessage(tool_call_id=call.id, output=early.output)
    receipt = assess(state, delivered)
    if receipt.status == ReceiptStatus.ACCEPTED:
        _accept(state, call, early.output, early.by, early.at)
    elif receipt.status != ReceiptStatus.DUPLICATE:
        _reject(state, call.id, receipt.status, early.at, early.by)


def round_bytes(state: RunState) -> int:
    """Return how much of what the upstream takes in a round its answers have."""
    answers = (answer_of(state, call.id) for call in state.calls)
    return sum(len((a.output or "").encode()) for a in answers if a is not None)


def _is_held_back(call: OpenCall) -> bool:
    # One that people have approved, or that may have changed something, is the tool's to answer.
    runs = call.execution is not None and call.rule is not None and not call.rule.read_only
    return call.handled_by == "people" or call.approval is not None or runs


def _early_bytes(state: RunState) -> int:
    return sum(len(early.output.encode()) for early in state.early.values())


def _reject(
    state: RunState, call_id: str, reason: ReceiptStatus, now: float, by: str | None
) -> None:
    # What a signal brings was checked by nobody, and all of this stays in the state.
    shown = call_id[:MAX_ID_LENGTH]
    state.rejected.append(RejectedAnswer(tool_call_id=shown, reason=reason, at=now, by=by))
    del state.rejected[:-MAX_REJECTED]
