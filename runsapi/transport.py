"""Requests to one upstream and their answers.

Nothing is tried twice here: the API has no idempotency key, and only who keeps the run's state can
tell whether a request that went unanswered may be repeated. Redirects aren't followed, because the
key would go with them.
"""

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from runsapi.answers import Response, envelope, parsed
from runsapi.bodies import ACCEPT_ENCODING, MAX_ANSWER_BYTES, Bodies, bare_url
from runsapi.clients import Clients
from runsapi.credentials import AZURE_SCOPE, AzureKey, Credentials
from runsapi.errors import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    CredentialsError,
    InvalidParameter,
    RunsAPIError,
)
from runsapi.exchanges import Exchange, OnExchange, operation_of
from runsapi.params import RequestOptions
from runsapi.turns import Turn, Turns

Auth = Literal["bearer", "api-key", "azure"]
"""``Authorization: Bearer``, the header ``api-key``, or a bearer token of Microsoft Entra ID."""

Query = Sequence[tuple[str, str]]

DEFAULT_TIMEOUT = 60.0
"""Seconds in which a request must be answered, from the connection to the body's end."""

_CONNECT_TIMEOUT = 30.0
"""Seconds for the connection alone: to wait longer helps no request, however slow its answer."""

_MAX_ERROR_BYTES = 256 * 1024
_MAX_KIND = 100
_BETA = ("OpenAI-Beta", "assistants=v2")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")


