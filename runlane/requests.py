"""A run that is asked for, checked in full before anything is sent."""

import base64
import json
import secrets
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple, NoReturn

from runlane.errors import InvalidRequest
from runlane.receipts import json_bytes
from runsapi import (
    SEPARATORS,
    InvalidParameter,
    Run,
    RunCreateParams,
    RunStatus,
    RunUpdateParams,
)
from workflows.contract import (
    MAX_ID_LENGTH,
    MAX_MESSAGE_BYTES,
    RunlaneView,
    RunOptions,
    RunRequest,
    RunView,
    derive_run_id,
)

MAX_STORED_REQUEST_BYTES = 8_000_000
"""Bytes of a request where big payloads lie outside the history; else `MAX_MESSAGE_BYTES`."""
MAX_ROUNDS = 10_000
LONGEST_DEADLINE = timedelta(days=3650)

MAX_ATTRIBUTE_BYTES = 2048
"""Bytes that Temporal takes as the value of a search attribute."""

_OWN_KEYS = "runlane_"
_SHORTEST_POLL_MS = 100
_LONGEST_POLL_MS = 3_600_000


class Asked(NamedTuple):
    """A checked request, and the id its run will have."""

    run_id: str
    request: RunRequest


def asked(
    thread_id: str,
    params: Mapping[str, Any],
    *,
    idempotency_key: str | None = None,
    poll_interval_ms: int | None = None,
    on_expiry: str = "recreate",
    deadline: timedelta | float | None = None,
    max_rounds: int = 50,
    with_tools: bool = False,
    stream: bool = False,
    owner: str = "",
    requested_by: str | None = None,
    new_thread: str | None = None,
    max_bytes: int = MAX_MESSAGE_BYTES,
) -> Asked:
    """Check a request and name its run; nothing is sent.

    Args:
        thread_id: where the run works.
        params: the protocol's create body, and `include`.
        idempotency_key: the same key always names the same run.
        poll_interval_ms: kept within 100 ms and 1 h; 0 and below are as good as none.
        on_expiry: `recreate` or `fail`.
        deadline: from now on; a number is in seconds.
        max_rounds: rounds of tool calls before the run ends `incomplete`.
        with_tools: whether a worker may answer calls of its tools.
        stream: whether the text of messages is wanted while it is written.
        owner: whose key it is.
        requested_by: the person who asks for the run.
        new_thread: digest of what the thread was to be, where it is made by the same request.
        max_bytes: what the request may have as JSON.

    Raises:
        InvalidRequest: a parameter is unknown, missing, of the wrong type or beyond its limit.
    """
    check_thread_id(thread_id)
    body = _body(params)
    _check_id(body["assistant_id"], "assistant_id")
    if idempotency_key is not None:
        _check_id(idempotency_key, "idempotency_key")
    options: dict[str, Any] = {
        "poll_interval_ms": _poll_interval(poll_interval_ms),
        "on_expiry": on_expiry,
        "max_rounds": max_rounds,
        "with_tools": with_tools,
        "stream": stream,
    }
    if on_expiry not in ("recreate", "fail"):
        text = f"on_expiry must be recreate or fail, got {on_expiry!r}."
        raise InvalidRequest(text, param="on_expiry")
    if type(max_rounds) is not int or not 1 <= max_rounds <= MAX_ROUNDS:
        text = f"max_rounds must be between 1 and {MAX_ROUNDS:,}, got {max_rounds}."
        raise InvalidRequest(text, param="max_rounds")
    if deadline is not None:
        options["deadline"] = _deadline(deadline)
    request = RunRequest(
        thread_id=thread_id,
        params=body,
        options=RunOptions(**options),
        # Milliseconds: what lists are ordered by must be the same number on every server.
        created_at=round(time.time(), 3),
        owner=owner,
        requested_by=requested_by,
        has_key=idempotency_key is not None,
        new_thread=new_thread,
    )
    try:
        size = json_bytes(request.model_dump(mode="json"))
    except ValueError:
        # Half a surrogate pair, or an integer of thousands of digits.
        raise InvalidRequest(
            "The parameters can't be written as JSON in UTF-8.", param="params"
        ) from None
    if size > max_bytes:
        text = (
            f"The request has {size:,} bytes as JSON and may have {max_bytes:,}. Put long texts "
            "on the thread first, or shorten them."
        )
        raise InvalidRequest(text, param="params", code="too_large")
    run_id = (
        derive_run_id(owner, idempotency_key)
        if idempotency_key is not None
        else "run_" + base64.b32encode(secrets.token_bytes(15)).decode()
    )
    return Asked(run_id, request)


