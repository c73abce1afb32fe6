"""Tools that are HTTP requests: sent once, signed, bounded, never redirected."""

import codecs
import functools
import json
import logging
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
from standardwebhooks import Webhook

import runlane
from runlane.tools.answer import MAX_OUTPUT_BYTES, OutputTooLarge, ToolFailure
from runlane.tools.context import ToolContext
from runlane.tools.json_schemas import JsonSchema
from workflows.contract import canonical_json

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""`${NAME}`: the variable's value is put here."""
WITHOUT_BODY = ("GET", "DELETE")

_CHARSETS = frozenset({"utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1252", "utf-16"})
"""What answers may be written in. Of Python's own, some take minutes for what may be sent."""
_WEBHOOK_SECRET = re.compile(r"(?:whsec_)?[A-Za-z0-9+/]{4,}={0,2}")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HttpRequest:
    """An HTTP request as what a tool does; `runlane.tools.declared` reads it from a file."""

    url: str
    method: str
    headers: Mapping[str, str]
    """With references to variables."""
    idempotency_header: str
    signing_secret: str | None
    """The variable that holds the key of Standard Webhooks signatures."""
    parameters: JsonSchema
    source: str
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    kind = "http"

    def read(self, tool: str, text: str) -> dict[str, Any]:
        """Check a call's arguments against the declared schema."""
        return self.parameters.read(tool, text)

    def missing_variables(self) -> list[str]:
        """Return the variables that the request refers to and that aren't set here."""
        return sorted({name for name in self._variables() if not self.environ.get(name)})

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Send the request and return the answer's body.

        Raises:
            ToolFailure: a variable is missing, or the answer isn't 2xx, is too large or no text.
            httpx.HTTPError: there was no whole answer.
        """
        missing = self.missing_variables()
        if missing:
            _logger.error("%s: %s not set", self.source, ", ".join(missing))
            raise ToolFailure("it isn't set up on this machine")
        in_query = self.method in WITHOUT_BODY
        body = "" if in_query else canonical_json(arguments)
        headers = self._headers()
        headers.update(self._signature(body, context))
        headers[self.idempotency_header] = context.idempotency_key
        url = httpx.URL(self.url)
        if in_query:
            url = url.copy_merge_params({key: _text(value) for key, value in arguments.items()})
        # A client of its own keeps no cookies for the next call.
        client = httpx.AsyncClient(
            verify=_tls(),
            timeout=None,  # noqa: S113 - the tool's timeout holds, for all of it
            follow_redirects=False,
        )
        async with (
            client,
            client.stream(self.method, url, content=body or None, headers=headers) as response,
        ):
            return await _read(response)

    def _variables(self) -> Iterator[str]:
        if self.signing_secret is not None:
            yield self.signing_secret
        for value in self.headers.values():
            yield from REFERENCE.findall(value)

    def _headers(self) -> httpx.Headers:
        # What is packed may unpack to any size.
        headers = httpx.Headers({"Accept-Encoding": "identity"})
        headers["User-Agent"] = f"runlane/{runlane.__version__}"
        if self.method not in WITHOUT_BODY:
            headers["Content-Type"] = "application/json"
        for name, value in self.headers.items():
            filled = REFERENCE.sub(lambda found: self.environ[found[1]].strip(), value)
            # httpx reports a bad header by printing it, secret and all.
            if not (filled.isascii() and filled.isprintable()):
                _logger.error("%s: header %s holds what no header can carry", self.source, name)
                raise ToolFailure("it isn't set up on this machine")
            headers[name] = filled
        return headers

    def _signature(self, body: str, context: ToolContext) -> dict[str, str]:
        if self.signing_secret is None:
            return {}
        # The id is the message's: the same for every attempt, as is the body.
        message_id, now = context.idempotency_key, datetime.now(UTC)
        secret = self.environ[self.signing_secret].strip()
        if not _WEBHOOK_SECRET.fullmatch(secret):
            # The library would skip what is no base64, and sign with another key.
            _logger.error("%s: %s holds no whsec_ key", self.source, self.signing_secret)
            raise ToolFailure("it isn't set up on this machine")
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(secret).sign(message_id, now, body),
        }


async def _read(response: httpx.Response) -> str:
    if not response.is_success:
        raise ToolFailure(f"HTTP {response.status_code}")
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise ToolFailure("its answer is packed")
    read = bytearray()
    async for chunk in response.aiter_raw():
        read += chunk
        if len(read) > MAX_OUTPUT_BYTES:
            raise OutputTooLarge
    try:
        charset = codecs.lookup(response.charset_encoding or "utf-8").name
        if charset not in _CHARSETS:
            raise LookupError(charset)
        return read.decode(charset)
    except (UnicodeDecodeError, LookupError):
        raise ToolFailure("its answer is no text") from None


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@functools.cache
def _tls() -> ssl.SSLContext:
    # A fiftieth of a second, each time.
    return httpx.create_ssl_context()
