"""The contract of what schedules start, `Scheduled` and `ScheduledBatch`: names, inputs, results.

The inputs stand in schedules for as long as they do, which is longer than any run: they are read by
all code that follows.
"""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from activities.contract import derive_run_id
from activities.scheduled_batch_contract import AskedBatch
from workflows.contract import RunOptions

SCHEDULED_WORKFLOW = "Scheduled"
SCHEDULED_BATCH_WORKFLOW = "ScheduledBatch"
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


class ScheduledBatchInput(_Message):
    """What each start of a schedule begins, where that is a batch."""

    schedule: str
    """Its name."""
    batch: AskedBatch


class ScheduledBatchResult(_Message):
    """Which batch it was, and how it ended."""

    batch_id: str
    status: str | None = None
    """None: it was ended in Temporal, past Runlane."""


def scheduled_batch_name(workflow_id: str) -> str:
    """Return the name of the batch of one start: the schedule's, and the scheduled time.

    Args:
        workflow_id: of the start.
    """
    return workflow_id.removeprefix(ID_PREFIX)


def scheduled_time(schedule: str, workflow_id: str) -> datetime | None:
    """Return the time that stands in a start's id; None: no schedule has given it that id.

    Args:
        schedule: its name.
        workflow_id: of the start.
    """
    try:
        found = datetime.fromisoformat(workflow_id.removeprefix(f"{ID_PREFIX}{schedule}-"))
    except ValueError:
        return None
    return None if found.tzinfo is None else found


def scheduled_run_id(schedule: str, workflow_id: str) -> str:
    """Return the id of the run of one start; the same one however often it is started.

    Args:
        schedule: its name.
        workflow_id: of the start, which holds the scheduled time.
    """
    return derive_run_id(f"schedule:{schedule}", workflow_id)
