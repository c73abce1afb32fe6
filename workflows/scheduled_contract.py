"""The `Scheduled` workflow's contract: its name on the wire, its input and result.

The input stands in schedules for as long as they do, which is longer than any run: it is read by
all code that follows.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

from activities.contract import derive_run_id
from workflows.contract import RunOptions

SCHEDULED_WORKFLOW = "Scheduled"
ID_PREFIX = "schedule_"
"""Temporal makes the workflow's id of this, the schedule's name and the scheduled time."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class ScheduledInput(_Message):
    """What each start of a schedule asks for."""

    schedule: str
    """Its name."""
    params: dict[str, Any]
    """The create body, as `RunRequest.params`."""
    thread_id: str | None = None
    """None: each run gets a new one."""
    options: RunOptions = RunOptions()
    owner: str = ""
    requested_by: str | None = None


class ScheduledResult(_Message):
    """Which run it was, and how it ended."""

    run_id: str
    status: str | None = None
    """None: it was there already, or was ended in Temporal, past Runlane."""


def scheduled_run_id(schedule: str, workflow_id: str) -> str:
    """Return the id of the run of one start; the same one however often it is started.

    Args:
        schedule: its name.
        workflow_id: of the start, which holds the scheduled time.
    """
    return derive_run_id(f"schedule:{schedule}", workflow_id)