class Transport:
    """One upstream's address, key and connections. See :class:`runsapi.Assistants`."""

    def __init__(
        self,
        base_url: str,
        *,
        credentials: Credentials | None,
        auth: Auth,
        api_version: str | None,
        timeout: float | None,
        http_client: httpx.AsyncClient | None,
        max_concurrency: int | None = None,
        rps: float | None = None,
        on_exchange: OnExchange = lambda _: None,
    ) -> None:
        if auth not in ("bearer", "api-key", "azure"):
            raise InvalidParameter(
                param="auth", message="auth must be 'bearer', 'api-key' or 'azure'"
            )
        try:
            given = httpx.URL(base_url)
        except (httpx.InvalidURL, TypeError):
            raise InvalidParameter(param="base_url", message="base_url must be a URL") from None
        if given.scheme not in ("http", "https") or not given.host:
            raise InvalidParameter(
                param="base_url", message="base_url must begin with http:// or https:// and a host"
            )
        bare = given.copy_with(username="", password="", query=None, fragment=None)
        self.url = str(bare).rstrip("/")
        self._query = list(given.params.multi_items())
        if api_version is None and auth == "azure" and "api-version" not in given.params:
            api_version = "v1"
        if api_version is not None:
            self._query = [pair for pair in self._query if pair[0] != "api-version"]
            self._query.append(("api-version", api_version))
        self._own_key = AzureKey(AZURE_SCOPE) if auth == "azure" and credentials is None else None
        self._credentials = credentials or self._own_key
        self._auth = auth
        # Credentials in the URL are for a gateway in front, as other HTTP clients have it; a key
        # of ours takes their place, since both would go into the same header.
        self._basic = (
            httpx.BasicAuth(given.username, given.password)
            if given.userinfo and self._credentials is None
            else None
        )
        self._timeout = _checked_timeout(timeout)
        self.turns = Turns(max_concurrency=max_concurrency, rps=rps)
        self._bodies = Bodies()
        self._on_exchange = on_exchange
        self._clients = Clients(http_client)

    @property
    def query_names(self) -> frozenset[str]:
        """What every request's query names."""
        return frozenset(name for name, _ in self._query)

    async def aclose(self) -> None:
        """Close what was opened here; a client that was handed in stays open."""
        await self._clients.aclose()
        if self._own_key is not None:
            await self._own_key.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        options: RequestOptions | None = None,
    ) -> Response[Any]:
        """One request, and its JSON answer.

        Args:
            method: The HTTP method.
            path: As :func:`runsapi.paths.path` makes it.
            query: Goes in front of what the base URL and the caller add.
            body: Sent as JSON; ``None`` sends no body.
            headers: Of a helper: they beat the caller's.
            options: Of the caller.

        Raises:
            APIConnectionError: No answer.
            APIStatusError: An answer that says no.
            APIResponseError: An answer that can't be read.
        """
        asked = _asked((method, path), query, body, headers, options, accept="application/json")
        operation = operation_of(method, path)
        try:
            async with self._answer(asked) as (response, sent):
                try:
                    content = await self._read(response)
                finally:
                    await response.aclose()
            data = self._json(response, content)
        except RunsAPIError as error:
            self._on_exchange(Exchange(operation, error=error))
            raise
        self._on_exchange(Exchange(operation, seconds=sent.seconds_ago()))
        return Response(data, response.headers, response.status_code)

    async def open(
        self,
        path: str,
        *,
        query: Query = (),
        body: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
        options: RequestOptions | None = None,
    ) -> httpx.Response:
        """One POST whose answer is read as it comes. The caller closes the response.

        It takes part in the limits until its answer begins.
        """
        asked = _asked(("POST", path), query, body, headers, options, accept="text/event-stream")
        operation = operation_of("POST", path)
        try:
            async with self._answer(asked) as (response, sent):
                self._on_exchange(Exchange(operation, seconds=sent.seconds_ago()))
                return response
        except RunsAPIError as error:
            self._on_exchange(Exchange(operation, error=error))
            raise

    async def json_of(self, response: httpx.Response) -> Any:
        """The JSON of a response that was opened as a stream and isn't one."""
        return self._json(response, await self._read(response))

    def connection_error(self, error: httpx.RequestError, url: str) -> APIConnectionError:
        """What a failed exchange is to our callers. Its text shows no header and no content."""
        if isinstance(error, httpx.TimeoutException):
            return APITimeoutError(
                f"No answer from {url} in time ({type(error).__name__})",
                url=url,
                sent=not isinstance(error, httpx.ConnectTimeout),
            )
        # Other texts may hold part of the request: h11 quotes the header value it refuses.
        words = f": {error}" if isinstance(error, httpx.ConnectError) and str(error) else ""
        return APIConnectionError(
            f"No answer from {url} ({type(error).__name__}{words})",
            url=url,
            sent=not isinstance(error, httpx.ConnectError),
        )

    @asynccontextmanager
    async def _answer(self, asked: "_Asked") -> AsyncIterator[tuple[httpx.Response, "_Sent"]]:
        """Send once the turn has come, and end whatever is done with the answer in time.

        httpx's own timeouts are of single reads: a byte a minute would keep them content.
        """
        options = asked.options
        url = f"{self.url}{asked.path}"
        timeout = _checked_timeout(options["timeout"]) if "timeout" in options else self._timeout
        async with self.turns.turn(background=options.get("background", False), url=url) as turn:
            limit = asyncio.timeout(timeout)
            sent = _Sent(options)
            try:
                with self._clients.one() as client:
                    async with limit:
                        yield await self._send(client, asked, timeout, turn, sent), sent
            except TimeoutError:
                if not limit.expired():
                    raise
                raise APITimeoutError(
                    f"No answer from {url} in time ({timeout:g} s)",
                    url=url,
                    sent=sent.at is not None,
                ) from None

    async def _send(
        self,
        client: httpx.AsyncClient,
        asked: "_Asked",
        timeout: float | None,
        turn: Turn,
        sent: "_Sent",
    ) -> httpx.Response:
        url = f"{self.url}{asked.path}"
        query = _merged([*asked.query, *self._query], asked.options.get("extra_query"))
        headers, key = await self._headers(asked)
        request = client.build_request(
            asked.method,
            httpx.URL(url, params=query),
            content=asked.content,
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout or math.inf, _CONNECT_TIMEOUT)),
        )
        auth = {} if self._basic is None else {"auth": self._basic}
        if "before_send" in asked.options:
            await asked.options["before_send"]()
        sent.now()
        try:
            response = await client.send(request, stream=True, follow_redirects=False, **auth)
        except httpx.RequestError as error:
            raise self.connection_error(error, url) from None
        if response.status_code >= 300:
            try:
                refusal = await self._status_error(response, url, key)
            finally:
                await response.aclose()
            turn.refused(refusal)
            raise refusal
        turn.answered()
        return response

    async def _headers(self, asked: "_Asked") -> tuple[httpx.Headers, str | None]:
        headers = httpx.Headers(
            [("Accept", asked.accept), ("Accept-Encoding", ACCEPT_ENCODING), _BETA]
        )
        if asked.content is not None:
            headers["Content-Type"] = "application/json"
        key = await self._credentials.token() if self._credentials is not None else None
        if key is not None:
            if not key.isascii() or not key.isprintable():
                raise CredentialsError("The key holds characters that no header can carry.")
            if self._auth == "api-key":
                headers["api-key"] = key
            else:
                headers["Authorization"] = f"Bearer {key}"
        for name, value in (asked.options.get("extra_headers") or {}).items():
            if value is None:
                headers.pop(name, None)
                continue
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise InvalidParameter(
                    param="extra_headers", message="extra_headers holds no valid HTTP header"
                )
            headers[name] = value
        headers.update(asked.headers)
        return headers, key

    async def _read(self, response: httpx.Response, limit: int = MAX_ANSWER_BYTES) -> bytes:
        try:
            return await self._bodies.read(response, limit)
        except httpx.RequestError as error:
            raise self.connection_error(error, bare_url(response)) from None

    def _json(self, response: httpx.Response, content: bytes) -> Any:
        try:
            return parsed(content)
        except ValueError:
            url = bare_url(response)
            kind = response.headers.get("content-type", "no content type")[:_MAX_KIND]
            raise APIResponseError(
                f"The answer from {url} is no JSON ({kind}, {len(content)} bytes)",
                status_code=response.status_code,
                url=url,
            ) from None

    async def _status_error(
        self, response: httpx.Response, url: str, key: str | None
    ) -> APIStatusError:
        if response.status_code < 400:
            said: dict[str, str | None] = {
                "message": "redirected; redirects are not followed, mend the base URL"
            }
        else:
            try:
                content = await self._read(response, _MAX_ERROR_BYTES)
            except (APIResponseError, APIConnectionError):
                # The status says enough; its body was too long, or broke off.
                content = b""
            said = envelope(content, response)
        message = said.pop("message") or response.reason_phrase or "no reason given"
        if key:
            message = message.replace(key, "[key]")
        headers = httpx.Headers(response.headers)
        headers.pop("set-cookie", None)
        return APIStatusError(response.status_code, message, headers=headers, url=url, **said)


