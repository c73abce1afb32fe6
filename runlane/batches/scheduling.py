"""What a schedule of batches is asked to do, checked before anything is sent."""

import re
from dataclasses import dataclass
from typing import ClassVar

from activities.scheduled_batch_contract import AskedBatch, ClockTime
from runlane.batches.checking import Totals
from runlane.batches.wanted import Wanted
from runlane.errors import InvalidRequest
from runlane.scheduling import Timed, check_size
from workflows.scheduled_contract import SCHEDULED_BATCH_WORKFLOW, ScheduledBatchInput

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_A_START = "-2026-12-01T06:00:00Z"


@dataclass(frozen=True, kw_only=True)
class WantedBatches(Timed):
    """A schedule of batches that is asked for."""

    workflow: ClassVar[str] = SCHEDULED_BATCH_WORKFLOW

    batch: AskedBatch

    def request(self) -> ScheduledBatchInput:
        """Return what each start asks for.

        Raises:
            InvalidRequest: something can't be used; it names the option and its limit.
        """
        self.check()
        found = ScheduledBatchInput(schedule=self.name, batch=self.batch)
        check_size(found, "Register fewer tools, or shorten what is said of them.")
        return found

    def digest(self) -> str:
        """Return what tells this schedule from another one of its name; who asks doesn't count."""
        batch = self.batch
        asked = batch.model_dump(mode="json", exclude={"file_id", "filename", "requested_by"})
        asked["options"] = {**batch.options, "requested_by": None}
        return self._digest_with({"schedule": self.name, "batch": asked})


def asked(
    schedule: str,
    wanted: Wanted,
    totals: Totals,
    *,
    filename: str,
    deadline: ClockTime | None,
    tools: list[dict[str, object]] | None,
) -> AskedBatch:
    """Return what each start is to begin; its input's place in the ledger isn't known yet.

    Args:
        schedule: its name, with which the batches' names begin.
        wanted: the batch, by any name.
        totals: of the input's check.
        filename: of the input.
        deadline: of each batch.
        tools: that each item is handed.

    Raises:
        InvalidRequest: an option can't be used, or no batch can be called after the schedule.
    """
    try:
        Wanted(name=schedule + _A_START).check()
    except InvalidRequest as error:
        raise InvalidRequest(error.message, param="NAME") from None
    wanted.check()
    return AskedBatch(
        file_id="",
        filename=filename,
        digest=totals.digest,
        total=totals.usable,
        options=wanted.stored_options(),
        token_limit=wanted.token_limit,
        cost_limit=None if wanted.cost_limit is None else f"{wanted.cost_limit:f}",
        deadline=deadline,
        tools=tools,
        owner=wanted.owner,
        requested_by=wanted.options.get("requested_by"),
    )


def clock_time(text: str, zone: str) -> ClockTime:
    """Read a deadline such as `06:00`.

    Raises:
        InvalidRequest: it is no time of day.
    """
    found = _CLOCK.fullmatch(text.strip())
    if found is None:
        text = f"--deadline of a schedule's batches must be a time such as 06:00, got {text!r}."
        raise InvalidRequest(text, param="--deadline")
    return ClockTime(hour=int(found[1]), minute=int(found[2]), zone=zone)
