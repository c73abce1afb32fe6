"""The codec server: shows what is encrypted to Temporal's UI and command line, for a token.

Both send it payloads out of a history and show what comes back. `/decode` and `/encode` are their
protocol; `/download` fetches what lies in the payload store, which the UI leaves until it is asked
for. The token goes into the header `Authorization`, or before the operation in the path: Temporal's
UI sends no header where it has no login of its own.
"""

import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from google.protobuf.json_format import MessageToJson, Parse, ParseError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.sdk.v1.external_storage_pb2 import ExternalStorageReference
from temporalio.converter import (
    DataConverter,
    PayloadCodec,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
)

from runlane.errors import CannotDecrypt
from runlane.payload_store import PayloadStoreError

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Of a request; a payload in a history has 2 MB at most, and half as much again in base64."""
MAX_PAYLOADS = 1_000
"""In a request: each may stand for 8 MB in the payload store."""

_HEADERS = ("Authorization", "Authorization-Extras", "Content-Type", "X-Namespace")
"""What Temporal's UI sends."""
_REFERENCE = ExternalStorageReference.DESCRIPTOR.full_name.encode()

_logger = logging.getLogger("runlane.codec")


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class _Task(NamedTuple):
    payloads: Sequence[Payload]
    stored: bool
    """Fetch what lies in the payload store, too."""


class CodecServer:
    """The service; `app` is what a web server runs."""

    def __init__(self, converter: DataConverter, *, token: str, origins: Sequence[str]) -> None:
        """Serve whoever has the token.

        Args:
            converter: as clients have it, with its keys and its payload store.
            token: asked of every request.
            origins: of the web pages that may ask.
        """
        assert converter.payload_codec is not None
        assert converter.external_storage is not None
        self._codec: PayloadCodec = converter.payload_codec
        self._storage = converter.external_storage
        self._token = token
        operations: dict[str, Callable[[_Task], Awaitable[list[Payload]]]] = {
            "encode": self._encode,
            "decode": self._decode,
            "download": self._download,
        }
        routes = [
            Route(f"{prefix}/{name}", self._endpoint(name, work), methods=["POST"])
            for name, work in operations.items()
            for prefix in ("", "/{token}")
        ]
        cors = Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["POST"],
            allow_headers=_HEADERS,
            # The UI can be told to send its cookies along, and the browser then wants to hear yes.
            allow_credentials=True,
            allow_private_network=True,
        )
        self.app = Starlette(routes=routes, middleware=[cors])

    async def _encode(self, task: _Task) -> list[Payload]:
        return await self._codec.encode(task.payloads)

    async def _decode(self, task: _Task) -> list[Payload]:
        return [await self._shown(payload, stored=task.stored) for payload in task.payloads]

    async def _download(self, task: _Task) -> list[Payload]:
        return [await self._shown(payload, stored=True) for payload in task.payloads]

    async def _shown(self, payload: Payload, *, stored: bool) -> Payload:
        if payload.metadata.get("messageType") == _REFERENCE:
            if not stored:
                return payload
            payload = await self._fetched(payload)
        [shown] = await self._codec.decode([payload])
        return shown

    async def _fetched(self, reference: Payload) -> Payload:
        try:
            claim = Parse(reference.data, ExternalStorageReference(), ignore_unknown_fields=True)
        except (ParseError, UnicodeDecodeError):
            raise _Refused(400, "A reference to the payload store can't be read.") from None
        for driver in self._storage.drivers:
            if driver.name() == claim.driver_name:
                [found] = await driver.retrieve(
                    StorageDriverRetrieveContext(), [StorageDriverClaim(dict(claim.claim_data))]
                )
                return found
        raise _Refused(400, f"There is no payload store {claim.driver_name!r} here.")

    def _endpoint(
        self, name: str, work: Callable[[_Task], Awaitable[list[Payload]]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            began = time.monotonic()
            count = 0
            try:
                self._admit(request)
                task = await _task(request)
                count = len(task.payloads)
                found = Payloads(payloads=await work(task))
                text = MessageToJson(found, indent=None)
                answer = Response(text, media_type="application/json")
            except _Refused as error:
                answer = _error(error.status, error.message)
            except CannotDecrypt as error:
                answer = _error(400, error.message)
            except PayloadStoreError as error:
                answer = _error(400, str(error))
            # Neither path nor body: they may hold the token and the contents.
            took = (time.monotonic() - began) * 1_000
            of = "1 payload" if count == 1 else f"{count} payloads"
            _logger.info("%s %d, %s, %.0f ms", name, answer.status_code, of, took)
            return answer

        return endpoint

    def _admit(self, request: Request) -> None:
        header = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        given = request.path_params.get("token", header)
        # In constant time: or the time it takes tells how much of a guess is right.
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            raise _Refused(401, "The token is missing or wrong.")


async def _task(request: Request) -> _Task:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _Refused(413, f"A request may have {MAX_BODY_BYTES:,} bytes.")
    try:
        found = Parse(body, Payloads(), ignore_unknown_fields=True)
    except (ParseError, UnicodeDecodeError, RecursionError):
        # Without the reason: it quotes the body.
        raise _Refused(400, 'The body is not JSON of the form {"payloads": […]}.') from None
    if len(found.payloads) > MAX_PAYLOADS:
        raise _Refused(413, f"A request may have {MAX_PAYLOADS:,} payloads.")
    # The UI says so, and downloads later what somebody wants to see.
    preserve = request.query_params.get("preserveStorageRefs", "").lower() == "true"
    return _Task(found.payloads, stored=not preserve)


def _error(status: int, message: str) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"error": {"message": message}}, status_code=status, headers=headers)
