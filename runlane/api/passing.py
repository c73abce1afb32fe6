"""Requests that are the upstream's to answer, passed on as they came.

What goes up carries this server's key, never the caller's token. What comes down keeps its status
and its words; the upstream's key and address stay here.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from runlane.api.plain import Plain
from runlane.api.refusals import Refusal, not_found
from runlane.api.services import Services
from runsapi import (
    SEPARATORS,
    APIConnectionError,
    APIStatusError,
    CredentialsError,
    HeldBackError,
    InvalidParameter,
    RunsAPIError,
)
from runsapi.answers import Response
from runsapi.paths import path

Query = Sequence[tuple[str, str]]

_LIMITS = ("retry-after", "retry-after-ms")
"""Headers of a refusal that are the caller's to obey."""
_OURS = frozenset({"api-version"})
"""What a query says to an upstream is for whoever set up the connection to it."""
_KEY_REFUSED = (401, 403, 407)
_NO_RETRY = {"x-should-retry": "false"}

_logger = logging.getLogger("runlane.api")


class Sent(Plain):
    """What a caller sends for an upstream: fields that aren't known here go along."""

    model_config = ConfigDict(extra="allow")

    def as_sent(self) -> dict[str, Any]:
        """Return the fields that were given, with the nulls among them."""
        # Not as JSON: that would make null of a number that no JSON has, which is to be refused.
        return self.model_dump(exclude_unset=True)


Metadata = Annotated[
    dict[str, str] | None, Field(description="At most 16 pairs.", examples=[{"ticket": "7"}])
]


class Shown(BaseModel):
    """An object of the upstream's, as it shows it."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: str


class Deleted(Shown):
    """That an object of the upstream's is gone."""

    deleted: bool


class Page(BaseModel):
    """A page of the upstream's objects."""

    model_config = ConfigDict(extra="allow")

    object: str = "list"
    data: list[Shown]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool


async def ask(
    services: Services,
    method: str,
    *parts: str,
    query: Query = (),
    body: Mapping[str, Any] | None = None,
    once: bool = False,
    **ids: str,
) -> Response[Any]:
    """Send one request to the upstream, and return its answer.

    Args:
        services: with the upstream.
        method: of HTTP.
        *parts: the path's segments; one that is a key of `ids` stands for that id.
        query: as the caller has it.
        body: likewise; sent as JSON.
        once: whether sending it twice makes two things, which nobody is invited to then.
        **ids: by the names of their parameters, such as `thread_id`.

    Raises:
        Refusal: the upstream says no, or says nothing.
    """
    for name, value in ids.items():
        # No upstream has made such an id, and a proxy on the way might take it for another path.
        if set(value) & set(SEPARATORS) or value in (".", "..") or not value.isprintable():
            raise not_found(name.removesuffix("_id"), value)
    try:
        return await services.upstream.request(method, path(*parts, **ids), query=query, body=body)
    except RunsAPIError as error:
        raise told(error, services, once=once) from None


def query_of(request: Request) -> list[tuple[str, str]]:
    """Return a request's query as it goes to the upstream."""
    return [pair for pair in request.query_params.multi_items() if pair[0] not in _OURS]


def shown(answer: Response[Any]) -> JSONResponse:
    """Return an upstream's answer to the caller; the errors are those of `document`."""
    return document(answer.data, answer.status_code)


def document(data: Any, status_code: int = 200) -> JSONResponse:
    """Return the upstream's data to the caller.

    Raises:
        Refusal: it holds numbers that aren't JSON.
    """
    try:
        return JSONResponse(data, status_code=status_code)
    except ValueError:
        raise unreadable() from None


def told(error: RunsAPIError, services: Services, *, once: bool = False) -> Refusal:
    """Return how a caller is told what went wrong between here and the upstream.

    Args:
        error: what went wrong.
        services: with the upstream.
        once: as for `ask`.
    """
    if isinstance(error, InvalidParameter):
        return Refusal(f"{error}.", param=error.param, code="invalid_parameter")
    if isinstance(error, APIStatusError) and 400 <= error.status_code not in _KEY_REFUSED:
        return _passed_on(error, services)
    _logger.warning("The upstream: %s", error)
    if isinstance(error, CredentialsError | APIStatusError):
        return _not_let_in(error)
    if isinstance(error, APIConnectionError):
        return _unanswered(error, once=once)
    return unreadable(_NO_RETRY if once else {})


def _passed_on(error: APIStatusError, services: Services) -> Refusal:
    at_fault = "server_error" if error.status_code >= 500 else "invalid_request_error"
    return Refusal(
        error.message.replace(services.upstream.url, "[upstream]"),
        status=error.status_code,
        type=error.type or at_fault,
        param=error.param,
        code=error.code,
        headers={name: error.headers[name] for name in _LIMITS if name in error.headers},
    )


def _not_let_in(error: CredentialsError | APIStatusError) -> Refusal:
    # Not 401 or 403: nothing is wrong with the caller's token.
    text, code = "The upstream refuses this server's credentials", "upstream_refused_credentials"
    if isinstance(error, APIStatusError) and error.status_code < 400:
        text, code = "The upstream sends this server elsewhere", "upstream_redirects"
    text += "; its log says more. Until that is mended, trying again is of no use."
    return Refusal(text, status=502, type="upstream_error", code=code, headers=_NO_RETRY)


def _unanswered(error: APIConnectionError, *, once: bool) -> Refusal:
    text, headers = "The upstream doesn't answer.", {"retry-after": "1"}
    if isinstance(error, HeldBackError):
        text = "The upstream's limits leave no room now."
        headers = {"retry-after": str(max(1, math.ceil(error.retry_after or 0)))}
    elif once and error.sent:
        text += " It may have done what was asked: look before you ask again."
        headers = _NO_RETRY
    return Refusal(
        text, status=503, type="unreachable_error", code="upstream_unreachable", headers=headers
    )


def unreadable(headers: Mapping[str, str] | None = None) -> Refusal:
    """The upstream has answered, and not in the protocol's words."""
    text = "The upstream's answer can't be read."
    return Refusal(
        text, status=502, type="upstream_error", code="upstream_answer_unreadable", headers=headers
    )
