"""Requests to one upstream and their answers.

Nothing is tried twice here: the API has no idempotency key, and only who keeps the run's state can
tell whether a request that went unanswered may be repeated. Redirects aren't followed, because the
key would go with them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import httpx

from runsapi.answers import Response, envelope
from runsapi.credentials import AZURE_SCOPE, AzureKey, Credentials
from runsapi.errors import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    CredentialsError,
    InvalidParameter,
)
from runsapi.params import RequestOptions

Auth = Literal["bearer", "api-key", "azure"]
"""``Authorization: Bearer``, the header ``api-key``, or a bearer token of Microsoft Entra ID."""

Query = Sequence[tuple[str, str]]

DEFAULT_TIMEOUT = 60.0
"""Seconds to wait for the connection, and for each piece of the answer."""

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""The largest JSON answer that is read, after decompression."""

_MAX_ERROR_BYTES = 256 * 1024
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
        self._own_client = http_client is None
        # Who calls bounds how much runs at once: httpx's own limit of a hundred connections would
        # let a hundred slow polls hold up a cancel.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        self._client = http_client or httpx.AsyncClient(limits=limits)

    async def aclose(self) -> None:
        """Close what was opened here; a client that was handed in stays open."""
        if self._own_client:
            await self._client.aclose()
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
        response = await self._send(
            (method, path), query, body, headers, options or {}, accept="application/json"
        )
        try:
            content = await self._read(response, MAX_ANSWER_BYTES)
        finally:
            await response.aclose()
        return Response(self._json(response, content), response.headers, response.status_code)

    async def open(
        self,
        path: str,
        *,
        query: Query = (),
        body: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
        options: RequestOptions | None = None,
    ) -> httpx.Response:
        """One POST whose answer is read as it comes. The caller closes the response."""
        return await self._send(
            ("POST", path), query, body, headers, options or {}, accept="text/event-stream"
        )

    async def json_of(self, response: httpx.Response) -> Any:
        """The JSON of a response that was opened as a stream and isn't one."""
        return self._json(response, await self._read(response, MAX_ANSWER_BYTES))

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

    async def _send(
        self,
        target: tuple[str, str],
        query: Query,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        options: RequestOptions,
        *,
        accept: str,
    ) -> httpx.Response:
        method, path = target
        content = None if body is None else _encoded(body)
        sent, key = await self._headers(accept, body is not None, options, headers or {})
        timeout = _checked_timeout(options["timeout"]) if "timeout" in options else self._timeout
        url = f"{self.url}{path}"
        request = self._client.build_request(
            method,
            httpx.URL(url, params=_merged([*query, *self._query], options.get("extra_query"))),
            content=content,
            headers=sent,
            timeout=timeout,
        )
        auth = {} if self._basic is None else {"auth": self._basic}
        try:
            response = await self._client.send(request, stream=True, follow_redirects=False, **auth)
        except httpx.RequestError as error:
            raise self.connection_error(error, url) from None
        if response.status_code >= 300:
            try:
                raise await self._status_error(response, url, key)
            finally:
                await response.aclose()
        return response

    async def _headers(
        self,
        accept: str,
        has_body: bool,  # noqa: FBT001 - private, and read where it is given
        options: RequestOptions,
        helper: Mapping[str, str],
    ) -> tuple[httpx.Headers, str | None]:
        headers = httpx.Headers([("Accept", accept), _BETA])
        if has_body:
            headers["Content-Type"] = "application/json"
        key = await self._credentials.token() if self._credentials is not None else None
        if key is not None:
            if not key.isascii() or not key.isprintable():
                raise CredentialsError("The key holds characters that no header can carry.")
            if self._auth == "api-key":
                headers["api-key"] = key
            else:
                headers["Authorization"] = f"Bearer {key}"
        for name, value in (options.get("extra_headers") or {}).items():
            if value is None:
                headers.pop(name, None)
                continue
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise InvalidParameter(
                    param="extra_headers", message="extra_headers holds no valid HTTP header"
                )
            headers[name] = value
        headers.update(helper)
        return headers, key

    async def _read(self, response: httpx.Response, limit: int) -> bytes:
        url = _bare(response)
        content = bytearray()
        if "," in response.headers.get("content-encoding", ""):
            # Each layer can grow a thousandfold before its first byte is seen here.
            raise APIResponseError(
                f"The answer from {url} is compressed more than once",
                status_code=response.status_code,
                url=url,
            )
        try:
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > limit:
                    raise APIResponseError(
                        f"The answer from {url} is larger than {limit} bytes",
                        status_code=response.status_code,
                        url=url,
                    )
        except httpx.DecodingError:
            raise APIResponseError(
                f"The answer from {url} can't be decompressed",
                status_code=response.status_code,
                url=url,
            ) from None
        except httpx.RequestError as error:
            raise self.connection_error(error, url) from None
        return bytes(content)

    def _json(self, response: httpx.Response, content: bytes) -> Any:
        try:
            return _mended(json.loads(content))
        except (ValueError, RecursionError):
            url = _bare(response)
            kind = response.headers.get("content-type", "no content type")
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


def _mended(value: Any) -> Any:
    """The value with ``?`` for half a surrogate pair, which JSON can escape and UTF-8 can't hold.

    Models break emoji, and what came in must be able to go on its way.
    """
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.loads(text.encode(errors="replace"))
    return value


def _bare(response: httpx.Response) -> str:
    url = response.request.url.copy_with(username="", password="", query=None, fragment=None)
    return str(url)


def _checked_timeout(timeout: float | None) -> float | None:
    if timeout is not None and not timeout > 0:
        raise InvalidParameter(param="timeout", message="timeout must be above 0 seconds, or None")
    return timeout


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, TypeError):
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
