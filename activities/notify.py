"""Notices to people about approvals, sent to webhooks: beside everything, awaited by nothing.

A notice never holds what a call is about, only who is asked for what by when, and digests. How a
webhook is called is `runlane`'s; an activity is handed this process's `Receiver`s.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict
from temporalio import activity
from temporalio.exceptions import ApplicationError

ATTEMPT_TIMEOUT = timedelta(seconds=10)
"""Of one try at one receiver, connecting included."""
UNDELIVERED = "Undelivered"
"""Somebody has not taken the notice yet; tried again."""

_logger = logging.getLogger(__name__)


class NoticeEvent(StrEnum):
    """What a notice tells of."""

    REQUESTED = "approval.requested"
    """A call waits for people."""
    REMINDER = "approval.reminder"
    """It still does."""
    ESCALATED = "approval.escalated"
    """Its deadline has passed, and the next group is asked."""
    DECIDED = "approval.decided"
    """It waits no more: approved, rejected, answered, or its deadline decided."""


class Notice(BaseModel):
    """One notice; instants are unix seconds."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    id: str
    """The same for every try and every receiver: who gets it twice knows it by this."""
    event: NoticeEvent
    at: float
    run_id: str
    tool_call_id: str
    tool: str
    reason: str | None = None
    """Why the call needs somebody, as its policy says."""
    approvers: list[str] = []
    groups: list[str] = []
    """Who is asked now."""
    have: int = 0
    need: int = 1
    """How many people have approved, and must."""
    since: float
    deadline: float | None = None
    arguments_digest: str
    tool_digest: str
    outcome: str | None = None
    """Of what was decided: `approve`, `reject`, `answer`, or the deadline's."""
    by: list[str] = []
    """Who decided; nobody where the deadline did."""


class Gone(Exception):
    """The receiver wants no more of this (410)."""


class NotTaken(Exception):
    """The receiver hasn't taken it; the message says why, and holds no secret."""


class Receiver(Protocol):
    """Somebody who gets notices."""

    @property
    def name(self) -> str:
        """What tells it from the others; no secret, for Temporal keeps it."""

    @property
    def shown(self) -> str:
        """What a log may say of it."""

    async def deliver(self, message_id: str, body: str) -> None:
        """Hand the message over.

        Raises:
            Gone: it wants no more of this.
            NotTaken: it hasn't taken it.
        """


def notice_id(run_id: str, call_id: str, event: NoticeEvent, count: int) -> str:
    """Return the id of a run's notice: the same whoever works it out, and however often."""
    told = f"{run_id}\0{call_id}\0{event}\0{count}"
    return "msg_" + hashlib.sha256(told.encode(errors="surrogatepass")).hexdigest()[:32]


def message(notice: Notice) -> str:
    """Return what receivers get: the same text for every try, since it is signed."""
    data: dict[str, Any] = {
        "run_id": notice.run_id,
        "tool_call_id": notice.tool_call_id,
        "tool": notice.tool,
        "reason": notice.reason,
        "approvers": notice.approvers,
        "groups": notice.groups,
        "approvals": {"have": notice.have, "need": notice.need},
        "since": _instant(notice.since),
        "deadline": None if notice.deadline is None else _instant(notice.deadline),
        "arguments_digest": notice.arguments_digest,
        "tool_digest": notice.tool_digest,
        "command": f"runlane approval show {notice.tool_call_id} --run {notice.run_id}",
    }
    if notice.event is NoticeEvent.DECIDED:
        data |= {"outcome": notice.outcome, "decided_by": notice.by}
    return json.dumps({"type": notice.event, "timestamp": _instant(notice.at), "data": data})


class NotifyActivities:
    """The activities of one worker's notices."""

    def __init__(self, receivers: Sequence[Receiver]) -> None:
        self._receivers = receivers

    @activity.defn(name="notify.send")
    async def send(self, notice: Notice) -> None:
        """Hand a notice to each receiver that hasn't got it, side by side.

        Raises:
            ApplicationError: some haven't taken it. The next try, on whatever worker, knows by
                the heartbeat who has; one that dies in between sends it twice.
        """
        details = activity.info().heartbeat_details
        settled: set[str] = set(details[0] if details else [])
        body = message(notice)
        missing: list[str] = []

        async def deliver(receiver: Receiver) -> None:
            try:
                async with asyncio.timeout(ATTEMPT_TIMEOUT.total_seconds()):
                    await receiver.deliver(notice.id, body)
            except Gone:
                _logger.warning("%s wants no %s any more (410)", receiver.shown, notice.event)
            except (NotTaken, TimeoutError) as error:
                missing.append(f"{receiver.shown}: {str(error) or 'no answer in time'}")
                return
            settled.add(receiver.name)
            activity.heartbeat(sorted(settled))

        await asyncio.gather(*(deliver(r) for r in self._receivers if r.name not in settled))
        if missing:
            raise ApplicationError("; ".join(sorted(missing)), type=UNDELIVERED)


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
