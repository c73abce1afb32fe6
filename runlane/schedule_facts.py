"""What is known of schedules and of their starts."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from workflows.scheduled_contract import ScheduledBatchInput, ScheduledInput


@dataclass(frozen=True, kw_only=True)
class Start:
    """One start of a schedule: of a run, or of a batch."""

    run_id: str | None = None
    batch: str | None = None
    """Its name."""
    scheduled_at: datetime


@dataclass(frozen=True, kw_only=True)
class Known:
    """A schedule as Temporal has it; its times are in the schedule's own zone."""

    name: str
    cron: tuple[str, ...]
    """Empty in a list where this process lacks the key that shows it; the zone is UTC then."""
    timezone: str
    of_batches: bool
    """Whether it begins batches, and not runs."""
    paused: bool
    note: str | None
    """The reason of the pause."""
    next: tuple[datetime, ...]
    """At most ten; of a paused schedule those that it would begin."""
    recent: tuple[Start, ...]
    """The latest starts, the oldest first."""


@dataclass(frozen=True, kw_only=True)
class Described(Known):
    """A schedule with all that is known of it."""

    overlap: str
    catchup_window: timedelta
    skipped: int
    """Starts that were left out, because what an earlier one began went on."""
    missed: int
    """Starts that were older than the catch-up window when Temporal came back."""
    request: ScheduledInput | ScheduledBatchInput


@dataclass(frozen=True, kw_only=True)
class Triggered:
    """What came of a trigger."""

    start: Start | None = None
    """None: nothing was started; as `skipped` says, or it waits for the end of the one before."""
    begun: bool = False
    """Whether it is there by now. It takes a worker; for a new thread, the upstream too."""
    skipped: bool = False
    """What an earlier start began goes on, and the schedule's overlap lets no other begin."""

    @property
    def run_id(self) -> str | None:
        """The run's id; None where none was started, or a batch."""
        return None if self.start is None else self.start.run_id
