"""What the API says no with: the protocol's error envelope, whatever went wrong.

Clients tell errors apart by status and read the texts (the id of the active run, the status in its
quotes), so those of the protocol are worded as it words them.
"""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from ledger import LedgerError, LedgerRefused, LedgerUnavailable
from runlane.errors import (
    CannotDecrypt,
    InvalidRequest,
    LedgerUnreachable,
    LedgerUnusable,
    NamespaceMissing,
    NotFound,
    NoWorker,
    Refused,
    RunlaneError,
    StartUncertain,
    TemporalUnreachable,
    Unreachable,
    UpstreamUnreachable,
)
from runlane.payload_store import PayloadStoreError
from runlane.settings import SettingsError

_RETRY_AFTER = {"retry-after": "1"}
# The SDKs try a 409 and a 5xx again by themselves.
_NO_RETRY = {"x-should-retry": "false"}

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

_logger = logging.getLogger("runlane.api")


class Refusal(Exception):
    """A no with an HTTP status and the protocol's error envelope."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        beside: Mapping[str, Any] | None = None,
    ) -> None:
        """Say no.

        Args:
            message: for people; never an argument, an output or a secret.
            status: of HTTP.
            type: the protocol's word for the kind of error.
            param: the field at fault.
            code: for programs.
            headers: sent with it.
            beside: what stands beside `error` in the body: receipts.
        """
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        error = {"message": message, "type": type, "param": param, "code": code}
        self.body: dict[str, Any] = {"error": error, **(beside or {})}


def not_found(kind: str, id: str) -> Refusal:
    """There is no such object, or it is another owner's; `kind` is the protocol's word for it."""
    return Refusal(f"No {kind} found with id '{id}'.", status=404)


def thread_busy(thread_id: str, run_id: str) -> Refusal:
    """A second run was asked for on a thread whose run has not ended."""
    return Refusal(f"Thread {thread_id} already has an active run {run_id}.")


def thread_locked(thread_id: str, run_id: str) -> Refusal:
    """A message was added to a thread whose run has not ended."""
    return Refusal(f"Can't add messages to {thread_id} while a run {run_id} is active.")


def outputs_not_accepted(status: str, beside: Mapping[str, Any] | None = None) -> Refusal:
    """Outputs came while the run doesn't wait for any; the status stands in double quotes."""
    text = f'Runs in status "{status}" do not accept tool outputs.'
    return Refusal(text, beside=beside)


def outputs_mismatch(expected: Sequence[str], got: Sequence[str]) -> Refusal:
    """The ids answered are not exactly the ids asked for."""
    return Refusal(f"Expected tool outputs for call_ids {list(expected)}, got {list(got)}")


def outputs_too_large() -> Refusal:
    """All outputs of one submit together are 512 kB or more."""
    text = (
        "body -> tool_outputs\n  Combined tool outputs must be less than 512kb (type=value_error)"
    )
    return Refusal(text, param="tool_outputs")


def not_cancellable(status: str) -> Refusal:
    """The run has ended, or is being cancelled already; the status stands in single quotes."""
    return Refusal(f"Cannot cancel run with status '{status}'.")


def unexpected() -> Refusal:
    """Something went wrong that nobody foresaw."""
    # uvicorn logs the traceback; the text may hold what a caller sent.
    text = "The server had an error while processing your request."
    return Refusal(text, status=500, type="server_error")


def install(app: FastAPI) -> None:
    """Let the app answer every error in the protocol's envelope."""
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RunlaneError, _ours)
    app.add_exception_handler(LedgerError, _ledgers)
    app.add_exception_handler(SettingsError, _unset)
    app.add_exception_handler(PayloadStoreError, _unset)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _unexpected)


_AWAY = {
    TemporalUnreachable: "Temporal doesn't answer. Send this again in a moment.",
    NamespaceMissing: "Temporal doesn't answer. Send this again in a moment.",
    UpstreamUnreachable: "The upstream doesn't answer. Send this again in a moment.",
    LedgerUnreachable: "The ledger doesn't answer. Send this again in a moment.",
    NoWorker: "No worker takes this now. Send it again once one runs.",
}


