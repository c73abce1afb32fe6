"""When the caller was asked for outputs, for streams that tell of it afterwards. Pure."""

from runsapi import RunStatus
from workflows import answers
from workflows.contract import AskView
from workflows.state import RunState
from workflows.view import shown_status


def note(state: RunState) -> None:
    """Remember that the caller is asked, where that is new."""
    if shown_status(state) != RunStatus.REQUIRES_ACTION:
        return
    theirs = [call.id for call in state.calls if call.handled_by == "caller"]
    waiting = {call.id for call in answers.awaited(state) if call.handled_by == "caller"}
    if state.calls and not waiting:
        # People decide.
        return
    here = (state.attempt, state.rounds)
    noted = [ask for ask in state.asks if (ask.attempt, ask.round) == here]
    if noted and waiting <= {call_id for ask in noted for call_id in ask.call_ids}:
        return
    state.asks.append(AskView(attempt=state.attempt, round=state.rounds, call_ids=theirs))
