"""The one place where an upstream's error becomes an `ApplicationError`.

Temporal is the only one who retries, so everything it needs to know is said here: whether trying
again can help, when the server wants us back, and whether somebody must mend something first.
Messages name what the upstream said and what to do; they never hold keys or request contents.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.contract import Upstream
from runsapi import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    CredentialsError,
    HeldBackError,
    InvalidParameter,
    RunsAPIError,
    is_quota,
    retry_after,
)

UNAVAILABLE = "UpstreamUnavailable"
"""The upstream can't be reached or can't answer now; tried again until the run's deadline."""
RATE_LIMITED = "RateLimited"
THREAD_BUSY = "ThreadBusy"
"""Somebody else's run holds the thread; tried again until the run's deadline."""
REFUSED = "Refused"
"""Final. Details: one of the protocol's `last_error` codes, the message, the attempt."""
BLOCKED = "Blocked"
"""Somebody must mend something outside. Details: a `BlockedKind`, the message, the attempt, the
upstream."""
HANDOVER = "Handover"
"""This worker is shutting down; another one takes the poll over at once."""

RAISE_QUOTA = "Raise the upstream account's quota or mend its billing."
CHECK_CREDENTIALS = "Check RUNLANE_UPSTREAM_API_KEY and RUNLANE_UPSTREAM_AUTH."
CHECK_URL = "Check RUNLANE_UPSTREAM_URL, the thread and the assistant."
START_ITS_WORKER = "Start a worker with the run's RUNLANE_UPSTREAM_URL."
"""What to do about a blocked run. It ends the message; who says it for many runs cuts it off."""

LONGEST_BACKOFF = timedelta(seconds=10)
"""So that the end of an outage is noticed well within 15 s."""
MAX_SAID = 300
"""Characters of an upstream's own error text that are passed on."""
_LONGEST_DELAY = timedelta(hours=1)


def raise_for_upstream(error: RunsAPIError, *, creating: bool, reading: bool = False) -> NoReturn:
    """Raise what Temporal is to make of an upstream's error.

    Args:
        error: What the client raised.
        creating: Whether the call was to bring an upstream run into being. Then there is nothing
            to keep alive, and what trying again can't mend is final. On a run that exists, the
            same errors block it, so that a rotated key or a paid bill lets it go on.
        reading: Whether the call only looked at a run that exists. No answer to that is final: it
            would end a run that may be alive, with all its answers.
    """
    if isinstance(error, APIStatusError):
        _raise_for_status(error, creating=creating, reading=reading)
    if isinstance(error, HeldBackError):
        delay = _delay(error.retry_after)
        raise unavailable(str(error), type=RATE_LIMITED, after=delay) from None
    if isinstance(error, APIConnectionError):
        raise unavailable(str(error)) from None
    if isinstance(error, CredentialsError):
        # Ours to mend, not the upstream's refusal: no run has to die of it.
        if creating:
            raise unavailable(str(error)) from None
        raise blocked("credentials", str(error)) from None
    if isinstance(error, APIResponseError):
        # A gateway's error page or a truncated body: the next answer may be whole.
        raise unavailable(str(error)) from None
    code = "invalid_prompt" if isinstance(error, InvalidParameter) else "server_error"
    raise refusal(code, str(error)) from None


@contextmanager
def final_after(seconds: float, *, so_far: float) -> Iterator[None]:
    """Turn what would be tried again into a refusal, where the next try would come too late.

    Args:
        seconds: From the first try; what the body raises later is final.
        so_far: Seconds that this try has taken.
    """
    try:
        yield
    except ApplicationError as error:
        info = activity.info()
        earlier = info.current_attempt_scheduled_time - info.scheduled_time
        following = error.next_retry_delay or timedelta(0)
        if error.non_retryable or (earlier + following).total_seconds() + so_far < seconds:
            raise
        raise refusal("server_error", error.message) from None


