"""What a failed request means for an item, and for its batch. Nothing here is sent or written."""

from temporalio.exceptions import ApplicationError

from activities import failures
from activities.batch_contract import PauseKind
from ledger.batch_item import CANCELLED
from runsapi import (
    APIConnectionError,
    APIStatusError,
    CredentialsError,
    RunsAPIError,
    active_run_id,
    is_quota,
)

_MENDABLE: dict[str, PauseKind] = {
    "quota": "quota",
    "credentials": "credentials",
    "other_upstream": "other_upstream",
}
_GATEWAYS = (502, 503, 504)
"""What a proxy says for a server that isn't there."""


class PauseBatch(Exception):
    """No item can go on until somebody mends something, so none is to fail of it."""

    def __init__(self, kind: PauseKind, message: str) -> None:
        """Say what must be mended, in words."""
        super().__init__(message)
        self.kind = kind


class Trouble(Exception):
    """The item may be tried again.

    Args:
        kind: a fixed word, by which items are counted.
        message: what was said; no content.
        after: seconds that the upstream wants to be left alone.
        counts: whether this counts as one of the item's tries. A limit, a taken thread, and an
            upstream that answers nobody are not the item's doing.
        is_outage: it counts only where others were answered meanwhile.
        is_void: nothing was sent, so nothing can have come of it.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        after: float | None = None,
        counts: bool = True,
        is_outage: bool = False,
        is_void: bool = False,
    ) -> None:
        """Say what went wrong."""
        super().__init__(message)
        self.kind = kind
        self.after = after
        self.counts = counts
        self.is_outage = is_outage
        self.is_void = is_void


class Refused(Exception):
    """The item has failed: trying again would bring the same answer."""

    def __init__(self, kind: str, message: str, status_code: int | None = None) -> None:
        """Say why; `status_code` is the upstream's."""
        super().__init__(message)
        self.kind = kind
        self.status_code = status_code


Outcome = PauseBatch | Trouble | Refused


def too_late() -> Refused:
    """Return why an item ends that had not begun upstream when its batch was cancelled."""
    return Refused(CANCELLED, "The batch was cancelled before this began")


def of_error(error: RunsAPIError, *, creating: bool) -> Outcome:
    """Return what a request's error means; `creating` as in `failures.raise_for_upstream`."""
    if isinstance(error, CredentialsError):
        return PauseBatch("credentials", str(error))
    try:
        failures.raise_for_upstream(error, creating=creating, reading=not creating)
    except ApplicationError as failure:
        return _of(failure, error)


def of_failure(failure: ApplicationError) -> Outcome:
    """Return what an activity's own error means, one of looking for a stamp, say."""
    return _of(failure, None)


def _of(failure: ApplicationError, error: RunsAPIError | None) -> Outcome:
    message = failure.message
    delay = failure.next_retry_delay
    after = None if delay is None else delay.total_seconds()
    status = error.status_code if isinstance(error, APIStatusError) else None
    kind = failures.blocked_kind(failure)
    if isinstance(error, APIStatusError):
        # A create's refusal doesn't tell these from what is the item's own.
        kind = "quota" if is_quota(error) else "credentials" if status in (401, 403) else kind
    if kind is not None:
        mendable = _MENDABLE.get(kind)
        return PauseBatch(mendable, message) if mendable else Refused(kind, message, status)
    if failure.type == failures.REFUSED:
        return Refused(str(failure.details[0]), message, status)
    limits = {failures.RATE_LIMITED: "rate_limited", failures.THREAD_BUSY: "thread_busy"}
    if failure.type in limits:
        return Trouble(limits[failure.type], message, after=after, counts=False)
    sent = not isinstance(error, APIConnectionError) or error.sent
    return Trouble(
        "unavailable",
        message,
        is_outage=status is None or status in _GATEWAYS,
        counts=sent,
        is_void=not sent,
    )


def is_taken(error: RunsAPIError) -> bool:
    """Tell whether the thread has a run, which may be the one that is wanted."""
    return active_run_id(error) is not None
