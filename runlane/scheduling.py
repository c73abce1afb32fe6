"""What a schedule is asked to do, checked before anything is sent."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel
from temporalio.client import ScheduleOverlapPolicy

from activities.contract import canonical_json
from runlane import requests
from runlane.durations import format_duration
from runlane.errors import InvalidRequest
from runlane.receipts import json_bytes
from workflows.contract import content_digest
from workflows.scheduled_contract import SCHEDULED_WORKFLOW, ScheduledInput

OVERLAPS: Mapping[str, ScheduleOverlapPolicy] = {
    policy.name.lower().replace("_", "-"): policy for policy in ScheduleOverlapPolicy
}
"""What happens to a start while the run of an earlier one goes on: Temporal's own words."""

MAX_NAME = 200
"""Characters of a schedule's name."""
MAX_REQUEST_BYTES = 24_000
"""Of what a schedule holds, as JSON. A larger payload would lie outside Temporal, where `runlane
prune` takes it for a forgotten run's."""
MIN_CATCHUP = timedelta(seconds=10)
"""The least that Temporal takes."""
MAX_CATCHUP = timedelta(days=365)

_ZONE_IN_CRON = ("TZ=", "CRON_TZ=")
# Any thread's id: a new thread has none yet.
_NEW_THREAD = "thread_new"


@dataclass(frozen=True, kw_only=True)
class Timed(ABC):
    """When a schedule starts something, whatever that is."""

    workflow: ClassVar[str]
    """What is started."""

    name: str
    cron: Sequence[str]
    """Five fields each, or `@daily` and the like."""
    timezone: str = "UTC"
    """IANA name of the zone in which `cron` is read."""
    overlap: str = "skip"
    """One of `OVERLAPS`."""
    catchup_window: timedelta | None = None
    """Starts missed while Temporal was away are made up for if they are not older. None: a year,
    Temporal's default."""

    def check(self) -> None:
        """Refuse what can't be used.

        Raises:
            InvalidRequest: it names the option and its limit.
        """
        check_name(self.name)
        for cron in self.cron:
            if not cron.strip() or not cron.isprintable():
                raise InvalidRequest("--cron must be a line such as '0 6 * * *'.", param="--cron")
            if cron.strip().startswith(_ZONE_IN_CRON):
                text = f"Name the zone of {cron!r} by --timezone."
                raise InvalidRequest(text, param="--cron")
        if not self.cron:
            raise InvalidRequest("A schedule needs a --cron.", param="--cron")
        zone(self.timezone)
        if self.overlap not in OVERLAPS:
            text = f"--overlap must be one of {', '.join(OVERLAPS)}, got {self.overlap!r}."
            raise InvalidRequest(text, param="--overlap")
        window = self.catchup_window
        if window is not None and not MIN_CATCHUP <= window <= MAX_CATCHUP:
            text = (
                f"--catchup-window must be between {format_duration(MIN_CATCHUP)} and "
                f"{format_duration(MAX_CATCHUP)}, got {format_duration(window)}."
            )
            raise InvalidRequest(text, param="--catchup-window")

    @abstractmethod
    def request(self) -> BaseModel:
        """Return what each start asks for, checked."""

    @abstractmethod
    def digest(self) -> str:
        """Return what tells this schedule from another one of its name; who asks doesn't count."""

    def _digest_with(self, asked: Mapping[str, Any]) -> str:
        window = None if self.catchup_window is None else self.catchup_window.total_seconds()
        return content_digest(
            canonical_json([list(self.cron), self.timezone, self.overlap, window, asked])
        )


@dataclass(frozen=True, kw_only=True)
class Wanted(Timed):
    """A schedule of runs that is asked for."""

    workflow: ClassVar[str] = SCHEDULED_WORKFLOW

    thread_id: str | None = None
    """None: a new one for each run."""
    params: Mapping[str, Any]
    """The protocol's create body."""
    options: Mapping[str, Any]
    """As `requests.asked` takes them, but no idempotency key."""

    def request(self) -> ScheduledInput:
        """Return what each start asks for.

        Raises:
            InvalidRequest: something can't be used; it names the option and its limit.
        """
        self.check()
        asked = requests.asked(self.thread_id or _NEW_THREAD, self.params, **self.options).request
        found = ScheduledInput(
            schedule=self.name,
            params=asked.params,
            thread_id=self.thread_id,
            options=asked.options,
            owner=asked.owner,
            requested_by=asked.requested_by,
        )
        check_size(found, "Put long texts into the assistant, or shorten them.")
        return found

    def digest(self) -> str:
        """Return what tells this schedule from another one of its name; who asks doesn't count."""
        return self._digest_with(self.request().model_dump(mode="json", exclude={"requested_by"}))


def check_size(request: BaseModel, mend: str) -> None:
    """Refuse more than a schedule may hold.

    Args:
        request: what each start asks for.
        mend: what can be done, as a sentence.

    Raises:
        InvalidRequest: it names the limit.
    """
    size = json_bytes(request.model_dump(mode="json"))
    if size > MAX_REQUEST_BYTES:
        text = (
            f"The request has {size:,} bytes as JSON; a schedule may hold "
            f"{MAX_REQUEST_BYTES:,}. {mend}"
        )
        raise InvalidRequest(text, param="params", code="too_large")


def check_name(name: str) -> None:
    """Refuse what can't be a schedule's name.

    Raises:
        InvalidRequest: it names the limit.
    """
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable() or name != name.strip():
        text = f"A schedule's name must be a line of 1 to {MAX_NAME} characters."
        raise InvalidRequest(text, param="NAME")


def zone(name: str) -> ZoneInfo:
    """Return a time zone.

    Raises:
        InvalidRequest: there is none of this name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        text = f"There is no time zone {name!r}: write one such as Europe/Berlin."
        raise InvalidRequest(text, param="--timezone") from None
