"""The way of a command to Runlane's own API, where `RUNLANE_API_URL` names one.

What the API says no with comes back as the error that the command would have met without it, so
exit codes and texts are the same either way.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import ValidationError

from runlane import errors
from runlane.errors import RunlaneError
from runlane.settings import Settings
from workflows.contract import Receipt

_TIMEOUT = httpx.Timeout(65, connect=5)
"""Seconds; a little longer than the server gives itself."""
_REMEDY = "RUNLANE_TOKEN must hold a token that is neither expired nor revoked."
_LOCAL = ("127.0.0.1", "::1", "localhost")


class ApiUnreachable(errors.Unreachable):
    """The API doesn't answer at its address. Start it (`runlane api`) or set `RUNLANE_API_URL`."""

    code = "api_unreachable"


class NotAllowed(errors.Refused):
    """The token is missing, wrong, or too small for this."""

    type = "invalid_request_error"
    code = "invalid_api_key"


class ApiClient:
    """Asks the API as the holder of a token; inside `async with`, or `close` it.

    Every method raises the `RunlaneError` that the API answered with, `ApiUnreachable` where it
    gave none (whether it did what was asked is then not known, unless it was never reached), and
    `NotAllowed` where the token won't do.
    """

    def __init__(self, url: str, token: str | None = None, *, remedy: str = _REMEDY) -> None:
        """Connect to nothing yet.

        Args:
            url: with `/v1`, as `Settings.api_url` has it.
            token: none, where a server on this machine asks for none.
            remedy: said where the API doesn't take the token.
        """
        self._remedy = remedy
        self.url = url.rstrip("/")
        base = httpx.URL(self.url)
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        # A company's proxy has no way to this machine's own loopback.
        self._http = httpx.AsyncClient(
            headers=headers, timeout=_TIMEOUT, trust_env=base.host not in _LOCAL
        )

    @classmethod
    def named(cls, settings: Settings) -> "ApiClient | None":
        """Return a client where the settings name an API; else None.

        Raises:
            SettingsError: the token's file can't be read.
        """
        if settings.api_url is None:
            return None
        return cls(settings.api_url, settings.read_token())

    async def get(self, path: str, *, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return what stands at a path below `/v1`: `/tokens`; parameters that are None are left.

        Args:
            path: parts of it that came from outside quoted by `urllib.parse.quote(part, safe="")`.
            params: of the query; a list is repeated.
        """
        return await self._ask("GET", path, params=params)

    async def post(
        self,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Send a document to a path below `/v1`, and return the answer's."""
        return await self._ask("POST", path, json={} if json is None else json, params=params)

    async def delete(
        self,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Delete what stands at a path below `/v1`, and return the answer's document."""
        return await self._ask("DELETE", path, json=json, params=params)

    async def close(self) -> None:
        """Give up the connection."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        asked = {name: each for name, each in (params or {}).items() if each is not None}
        try:
            answer = await self._http.request(method, self.url + path, json=json, params=asked)
        except httpx.ConnectError as error:
            raise ApiUnreachable(self._text(f"can't be reached ({_reason(error)})")) from None
        except httpx.TransportError as error:
            text = self._text(f"gave no answer ({_reason(error)})")
            if method != "GET":
                text += " Whether it did what was asked is not known; look before asking again."
            raise ApiUnreachable(text) from None
        try:
            document = answer.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            status = answer.status_code
            text = self._text(f"answered {status} with what no API of Runlane's says")
            raise ApiUnreachable(f"{text} Perhaps something else listens there.")
        if not answer.is_success:
            raise told(answer.status_code, document, self._remedy)
        return document

    def _text(self, what: str) -> str:
        return f"The API at {self.url} {what}."


def told(status: int, document: Mapping[str, Any], remedy: str = _REMEDY) -> RunlaneError:
    """Return the error that an answer of the API speaks of.

    Args:
        status: of HTTP.
        document: the body, with `error` as the protocol has it.
        remedy: said where the token doesn't count.
    """
    said = document.get("error")
    said = said if isinstance(said, Mapping) else {}
    message = str(said.get("message") or f"The API answered {status}.")
    code = said.get("code")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        if status == HTTPStatus.UNAUTHORIZED:
            message += f" {remedy}"
        return _marked(NotAllowed(message), said)
    with_more = _with_more(code, message, document)
    if with_more is not None:
        return _marked(with_more, said)
    for kind in _kinds(RunlaneError):
        if code is not None and kind.code == code and _is_plain(kind):
            return _marked(kind(message), said)
    return _marked(_by_status(status)(message), said)


def _with_more(code: object, message: str, document: Mapping[str, Any]) -> RunlaneError | None:
    """Return an error that carries more than a text, where the answer has it all."""
    receipt = document.get("receipt")
    if isinstance(receipt, Mapping) and {"status", "decision_id"} <= receipt.keys():
        return errors.DecisionRefused(message, str(receipt["status"]), str(receipt["decision_id"]))
    receipts = document.get("receipts")
    if isinstance(receipts, list):
        try:
            return errors.AnswersRefused(message, [Receipt.model_validate(r) for r in receipts])
        except ValidationError:
            return None
    if code == errors.StartUncertain.code and isinstance(document.get("run_id"), str):
        return errors.StartUncertain(message, document["run_id"])
    return None


def _by_status(status: int) -> type[RunlaneError]:
    if status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, 504, 429, 408):
        return errors.Unreachable
    known = {404: errors.NotFound, 409: errors.Refused}
    found = errors.InvalidRequest if 400 <= status < 500 else RunlaneError
    return known.get(status, found)


def _marked(error: RunlaneError, said: Mapping[str, Any]) -> RunlaneError:
    for name in ("type", "code", "param"):
        if isinstance(said.get(name), str):
            setattr(error, name, said[name])
    return error


def _kinds(kind: type[RunlaneError]) -> Iterator[type[RunlaneError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def _is_plain(kind: type[RunlaneError]) -> bool:
    return kind.__init__ is RunlaneError.__init__


def _reason(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__
