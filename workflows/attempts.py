"""The parameters of the next upstream run, and how often another one may be created. Pure."""

from typing import Any

from activities.contract import Asked, CreateInput, Target, Upstream
from activities.contract import stamped as stamped  # noqa: PLC0414 - it is had from here
from activities.contract import unstamped as unstamped  # noqa: PLC0414 - likewise
from runsapi import MAX_TEXT
from workflows import answers
from workflows.contract import RunRequest
from workflows.state import RunState

MAX_BARREN = 3
"""Re-creations in a row in which the upstream took no answer that was new."""
MAX_BARREN_UNANSWERED = 1
"""The same where there is neither an answer nor an approval that a further run could take."""
KEY_KEPT_FOR = 86_400.0 - 300.0
"""Seconds. Temporal retains no run for less than a day, so an upstream run of a key's that is
younger was created for the same key, whatever Temporal has lost since. Less by more than clocks may
differ: who uses the key a day later must not get yesterday's run."""


def create_params(run_id: str, request: RunRequest, state: RunState) -> dict[str, Any]:
    """Return the create body of the upstream run that comes after the present one."""
    params = dict(request.params)
    params["metadata"] = stamped(run_id, state.attempt + 1, state.metadata)
    if state.attempt > 0:
        # The first upstream run added them to the thread, where they still stand.
        params.pop("additional_messages", None)
    if state.reworded and answers.held(state):
        before = params.get("additional_instructions")
        reminder = answers.reminder(state)
        reminded = f"{before}\n\n{reminder}" if before else reminder
        # Without room for both, the caller's own words matter more.
        if len(reminded) <= MAX_TEXT:
            params["additional_instructions"] = reminded
    return params


def create_input(
    run_id: str,
    request: RunRequest,
    state: RunState,
    now: float,
    *,
    look_first: bool,
    execution: str = "",
) -> CreateInput:
    """Return what the next create is told."""
    started_at = state.deadline_at - request.options.deadline
    return CreateInput(
        run_id=run_id,
        attempt=state.attempt + 1,
        thread_id=request.thread_id,
        params=create_params(run_id, request, state),
        upstream=upstream_of(state),
        age=now - started_at,
        look_first=look_first,
        older_by=KEY_KEPT_FOR if request.has_key else 0.0,
        execution=execution,
        asked=Asked(
            created_at=request.created_at,
            digest=request.digest(),
            owner=request.owner,
            has_key=request.has_key,
        ),
        stream=request.options.stream,
    )


def upstream_of(state: RunState) -> Upstream | None:
    """Return the service on which the run lives, once it lives on one."""
    at = state.upstream
    return None if at is None else Upstream(name=at.name, url=at.url)


def target(request: RunRequest, state: RunState) -> Target:
    """Return the present upstream run.

    Raises:
        RuntimeError: There is none yet.
    """
    upstream, run = upstream_of(state), state.run
    if upstream is None or run is None:
        raise RuntimeError("There is no upstream run yet")
    return Target(
        upstream=upstream, thread_id=request.thread_id, run_id=run.id, attempt=state.attempt
    )


def may_recreate(state: RunState) -> bool:
    """Tell whether another upstream run may be created after one that expired."""
    held = answers.held(state) or any(each.parked for each in state.kept)
    limit = MAX_BARREN if held else MAX_BARREN_UNANSWERED
    return state.barren < limit
