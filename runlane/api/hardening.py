"""What holds for every request, whichever route it is for: how large, how long, in which form.

Pure ASGI: nothing here collects an answer, so streams pass as they are written. There are no CORS
headers, so no web page of elsewhere reads an answer.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runlane.api.refusals import Refusal, answer

MAX_BODY_BYTES = 8 * 1024 * 1024 + 64 * 1024
"""All that the protocol allows of one create, and a little for its envelope."""
ANSWER_SECONDS = 60.0
"""In which an answer must be given in full; of a stream, in which it must begin."""
MAX_UPLOAD_BYTES = 200 * 1024 * 1024 + 64 * 1024
"""Of a file, and a little for the form around it."""
UPLOAD_SECONDS = 600.0
"""In which a file must have come, and lie in the ledger."""
UPLOAD_PATH = "/v1/files"
FILE_TYPE = "application/octet-stream"
"""Of a file's content on its way out, which takes as long as it takes."""

_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS", "DELETE")
_STREAMS = ("text/event-stream", FILE_TYPE)
_JSON = "application/json"
_FORM = "multipart/form-data"
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_CSP = "default-src 'none'; frame-ancestors 'none'"


@dataclass(frozen=True)
class _Limits:
    """What one request may be."""

    body: int
    seconds: float
    kind: str = _JSON


class Hardening:
    """ASGI middleware: limits a request's body and time, and marks each answer."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        answer_seconds: float = ANSWER_SECONDS,
        max_upload_bytes: int = MAX_UPLOAD_BYTES,
    ) -> None:
        """Stand in front of `app`.

        Args:
            app: what answers.
            max_body_bytes: a larger body is refused, whether its length was told or not.
            answer_seconds: after them the request is given up.
            max_upload_bytes: the same as `max_body_bytes`, for the route that takes files.
        """
        self._app = app
        self._limits = _Limits(max_body_bytes, answer_seconds)
        self._upload = _Limits(max_upload_bytes, UPLOAD_SECONDS, _FORM)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        marked = _Marked(send)
        is_upload = (scope["method"], scope["path"]) == ("POST", UPLOAD_PATH)
        limits = self._upload if is_upload else self._limits
        refusal = _refused_by_headers(scope["method"], Headers(scope=scope), limits)
        if refusal is not None:
            await answer(refusal)(scope, receive, marked.send)
            return
        body = _Body(receive, limits.body)
        try:
            async with asyncio.timeout(limits.seconds) as limit:
                marked.limit = limit
                marked.body = body
                await self._app(scope, body.receive, marked.send)
        except TimeoutError:
            if marked.began or not limit.expired():
                # Half an answer can only be cut off.
                raise
            seconds = limits.seconds
            told = _unfinished(seconds) if body.is_awaited else _too_slow(scope, seconds)
            await answer(told)(scope, receive, send_marked(send))
        except _TooLarge:
            pass
        if body.is_too_large and not marked.began:
            await answer(_too_large(limits.body))(scope, receive, send_marked(send))


def _refused_by_headers(method: str, headers: Headers, limits: _Limits) -> Refusal | None:
    told = headers.get("content-length", "0")
    if told.isdecimal() and int(told) > limits.body:
        return _too_large(limits.body)
    has_body = told.strip("0") != "" or "transfer-encoding" in headers
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if method not in _WITHOUT_BODY and has_body and kind != limits.kind:
        what = "JSON" if limits.kind == _JSON else "a form"
        text = f"A body must be {what}, sent as Content-Type: {limits.kind}."
        return Refusal(text, status=415, code="unsupported_media_type")
    return None


class _TooLarge(Exception):
    """More was sent than is taken."""


class _Body:
    """A request's body on its way in, counted."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self._size = 0
        self.is_too_large = False
        self.is_awaited = False
        """Whether the app waits for the rest of it."""
        self._is_whole = False

    async def receive(self) -> Message:
        self.is_awaited = not self._is_whole
        message = await self._receive()
        self.is_awaited = False
        self._is_whole = not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        if self._size > self._most:
            self.is_too_large = True
            raise _TooLarge
        return message


class _Marked:
    """An answer on its way out, with the headers that each has."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.began = False
        self.limit: asyncio.Timeout | None = None
        self.body: _Body | None = None

    async def send(self, message: Message) -> None:
        if self.body is not None and self.body.is_too_large and not self.began:
            # What the app makes of a body that broke off is not what is wrong with it.
            return
        if message["type"] == "http.response.start":
            self.began = True
            headers = MutableHeaders(scope=message)
            _mark(headers)
            if self.limit is not None and _is_stream(headers):
                self.limit.reschedule(None)
        await self._send(message)


def send_marked(send: Send) -> Send:
    """Return a way out for an answer of ours in place of the app's."""
    return _Marked(send).send


def _mark(headers: MutableHeaders) -> None:
    for name, value in _HEADERS.items():
        headers[name] = value
    headers.setdefault("content-security-policy", _CSP)


def _is_stream(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").startswith(_STREAMS)


def _too_large(most: int) -> Refusal:
    text = f"A body must have at most {most:,} bytes."
    # The connection stays: what still comes is read and thrown away, else no caller would see why.
    return Refusal(text, status=413, code="body_too_large")


def _unfinished(seconds: float) -> Refusal:
    text = f"The body has not come within {seconds:g} s."
    return Refusal(text, status=408, code="body_unfinished")


def _too_slow(scope: Scope, seconds: float) -> Refusal:
    text = f"There was no answer within {seconds:g} s."
    headers = {}
    if scope["method"] != "GET":
        text += " Whether it was done is not known."
        if "idempotency-key" not in Headers(scope=scope):
            # Sent again by an SDK, it might be done twice.
            headers["x-should-retry"] = "false"
    return Refusal(text, status=504, type="timeout_error", code="timeout", headers=headers)