def check_thread_id(thread_id: str) -> None:
    r"""Refuse an id that can't be a thread's.

    Temporal's Visibility keeps `"` and `\` otherwise than it is asked for them, and cuts a `'`
    off either end: a run on such a thread would never be listed with it.

    Raises:
        InvalidRequest: it is empty, too long, or holds a character that can't be listed.
    """
    _check_id(thread_id, "thread_id")
    if '"' in thread_id or "\\" in thread_id or "'" in (thread_id[0], thread_id[-1]):
        text = "thread_id can't hold \" or \\, nor begin or end with a single quote."
        raise InvalidRequest(text, param="thread_id")


def first_view(run_id: str, request: RunRequest) -> RunView:
    """Return what is known of a run that has just been started."""
    deadline_at = request.created_at + request.options.deadline
    run = Run.model_validate(
        {
            **request.params,
            "id": run_id,
            "status": RunStatus.QUEUED,
            "thread_id": request.thread_id,
            "created_at": int(request.created_at),
            "expires_at": int(deadline_at),
            "metadata": request.params.get("metadata") or {},
            "tools": request.params.get("tools") or [],
        }
    )
    return RunView(run=run, runlane=RunlaneView(owner=request.owner, deadline_at=deadline_at))


def checked_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Return metadata as it may be sent.

    Raises:
        InvalidRequest: too many pairs, one too long, or a key that is Runlane's own.
    """
    try:
        params = RunUpdateParams(metadata=None if metadata is None else dict(metadata))
    except InvalidParameter as error:
        _refuse(error)
    _check_keys(params.metadata or {})
    return dict(params.metadata or {})


def _body(params: Mapping[str, Any]) -> dict[str, Any]:
    if params.get("stream"):
        text = "stream is not a parameter of create here: follow the run with client.runs.stream."
        raise InvalidRequest(text, param="stream")
    given = {name: value for name, value in params.items() if name != "stream"}
    try:
        checked = RunCreateParams(**given)
    except InvalidParameter as error:
        _refuse(error)
    _check_keys(checked.metadata or {})
    body = checked.model_dump(mode="json", exclude_unset=True)
    return {name: value for name, value in body.items() if name != "stream"}


def _refuse(error: InvalidParameter) -> NoReturn:
    # The protocol layer names its own models, which nobody here has typed.
    text = str(error).replace(RunCreateParams.__name__, "create")
    text = text.replace(RunUpdateParams.__name__, "update")
    raise InvalidRequest(_sentence(text), param=error.param) from None


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _check_keys(metadata: Mapping[str, str]) -> None:
    for key in metadata:
        if key.startswith(_OWN_KEYS):
            text = f"metadata keys that begin with {_OWN_KEYS} are Runlane's own, like {key}."
            raise InvalidRequest(text, param="metadata")


def _check_id(value: object, param: str) -> None:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_ID_LENGTH:
        text = f"{param} must be a string of 1 to {MAX_ID_LENGTH} characters."
        raise InvalidRequest(text, param=param)
    if not value.isprintable():
        raise InvalidRequest(f"{param} can't hold control characters.", param=param)
    if param == "thread_id" and (value in (".", "..") or set(value) & set(SEPARATORS)):
        text = f"{param} can't hold any of {' '.join(SEPARATORS)}, nor be made of dots."
        raise InvalidRequest(text, param=param)
    # As Temporal's client writes it: what isn't ASCII takes six bytes, an emoji twelve.
    if len(json.dumps(value)) > MAX_ATTRIBUTE_BYTES:
        text = f"{param} must have at most {MAX_ATTRIBUTE_BYTES:,} bytes as JSON in ASCII."
        raise InvalidRequest(text, param=param)


def _poll_interval(milliseconds: float | None) -> int | None:
    if milliseconds is None or isinstance(milliseconds, bool) or not milliseconds > 0:
        return None
    return round(min(max(milliseconds, _SHORTEST_POLL_MS), _LONGEST_POLL_MS))


def _deadline(deadline: timedelta | float) -> float:
    seconds = deadline.total_seconds() if isinstance(deadline, timedelta) else float(deadline)
    if not 1 <= seconds <= LONGEST_DEADLINE.total_seconds():
        text = f"deadline must be between 1 s and {LONGEST_DEADLINE.days:,} days."
        raise InvalidRequest(text, param="deadline")
    return seconds
