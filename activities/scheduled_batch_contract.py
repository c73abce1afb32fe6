"""What the `ScheduledBatch` workflow hands to its activity and gets from it.

Pinned: schedules hold it for as long as they stand.
"""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict

from activities.clock_times import next_time


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class ClockTime(_Model):
    """A time of day in a zone."""

    hour: int
    minute: int
    zone: str
    """IANA name."""

    def after(self, moment: float) -> datetime:
        """Return when a clock there next shows it after that Unix second, in UTC."""
        here = datetime.fromtimestamp(moment, ZoneInfo(self.zone))
        return next_time(here, self.hour, self.minute).astimezone(UTC)


class AskedBatch(_Model):
    """A batch that is begun again and again. Its input lies in the ledger, as a file."""

    file_id: str
    filename: str
    """The input, as people know it."""
    digest: str
    """Of the input."""
    total: int
    """How many items it has."""
    options: dict[str, Any] = {}
    """As in the batch's record, with `lanes` and `window`."""
    token_limit: int | None = None
    cost_limit: str | None = None
    """An amount, by the prices among the options."""
    deadline: ClockTime | None = None
    """Nothing begins after it: the first one after the scheduled time."""
    tools: list[dict[str, Any]] | None = None
    """As runs take them; each item is handed these besides its own."""
    owner: str = ""
    requested_by: str | None = None


class BeginBatchInput(_Model):
    """Input of `schedule.batch`."""

    name: str
    scheduled_at: float
    """Unix seconds."""
    batch: AskedBatch


class BegunBatch(_Model):
    """Result of `schedule.batch`: the batch as it stands."""

    batch_id: str
    status: str
    lanes: int
    window: int