@dataclass(frozen=True)
class _Asked:
    """A request as it was asked for."""

    method: str
    path: str
    query: Query
    content: bytes | None
    headers: Mapping[str, str]
    options: RequestOptions
    accept: str


def _asked(
    target: tuple[str, str],
    query: Query,
    body: Mapping[str, Any] | None,
    headers: Mapping[str, str] | None,
    options: RequestOptions | None,
    *,
    accept: str,
) -> _Asked:
    content = None if body is None else _encoded(body)
    return _Asked(*target, query, content, headers or {}, options or {}, accept)


class _Sent:
    """Whether a request may have left, and when."""

    def __init__(self, options: RequestOptions) -> None:
        self.at: float | None = None
        self._tell = options.get("on_send")

    def now(self) -> None:
        self.at = asyncio.get_running_loop().time()
        if self._tell is not None:
            self._tell()

    def seconds_ago(self) -> float | None:
        return None if self.at is None else asyncio.get_running_loop().time() - self.at


def _checked_timeout(timeout: float | None) -> float | None:
    if timeout is not None and not timeout > 0:
        raise InvalidParameter(param="timeout", message="timeout must be above 0 seconds, or None")
    return timeout


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, TypeError, RecursionError):
        raise InvalidParameter(
            param="body", message="the parameters can't be written as JSON in UTF-8"
        ) from None


def _merged(query: list[tuple[str, str]], extra: Mapping[str, Any] | None) -> httpx.QueryParams:
    merged: list[tuple[str, str | int | float | bool | None]] = [*query]
    for name, value in (extra or {}).items():
        values = value if isinstance(value, list) else [value]
        merged = [pair for pair in merged if pair[0] != name]
        merged += [(name, str(item)) for item in values]
    return httpx.QueryParams(merged)