def _told(error: RunlaneError) -> str:
    """Return an error's text for callers: where our parts are is no business of theirs."""
    if isinstance(error, StartUncertain):
        return (
            f"Whether {error.run_id} was started is not known. Look for it before you send this "
            "again."
        )
    if isinstance(error, Unreachable):
        _logger.warning("%s", error.message)
        return _AWAY.get(type(error), "Somebody who is needed doesn't answer. Try again.")
    return error.message


def refusal_for(error: RunlaneError) -> Refusal:
    """Return how an error of Runlane's is told over HTTP."""
    document = error.as_json()
    beside = {name: value for name, value in document.items() if name != "error"}
    status, headers = 500, _NO_RETRY
    if isinstance(error, InvalidRequest):
        status, headers = 400, {}
    elif isinstance(error, NotFound):
        status, headers = 404, {}
    elif isinstance(error, Refused):
        status = 409
    elif isinstance(error, StartUncertain):
        # Sent again without a key it might start a second run.
        status, beside = 503, {**beside, "run_id": error.run_id}
    elif isinstance(error, Unreachable):
        status, headers = 503, _RETRY_AFTER
    elif isinstance(error, CannotDecrypt | LedgerUnusable):
        status = 500
    return Refusal(
        _told(error),
        status=status,
        type=error.type,
        param=error.param,
        code=error.code,
        headers=headers,
        beside=beside,
    )


def answer(refusal: Refusal) -> JSONResponse:
    """Return the response."""
    return JSONResponse(refusal.body, status_code=refusal.status, headers=refusal.headers)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    return answer(error)


async def _ours(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RunlaneError)
    return answer(refusal_for(error))


async def _ledgers(_: Request, error: Exception) -> JSONResponse:
    told: RunlaneError
    if isinstance(error, LedgerUnavailable):
        told = LedgerUnreachable(str(error))
    elif isinstance(error, LedgerRefused):
        told = InvalidRequest(str(error))
    else:
        told = LedgerUnusable(str(error))
    return answer(refusal_for(told))


async def _unset(_: Request, error: Exception) -> JSONResponse:
    # What this process was told, not what the caller asked for.
    _logger.error("%s", error)
    text = "This server is not set up for that; its log says why."
    refusal = Refusal(text, status=500, type="configuration_error", headers=_NO_RETRY)
    return answer(refusal)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    if first["type"] == "json_invalid":
        place = int(first["loc"][-1]) + 1
        text = f"The body is no JSON: {first['ctx']['error']}, at character {place}."
        return answer(Refusal(text, code="invalid_parameter"))
    param = ".".join(where) or None
    message = _plainly(param, first["type"], str(first["msg"])).rstrip(".") + "."
    return answer(Refusal(message, param=param, code="invalid_parameter"))


def _plainly(param: str | None, kind: str, text: str) -> str:
    """Say in a sentence what pydantic says; it names no input, which might be an argument."""
    named = param or "The body"
    if kind == "extra_forbidden":
        return f"{named} is no option here"
    if kind == "missing":
        return f"{named} is missing"
    if kind == "model_attributes_type":
        return f"{named} must be an object"
    _, should, rest = text.partition(" should ")
    if should and kind != "value_error":
        return f"{named} must {rest}"
    text = text.removeprefix("Value error, ")
    return text if param is None else f"{param}: {text}"


async def _no_route(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    text = f"Invalid URL ({request.method} {request.url.path})"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        taken = [method for method in _METHODS if _is_taken(request, method)]
        # The framework's own names one route's, and a URL may have several.
        headers = {"allow": ", ".join(taken)}
        text = f"{request.url.path} takes {' and '.join(taken)}, not {request.method}."
    elif error.status_code != HTTPStatus.NOT_FOUND:
        text = f"{HTTPStatus(error.status_code).phrase}."
    return answer(Refusal(text, status=error.status_code, headers=headers))


def _is_taken(request: Request, method: str) -> bool:
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


async def _unexpected(_: Request, error: Exception) -> JSONResponse:
    return answer(unexpected())
