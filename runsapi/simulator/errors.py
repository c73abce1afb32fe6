"""Refusals as the Assistants API words them.

Clients parse these texts (the id of the active run, the status in its quotes), so every character
counts, the differing quote marks of submit and cancel included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

JSON = dict[str, Any]


class ApiError(Exception):
    """A refusal with an HTTP status and the protocol's error envelope."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body: JSON = {
            "error": {"message": message, "type": type, "param": param, "code": code}
        }


def not_found(kind: str, id: str) -> ApiError:
    """There is no such object; `kind` is the protocol's word for it, such as `thread`."""
    return ApiError(f"No {kind} found with id '{id}'.", status=404)


def thread_busy(thread_id: str, run_id: str) -> ApiError:
    """A second run was asked for on a thread whose run has not ended."""
    return ApiError(f"Thread {thread_id} already has an active run {run_id}.")


def thread_locked(thread_id: str, run_id: str) -> ApiError:
    """A message was added to a thread whose run has not ended."""
    return ApiError(f"Can't add messages to {thread_id} while a run {run_id} is active.")


def outputs_not_accepted(status: str) -> ApiError:
    """Outputs came while the run doesn't wait for any; the status stands in double quotes."""
    return ApiError(f'Runs in status "{status}" do not accept tool outputs.')


def outputs_mismatch(expected: Sequence[str], got: Sequence[str]) -> ApiError:
    """The ids answered are not exactly the ids asked for."""
    return ApiError(f"Expected tool outputs for call_ids {list(expected)}, got {list(got)}")


def outputs_too_large() -> ApiError:
    """All outputs of one submit together are 512 kB or more."""
    return ApiError(
        "body -> tool_outputs\n  Combined tool outputs must be less than 512kb (type=value_error)"
    )


def cannot_cancel(status: str) -> ApiError:
    """The run has ended or is being cancelled already; the status stands in single quotes."""
    return ApiError(f"Cannot cancel run with status '{status}'.")


def unauthorized() -> ApiError:
    """The key is missing or wrong."""
    return ApiError("Incorrect API key provided.", status=401, code="invalid_api_key")


def server_error() -> ApiError:
    """The 500 of the protocol."""
    return ApiError(
        "The server had an error while processing your request. Sorry about that!",
        status=500,
        type="server_error",
    )


def rate_limited() -> ApiError:
    """Too many requests; goes away by itself."""
    return ApiError(
        "Rate limit reached for requests.",
        status=429,
        type="requests",
        code="rate_limit_exceeded",
    )


def quota_exceeded() -> ApiError:
    """Also a 429, but one that only the account's owner can mend."""
    return ApiError(
        "You exceeded your current quota, please check your plan and billing details.",
        status=429,
        type="insufficient_quota",
        code="insufficient_quota",
    )