def unavailable(
    message: str, *, type: str = UNAVAILABLE, after: timedelta | None = None
) -> ApplicationError:
    """Return the error after which Temporal tries again.

    The wait is said here and not left to the retry policy, which can't tell a failed upstream
    from a dead worker: what that one held is wanted back at once, however often it had failed.

    Args:
        message: What the upstream said.
        type: The error's type.
        after: How long the upstream wants to be left alone; else 1, 2, 4, 8, then 10 seconds.
    """
    backoff = timedelta(seconds=2 ** min(activity.info().attempt - 1, 10))
    return ApplicationError(
        message, type=type, next_retry_delay=after or min(backoff, LONGEST_BACKOFF)
    )


def refusal(code: str, message: str, *, unsettled: bool = False) -> ApplicationError:
    """Return the final error; `code` is one of the protocol's three `last_error` codes.

    Its third detail is the attempt: an earlier one may have been accepted without an answer. Where
    this one may have been accepted too, it is counted as one that is over.
    """
    attempt = activity.info().attempt + unsettled
    return ApplicationError(message, code, message, attempt, type=REFUSED, non_retryable=True)


def blocked(kind: str, message: str, *, upstream: Upstream | None = None) -> ApplicationError:
    """Return the error by which a run waits until somebody mends something.

    Its third detail is the attempt: an earlier one may have been accepted without an answer. The
    fourth is the upstream to which the run is bound, where that became known only now.
    """
    attempt = activity.info().attempt
    bound = None if upstream is None else upstream.model_dump(mode="json")
    return ApplicationError(
        message, kind, message, attempt, bound, type=BLOCKED, non_retryable=True
    )


def blocked_kind(error: BaseException | None) -> str | None:
    """Return what must be mended before what failed so can be done, if that is why."""
    if isinstance(error, ApplicationError) and error.type == BLOCKED:
        return str(error.details[0])
    return None


def _raise_for_status(error: APIStatusError, *, creating: bool, reading: bool) -> NoReturn:
    said = _said(error)
    if is_quota(error):
        message = f"{said}. {RAISE_QUOTA}"
        raise (
            refusal("rate_limit_exceeded", message) if creating else blocked("quota", message)
        ) from None
    if error.status_code in (401, 403):
        message = f"{said}. {CHECK_CREDENTIALS}"
        raise (
            refusal("server_error", message) if creating else blocked("credentials", message)
        ) from None
    if error.status_code == 404:
        message = f"{said} at {error.url}. {CHECK_URL}"
        raise (
            refusal("server_error", message) if creating else blocked("not_found", message)
        ) from None
    # A proxy's page for signing in comes as a redirect, and passes like an outage.
    redirected = error.status_code < 400 and not creating
    if reading or redirected or _worth_retrying(error):
        limited = error.status_code == 429
        raise unavailable(
            said, type=RATE_LIMITED if limited else UNAVAILABLE, after=_server_delay(error)
        ) from None
    codes = {429: "rate_limit_exceeded", 408: "server_error", 409: "server_error"}
    code = "server_error" if error.status_code >= 500 else "invalid_prompt"
    # The server failed, or lost one behind it: what it did, if anything, it doesn't say.
    unsettled = error.status_code == 408 or error.status_code >= 500
    raise refusal(codes.get(error.status_code, code), f"{said}.", unsettled=unsettled) from None


def _worth_retrying(error: APIStatusError) -> bool:
    # The server's word first: the SDKs honour this header over any status.
    word = error.headers.get("x-should-retry", "").lower()
    if word in ("true", "false"):
        return word == "true"
    return (
        error.status_code in (408, 409, 429)
        or error.status_code >= 500
        or error.code == "conversation_locked"
    )


def _server_delay(error: APIStatusError) -> timedelta | None:
    """Return how long the server wants to be left alone, an hour at most."""
    return _delay(retry_after(error.headers))


def _delay(seconds: float | None) -> timedelta | None:
    return None if seconds is None else min(timedelta(seconds=seconds), _LONGEST_DELAY)


def _said(error: APIStatusError) -> str:
    text = " ".join((error.message or "").split())[:MAX_SAID].rstrip(".")
    return f"The upstream answered {error.status_code}" + (f": {text}" if text else "")
