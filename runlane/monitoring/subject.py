"""What an activity is about: the words that its log lines and spans carry."""

import logging
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from activities.contract import Created, CreateInput
from runlane.monitoring import metrics
from runsapi import Run

_PHASES = {
    "runs.create": "create",
    "runs.retrieve": "poll",
    "runs.submit_tool_outputs": "submit",
    "runs.cancel": "cancel",
    "runs.update": "update",
    "tools.classify": "classify",
    "tools.call": "tool",
}
_logger = logging.getLogger("runlane.worker")


@dataclass(frozen=True)
class Subject:
    """One activity's run, and what is done for it."""

    run_id: str
    phase: str
    """A word for what is done: `create`, `poll`, `tool`; of some, the activity's name."""
    tries: int
    """Temporal's count of how often this activity was begun."""
    attempt: int | None = None
    """Of the upstream run; None where the activity's input doesn't say."""
    thread_id: str | None = None
    upstream: str | None = None
    """Its URL."""


_subject: ContextVar[Subject | None] = ContextVar("runlane_subject", default=None)


def subject() -> Subject | None:
    """Return what the running activity is about; None outside of one."""
    return _subject.get()


class ActivitySubjects(Interceptor):
    """Says of each activity what it is about, to whatever logs or traces inside of it."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Put ours in front."""
        return _Inbound(next)


class _Inbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        # Never taken back: the SDK reports the activity's failure after we have returned, in the
        # same task, and each activity has a task of its own.
        about = subject_of(input)
        _subject.set(about)
        result = await self.next.execute_activity(input)
        match input.args, result:
            case [CreateInput(attempt=attempt)], Created(run=Run()) if attempt > 1:
                metrics.RECREATIONS.inc()
        if about.phase != "poll":
            run = getattr(result, "run", None)
            _logger.info("Done%s", "" if run is None else f": upstream run {run.id}")
        return result


def subject_of(input: ExecuteActivityInput) -> Subject:
    """Return what the activity that is being begun is about."""
    info = activity.info()
    given = input.args[0] if input.args else None
    # A create says where it happens; all others name the upstream run that they are about.
    place = getattr(given, "target", given)
    upstream = getattr(place, "upstream", None)
    return Subject(
        run_id=info.workflow_id or "",
        phase=_PHASES.get(info.activity_type, info.activity_type),
        tries=info.attempt,
        attempt=getattr(place, "attempt", None) or None,
        thread_id=getattr(place, "thread_id", None),
        upstream=getattr(upstream, "url", None),
    )
