"""The side effect of a schedule's start: a thread of its own for a run that is given none."""

from pydantic import BaseModel, ConfigDict
from temporalio import activity

from activities import failures
from activities.heartbeat import heartbeating
from runsapi import Assistants, RunsAPIError


class MadeThread(BaseModel):
    """A thread that was just made upstream."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    thread_id: str


class ScheduleActivities:
    """The schedules' activity of one worker.

    Args:
        upstream: the connection; its client makes no retries of its own.
    """

    def __init__(self, upstream: Assistants) -> None:
        self._upstream = upstream

    @activity.defn(name="schedule.thread")
    async def thread(self) -> MadeThread:
        """Make a thread.

        An answer that is lost, or a death before Temporal has it, leaves an empty thread behind
        that no run ever works on; the next attempt makes another one.

        Raises:
            ApplicationError: the upstream refuses, final; or it can't answer now, retryable.
        """
        async with heartbeating():
            try:
                answer = await self._upstream.request("POST", "/threads", body={})
            except RunsAPIError as error:
                failures.raise_for_upstream(error, creating=True)
        thread_id = answer.data.get("id") if isinstance(answer.data, dict) else None
        if not isinstance(thread_id, str) or not thread_id:
            raise failures.unavailable("The upstream made a thread without an id")
        return MadeThread(thread_id=thread_id)
