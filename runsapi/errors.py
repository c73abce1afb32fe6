"""What can go wrong between us and an upstream.

::

    RunsAPIError
    ├── InvalidParameter (also ValueError)   refused here, nothing was sent
    ├── CredentialsError                     no key could be had, nothing was sent
    ├── APIConnectionError                   no answer: whether the upstream acted is unknown
    │   ├── APITimeoutError                  the same, because it took too long
    │   └── HeldBackError                    its turn didn't come, nothing was sent
    ├── APIStatusError                       an answer, with a status of 300 or above
    └── APIResponseError                     an answer that is not what the protocol says

No error holds a key, the value of a request header, or what was in a request. A message of the
upstream is kept word for word (shortened, and without our own key should it echo it), because some
of its answers can be told apart by nothing else; the functions below read them.
"""

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

MAX_MESSAGE = 2_000
"""Characters of an upstream's error message that are kept."""

_LONGEST_BY_OUR_CLOCK = 60.0
"""Seconds until a date that an upstream names without saying what time it has."""

_ENDLESS = 1e9
"""Seconds; what is longer is a mistake and no wish."""


class RunsAPIError(Exception):
    """Base of every error of this package."""


class InvalidParameter(RunsAPIError, ValueError):
    """A parameter was refused before anything was sent.

    Attributes:
        param: The parameter's path, e.g. ``tools[0].function.name``.
    """

    def __init__(self, *, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), {"param": self.param, "message": str(self)})


class CredentialsError(RunsAPIError):
    """No key could be had. Mend the variable, the file or the sign-in that it names."""


class APIConnectionError(RunsAPIError):
    """No answer came. Whether the upstream received the request, and acted on it, is unknown.

    Attributes:
        url: What was called, without user, password and query.
        sent: Whether the request may have arrived; false where not even a connection was made.
    """

    def __init__(self, message: str, *, url: str = "", sent: bool = True) -> None:
        super().__init__(message)
        self.url = url
        self.sent = sent

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {"message": str(self), "url": self.url, "sent": self.sent}
        return _rebuild, (type(self), fields)


class APITimeoutError(APIConnectionError):
    """No answer came in time. The upstream may still be acting on the request."""


class HeldBackError(APIConnectionError):
    """The request never left: its turn under the connection's limits didn't come in time.

    Attributes:
        retry_after: Seconds that the upstream wants to be left alone, where that is the reason.
    """

    def __init__(
        self, message: str, *, url: str = "", sent: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message, url=url, sent=sent)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {"message": str(self), "url": self.url, "retry_after": self.retry_after}
        return _rebuild, (type(self), fields)


class APIStatusError(RunsAPIError):
    """The upstream answered with a status of 300 or above.

    Attributes:
        status_code: The HTTP status.
        message: The upstream's own words, at most 2,000 characters.
        type: The envelope's ``type``, e.g. ``invalid_request_error``.
        param: The parameter the upstream complains about.
        code: The envelope's ``code``, e.g. ``insufficient_quota``.
        headers: The answer's headers; names compare without regard to case when the client raised
            it.
        url: What was called, without user, password and query.
    """

    def __init__(
        self,
        status_code: int,
        message: str,
        *,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        url: str = "",
    ) -> None:
        self.message = message[:MAX_MESSAGE]
        super().__init__(f"{status_code} from {url or 'the upstream'}: {self.message}")
        self.status_code = status_code
        self.type = type
        self.param = param
        self.code = code
        self.headers: Mapping[str, str] = headers if headers is not None else {}
        self.url = url

    def __reduce__(self) -> tuple[Any, ...]:
        fields = ("status_code", "message", "type", "param", "code", "headers", "url")
        return _rebuild, (type(self), {name: getattr(self, name) for name in fields})


class APIResponseError(RunsAPIError):
    """The upstream's answer is not what the protocol says: no JSON, not a run, too large.

    Attributes:
        status_code: The HTTP status of the answer.
        url: What was called, without user, password and query.
    """

    def __init__(self, message: str, *, status_code: int | None = None, url: str = "") -> None:
        super().__init__(message)
        self.status_code = status_code
        self.url = url

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {"message": str(self), "status_code": self.status_code, "url": self.url}
        return _rebuild, (type(self), fields)


