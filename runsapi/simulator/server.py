"""The simulator as an ASGI application: the protocol, and `/_simulator`, which controls it."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from runsapi.simulator import errors
from runsapi.simulator.connection import drop
from runsapi.simulator.control import Control
from runsapi.simulator.engine import EXPIRES_AFTER, Engine
from runsapi.simulator.errors import JSON, ApiError
from runsapi.simulator.events import ERROR, StreamCut, frames
from runsapi.simulator.faults import Fault, Faults
from runsapi.simulator.journal import Entry, Journal
from runsapi.simulator.operations import OPERATIONS, Call, Operation, Reply, forget
from runsapi.simulator.scenario import Scenario
from runsapi.simulator.store import Store, keeping

MARK = {"x-runlane-simulator": "1"}
"""On every response, so that nobody takes the simulator for a real service."""

PREFIXES = ("/v1", "/openai", "/openai/v1", "/api/projects/{project}")
"""Where the protocol is served: as OpenAI did, Azure OpenAI and a Foundry project."""

# Never the key: what is noted here, anybody on the machine may read.
_NOTED = ("openai-beta", "x-stainless-", "idempotency-key", "user-agent")
_CHANGES = (".create", ".create_and_run", ".update", ".delete", ".cancel", ".submit_tool_outputs")


class Simulator:
    """The service and its controls; `app` is what a server runs."""

    def __init__(
        self,
        *,
        scenarios: Iterable[Scenario] = (),
        faults: Iterable[Any] = (),
        strict: bool = False,
        expires_after: float = EXPIRES_AFTER,
        api_key: str | None = None,
        bodies: bool = True,
        state: Path | None = None,
    ) -> None:
        self.engine = Engine(strict=strict, expires_after=expires_after)
        self._store = None if state is None else Store(state, self.engine)
        for scenario in scenarios:
            self.engine.register(scenario)
        self.faults = Faults()
        for fault in faults:
            self.faults.order(fault)
        self.journal = Journal(bodies=bodies)
        self.control = Control(self.engine, self.faults, self.journal, api_key=api_key)
        routes = [
            Route(prefix + path, self._endpoint(name, operation), methods=[method])
            for prefix in PREFIXES
            for method, path, name, operation in OPERATIONS
        ]
        self.app: ASGIApp = Starlette(
            routes=[*routes, *self.control.routes()],
            exception_handlers={404: _no_route, 405: _no_route, ApiError: _refused},
        )
        if self._store is not None:
            self.app = keeping(self.app, self._store.keep)

    def close(self) -> None:
        """Write what is kept; nothing may be asked any more."""
        if self._store is not None:
            self._store.close()

    def _endpoint(
        self, name: str, operation: Operation
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            return await self._answer(request, name, operation)

        return endpoint

    async def _answer(self, request: Request, name: str, operation: Operation) -> Response:
        path = request.path_params
        raw = await request.body()
        entry = Entry(
            at=time.time(),
            operation=name,
            method=request.method,
            path=request.url.path,
            thread_id=path.get("thread_id"),
            run_id=path.get("run_id"),
            query=dict(request.query_params),
            headers={k: v for k, v in request.headers.items() if k.startswith(_NOTED)},
        )
        with suppress(ValueError):
            entry.body = json.loads(raw) if raw else None
        body = entry.body
        self.journal.add(entry)
        if self.control.down:
            return await drop(request)
        fault = self.faults.match(name, entry.thread_id, entry.run_id)
        if fault is not None and (early := await self._before(request, fault, entry)) is not None:
            return early
        call = Call(
            operation=name,
            thread_id=entry.thread_id or "",
            run_id=entry.run_id or "",
            item_id=path.get("item_id", ""),
            query=dict(request.query_params),
            body=body if isinstance(body, dict) else {},
        )
        reply = None
        try:
            self._admit(request, raw, body)
            reply = operation(self.engine, call)
        except ApiError as error:
            response: Response = _error(error)
        else:
            entry.accepted = name.endswith(_CHANGES)
            if reply.run is not None:
                entry.thread_id, entry.run_id = reply.run.thread_id, reply.run.id
            elif reply.body.get("object") == "thread":
                entry.thread_id = reply.body["id"]
            response = self._response(request, reply, fault)
        given = await self._after(request, fault, entry, response)
        if given is not response and reply and reply.run and reply.listener is not None:
            forget(reply.run, reply.listener)
        return given

    def _admit(self, request: Request, raw: bytes, body: Any) -> None:
        api_key = self.control.api_key
        if api_key is not None:
            given = request.headers.get("api-key") or request.headers.get(
                "authorization", ""
            ).removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), api_key.encode()):
                raise errors.unauthorized()
        if raw and not isinstance(body, dict):
            raise ApiError("We could not parse the JSON body of your request.")

    async def _before(self, request: Request, fault: Fault, entry: Entry) -> Response | None:
        kind = fault.spec.kind
        if kind == "reset":
            return await drop(request, reset=True)
        if kind == "slow":
            await fault.pause()
        if kind == "hold_before" and not await fault.hold():
            return await drop(request)
        refusal = fault.refusal()
        if refusal is None:
            return None
        entry.status = refusal.status
        return _error(refusal, fault.headers())

    async def _after(
        self, request: Request, fault: Fault | None, entry: Entry, response: Response
    ) -> Response:
        kind = fault.spec.kind if fault is not None else None
        if kind == "lost_answer":
            return await drop(request)
        if fault is not None and kind == "hold_after" and not await fault.hold():
            return await drop(request)
        if fault is not None and kind == "garbage":
            page = fault.spec.body or "<html><body>Bad gateway</body></html>"
            response = Response(str(page), media_type="text/html", headers=MARK)
        if fault is not None and kind == "error_after":
            response = _error(fault.error(), fault.headers())
        if fault is not None and kind == "headers":
            response.headers.update(fault.headers())
        # A caller that hung up while it was held has had no answer.
        held = kind in ("hold_before", "hold_after", "slow")
        if not (held and await request.is_disconnected()):
            entry.status = response.status_code
        return response

    def _response(self, request: Request, reply: Reply, fault: Fault | None) -> Response:
        headers = dict(MARK)
        if reply.run is not None and reply.run.scenario.poll_after_ms is not None:
            headers["openai-poll-after-ms"] = str(reply.run.scenario.poll_after_ms)
        if reply.run is None or reply.listener is None:
            return JSONResponse(reply.body, headers=headers)
        kind = fault.spec.kind if fault is not None else None
        breaks = fault is not None and kind in ("cut_stream", "stream_error")
        most = fault.spec.events if fault is not None and breaks else None

        def cut(sent: int) -> bool:
            return self.control.cutting or (most is not None and sent >= most)

        stream = frames(self.engine, reply.run, reply.listener, cut)
        return StreamingResponse(
            self._until_cut(request, stream, says_why=kind == "stream_error"),
            media_type="text/event-stream",
            headers=headers,
        )

    async def _until_cut(
        self, request: Request, stream: AsyncIterator[str], *, says_why: bool
    ) -> AsyncIterator[str]:
        try:
            async for frame in stream:
                yield frame
        except StreamCut:
            if says_why and not self.control.cutting:
                yield ERROR
            else:
                await drop(request)


def create_app(**options: Any) -> ASGIApp:
    """Return the application; the options are those of `Simulator`."""
    return Simulator(**options).app


def _error(error: ApiError, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(error.body, status_code=error.status, headers={**MARK, **(headers or {})})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _error(error)


async def _no_route(request: Request, error: Exception) -> Response:
    body: JSON = ApiError(f"Invalid URL ({request.method} {request.url.path})").body
    return JSONResponse(body, status_code=404, headers=MARK)
