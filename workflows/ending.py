"""How a run ends: which status, with what reason, and what stays uncertain. Pure."""

from runsapi import TERMINAL, RunStatus
from workflows import answers, executions
from workflows.contract import AnswerOutcome, RunRequest
from workflows.state import RunState, StopReason

_STATUS_OF_STOP = {
    StopReason.CANCEL: RunStatus.CANCELLED,
    StopReason.DEADLINE: RunStatus.EXPIRED,
    StopReason.ROUNDS: RunStatus.INCOMPLETE,
    StopReason.GONE: RunStatus.FAILED,
    StopReason.REFUSED: RunStatus.FAILED,
    StopReason.UNDECIDED: RunStatus.FAILED,
}
_OWN_ENDS = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.INCOMPLETE)
"""Ends that an upstream run reached itself, which no cancel of ours overrules."""


def end(state: RunState, request: RunRequest, now: float) -> None:
    """End the run: settle its status, last error and answers."""
    run = state.run
    ended_itself = run is not None and run.status in _OWN_ENDS
    if run is not None and (ended_itself or (state.stop is None and run.status in TERMINAL)):
        state.status = str(run.status)
        if run.last_error is not None:
            state.last_error = run.last_error.model_dump(mode="json")
        elif run.status != RunStatus.EXPIRED or state.last_error is None:
            state.last_error = None
        if run.status == RunStatus.EXPIRED and request.options.on_expiry == "recreate":
            state.last_error = _error(
                f"The upstream run expired, and so did {state.recreations} others created in its "
                "place, before any took a new answer"
            )
    elif state.stop is not None:
        state.status = str(_STATUS_OF_STOP[state.stop])
        state.last_error = state.last_error or _reason(state, request)
    if state.stop is not None:
        state.uncertain = _uncertainty(state, request)
    doubts = [text for text in (state.uncertain, executions.doubts(state)) if text]
    state.uncertain = "; ".join(doubts) or None
    state.executions = []
    if state.submit_unsettled:
        answers.close_round(state, AnswerOutcome.UNCERTAIN)
    answers.settle(state)
    state.ended_at = now
    state.blocked = None


def _reason(state: RunState, request: RunRequest) -> dict[str, str] | None:
    if state.stop == StopReason.DEADLINE:
        return _error(f"The run's deadline of {request.options.deadline:g} seconds has passed")
    if state.stop == StopReason.ROUNDS:
        return _error(
            f"The run asked for more than {request.options.max_rounds} rounds of tool calls"
        )
    return None


def _uncertainty(state: RunState, request: RunRequest) -> str | None:
    """Say what could not be established in time, naming the upstream run that may be alive."""
    run = state.run
    if state.create_unsettled:
        return (
            f"Whether an upstream run was created on thread {request.thread_id} could not be "
            "established; look there for metadata runlane_run_id"
        )
    if run is not None and run.status not in TERMINAL and state.stop != StopReason.GONE:
        return f"Upstream run {run.id} may be alive: its end could not be established"
    return None


def _error(message: str) -> dict[str, str]:
    return {"code": "server_error", "message": message}