def _rebuild(cls: type[RunsAPIError], fields: dict[str, Any]) -> RunsAPIError:
    return cls(**fields)


def is_quota(error: APIStatusError) -> bool:
    """Whether the account's quota is used up, which no waiting mends."""
    return "insufficient_quota" in (error.code, error.type)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """How long the upstream wants to be left alone, in seconds.

    ``retry-after-ms`` beats ``retry-after``, which is a number or a date. ``None`` where neither
    says anything that can be obeyed: nothing, garbage, the past, or a time beyond all numbers.
    """
    seconds = headers.get("retry-after", "")
    for text, unit in ((headers.get("retry-after-ms", ""), 0.001), (seconds, 1.0)):
        try:
            wait = float(text) * unit
        except ValueError:
            continue
        if 0 < wait < _ENDLESS:
            return wait
    return _until(seconds, headers.get("date", ""))


def _until(text: str, now: str) -> float | None:
    try:
        when = _moment(text)
    except ValueError:
        return None
    try:
        # By the upstream's own clock, for ours may be a day off.
        wait = (when - _moment(now)).total_seconds()
    except ValueError:
        wait = min(when.timestamp() - time.time(), _LONGEST_BY_OUR_CLOCK)
    return wait if wait > 0 else None


def _moment(text: str) -> datetime:
    when = parsedate_to_datetime(text)
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


# A status is quoted with " on submit, with ' on cancel, and not at all by some servers.
_STATUS = r"""["'`]?(?:RunStatus\.)?(\w+)["'`]?"""
_ACTIVE = re.compile(r"already has an active run\s+[\"'`]?([\w-]+)", re.IGNORECASE)
_SUBMIT = (
    re.compile(rf"runs? in status {_STATUS} do(?:es)? not accept tool outputs", re.IGNORECASE),
    re.compile(rf"run status is {_STATUS},? cannot submit tool outputs", re.IGNORECASE),
)
_CANCEL = (
    re.compile(rf"cannot cancel runs? with status {_STATUS}", re.IGNORECASE),
    re.compile(
        rf"run status is {_STATUS},? (?:cannot|can't|can not) (?:be )?cancel", re.IGNORECASE
    ),
)
_MISMATCH = re.compile(r"expected tool outputs for call_ids|invalid tool call", re.IGNORECASE)


def active_run_id(error: BaseException) -> str | None:
    """The run that holds the thread, where a create was refused because the thread has one.

    The answer reads ``Thread thread_X already has an active run run_Y.``
    """
    match = _ACTIVE.search(_words(error))
    return match.group(1) if match else None


def submit_refused_status(error: BaseException) -> str | None:
    """The status the run is in, where outputs were refused because of it; else ``None``.

    Answers read ``Runs in status "expired" do not accept tool outputs.``, or on open-assistant-api
    ``Run status is "expired", cannot submit tool outputs``.
    """
    return _status(_SUBMIT, error)


def cancel_refused_status(error: BaseException) -> str | None:
    """The status the run is in, where a cancel was refused because of it; else ``None``.

    The answer reads ``Cannot cancel run with status 'completed'.``
    """
    return _status(_CANCEL, error)


def is_outputs_mismatch(error: BaseException) -> bool:
    """Whether outputs were refused because their ids are not those of the open calls.

    Answers read ``Expected tool outputs for call_ids ['call_A'], got ['call_B']``, or on
    open-assistant-api (with status 500) ``Invalid tool call``.
    """
    return _MISMATCH.search(_words(error)) is not None


def _words(error: BaseException) -> str:
    return error.message if isinstance(error, APIStatusError) else ""


def _status(patterns: tuple[re.Pattern[str], ...], error: BaseException) -> str | None:
    words = _words(error)
    for pattern in patterns:
        if match := pattern.search(words):
            return match.group(1).lower()
    return None
