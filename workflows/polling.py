"""When the upstream run is looked at again, and for how long a poll stays attached. Pure."""

from activities import polling
from activities.contract import RetrieveInput, Target, answerable
from runsapi import RunStatus, usable_interval_ms
from workflows import answers
from workflows.contract import RunOptions
from workflows.state import RunState

_FIXED_TIMER_FROM = 60.0


def timer_from(options: RunOptions) -> float:
    """Return from which interval on, in seconds, polls are timers of the workflow.

    A caller's interval under a minute is polled attached, or a week of it would cost a quarter of
    a million events.
    """
    return _FIXED_TIMER_FROM if _fixed_ms(options) else options.timing.timer_from


def interval(state: RunState, options: RunOptions, now: float) -> float:
    """Return the seconds between polls at this age of the leg."""
    return polling.poll_interval(
        now - state.leg_started_at,
        poll_interval_ms=_fixed_ms(options),
        poll_after_ms=state.poll_after_ms,
        floor=options.timing.poll_floor,
        ceiling=options.timing.poll_ceiling,
        ending=state.stop is not None,
    )


def schedule_poll(state: RunState, options: RunOptions, now: float) -> None:
    """After a poll, say when the next one is due; none means attached, at once."""
    wait = interval(state, options, now)
    state.next_poll_at = now + wait if wait >= timer_from(options) else None


def schedule_look(state: RunState, options: RunOptions, now: float) -> None:
    """While answers are awaited, look when the upstream run expires, and else on the curve."""
    timing = options.timing
    age = now - (state.gathering_since or now)
    look_at = now + polling.curve(age, floor=timing.look_floor, ceiling=timing.poll_ceiling)
    if state.expires_at is not None and state.expires_at > now:
        look_at = min(look_at, state.expires_at)
    state.next_look_at = look_at


def retrieve_input(
    state: RunState, options: RunOptions, target: Target, now: float, *, attach: bool
) -> RetrieveInput:
    """Return what a poll is told: how long to stay, and what is no news."""
    timing = options.timing
    attach_for = 0.0
    if attach:
        attach_for = timing.attach_for if _fixed_ms(options) is None else timing.attach_for_fixed
    stopping = state.stop is not None
    unanswerable = (
        state.run is not None
        and state.run.status == RunStatus.REQUIRES_ACTION
        and not answerable(state.run)
    )
    return RetrieveInput(
        target=target,
        attach_for=attach_for,
        leg_age=now - state.leg_started_at,
        poll_interval_ms=_fixed_ms(options),
        poll_after_ms=state.poll_after_ms,
        floor=timing.poll_floor,
        ceiling=timing.poll_ceiling,
        timer_from=timer_from(options),
        ending=stopping,
        beyond_action=stopping or unanswerable,
        # A stopped run answers nothing more; otherwise only what is in already is no news.
        answered=list(state.known if stopping else answers.taken(state)),
        asked={} if stopping else answers.taken(state),
        status=None if state.run is None else str(state.run.status),
    )


def _fixed_ms(options: RunOptions) -> int | None:
    return usable_interval_ms(options.poll_interval_ms)
