"""What an activity's result or failure changes in the state. Pure."""

from activities import polling
from activities.contract import Created, answerable
from runsapi import Run, RunStatus
from workflows import answers, executions, kept_approvals
from workflows.contract import (
    AnswerOutcome,
    AttemptView,
    BlockedKind,
    BlockedView,
    RunOptions,
    UpstreamView,
)
from workflows.polling import schedule_look, schedule_poll
from workflows.state import OpenCall, RunState, StopReason
from workflows.view import total_usage

LOOK_AFTER = 10.0
"""Seconds from a round's beginning after which the upstream is looked at before its submit."""
_WITHOUT_ANSWERS = (RunStatus.EXPIRED, RunStatus.CANCELLING, RunStatus.CANCELLED, RunStatus.FAILED)
"""What a run that waits can become although nobody answers it."""


def take_over(state: RunState, options: RunOptions, created: Created, now: float) -> None:
    """Take a created or adopted upstream run as the present one."""
    state.create_unsettled = False
    run = created.run
    if run is None:
        return
    if state.attempt > 0:
        kept_approvals.keep(state, kept_approvals.unused(state, parked=True))
        state.recreations += 1
        state.barren += 1
        state.past_usage = total_usage(state)
    state.attempt += 1
    state.upstream = UpstreamView(name=created.upstream.name, url=created.upstream.url)
    state.simulated = state.simulated or created.simulated
    state.calls = []
    state.begun_here = []
    state.attempts.append(
        AttemptView(
            attempt=state.attempt,
            upstream_run_id=run.id,
            status=str(run.status),
            created_at=run.created_at,
        )
    )
    lifetime = (run.expires_at or 0) - run.created_at
    # A second more, for both instants are whole seconds, and the upstream's own.
    state.expires_at = now + lifetime + 1 if lifetime > 0 else None
    start_leg(state, options, created.poll_after_ms, now)
    observe(state, options, run, now)


def start_leg(state: RunState, options: RunOptions, poll_after_ms: int | None, now: float) -> None:
    """Begin to wait for what the upstream makes of a create, a submit or a cancel."""
    state.leg_started_at = now
    state.poll_after_ms = poll_after_ms
    # An answer may ask for so long a wait that no attached poll could sit it out.
    schedule_poll(state, options, now)


def observe(state: RunState, options: RunOptions, run: Run, now: float) -> None:
    """Take the upstream run as it is now: a new round, a round others answered, an end."""
    state.run = run
    state.seen_at = now
    state.blocked = None
    if state.attempts:
        state.attempts[-1] = state.attempts[-1].model_copy(update={"status": str(run.status)})
    if state.stop is not None:
        return
    unused = kept_approvals.unused(state, parked=False)
    if answers.open_round(state, run, now, with_tools=options.with_tools):
        kept_approvals.keep(state, unused)
        executions.attach(state)
        state.gathering_since = now
        schedule_look(state, options, now)
        if state.counted_rounds > options.max_rounds:
            stop(state, StopReason.ROUNDS, now)
        return
    still_asked = run.status == RunStatus.REQUIRES_ACTION and answerable(run)
    # A word that we don't know tells nothing of what became of the calls.
    known_status = isinstance(run.status, RunStatus)
    if state.calls and known_status and not still_asked and run.status not in _WITHOUT_ANSWERS:
        answers.close_round(state, AnswerOutcome.OVERTAKEN)
        kept_approvals.keep(state, unused)
        state.leg_started_at = now


def is_expired(state: RunState, options: RunOptions) -> bool:
    """Tell whether the upstream run has expired and another one may take its place."""
    run = state.run
    return run is not None and run.status == RunStatus.EXPIRED and options.on_expiry == "recreate"


def is_stale(state: RunState, now: float) -> bool:
    """Tell whether the round is so old that it may have been answered in a history undone since.

    Most upstreams refuse outputs then; one that numbers its calls anew in each round takes them
    for the next one's.
    """
    return state.gathering_since is not None and now - state.gathering_since > LOOK_AFTER


def block(
    state: RunState, options: RunOptions, kind: BlockedKind, message: str, now: float
) -> None:
    """Stand still until somebody mends something; try again on the curve.

    An upstream run that has been answered by 404 for long enough is gone.
    """
    timing = options.timing
    before = state.blocked if state.blocked and state.blocked.kind == kind else None
    since = (before.since_at if before else None) or now
    state.blocked = BlockedView(kind=kind, message=message, since_at=since)
    if kind == BlockedKind.NOT_FOUND and now - since >= timing.not_found_for and not state.stop:
        state.last_error = {"code": "server_error", "message": message}
        stop(state, StopReason.GONE, now)
        return
    wait = polling.curve(now - since, floor=timing.blocked_floor, ceiling=timing.poll_ceiling)
    state.blocked_until = now + wait


def fail_undecided(state: RunState, call: OpenCall, now: float) -> None:
    """Bring the run to its end because nobody decided about a call in time."""
    message = f"Nobody decided about the call {call.id} of {call.name} in time"
    state.last_error = {"code": "server_error", "message": message}
    stop(state, StopReason.UNDECIDED, now)


def stop(state: RunState, reason: StopReason, now: float) -> bool:
    """Bring the run to its end; tell whether that is new."""
    if state.stop is not None or state.ended_at is not None:
        return False
    state.stop, state.stopped_at = reason, now
    state.blocked_until = None
    return True
