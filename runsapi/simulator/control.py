"""`/_simulator`: orders to the simulator, and what it saw."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from runsapi.simulator.engine import Engine
from runsapi.simulator.errors import JSON, ApiError
from runsapi.simulator.faults import Fault, Faults
from runsapi.simulator.journal import Journal
from runsapi.simulator.scenario import ScenarioError, parse_scenario

_MARK = {"x-runlane-simulator": "1"}
# Years either way: what is farther off is milliseconds or nonsense, to be shown but not obeyed.
_PLAUSIBLE = 10 * 365 * 86_400


class Control:
    """The control routes over one engine, its faults and its journal."""

    def __init__(
        self, engine: Engine, faults: Faults, journal: Journal, *, api_key: str | None = None
    ) -> None:
        self._engine = engine
        self._faults = faults
        self._journal = journal
        self.api_key = api_key
        """What requests to `/v1` must carry; None takes any."""
        self._down_until: float | None = None
        self.closing = False

    @property
    def cutting(self) -> bool:
        """Whether open streams are to be dropped now."""
        return self.closing or self.down

    @property
    def down(self) -> bool:
        """Whether every request to `/v1` is to be dropped now."""
        return self._down_until is not None and self._engine.clock.now() < self._down_until

    def close(self) -> None:
        """Let go all that is held or streaming, so that the server can end."""
        self.closing = True
        self._faults.clear(answer=False)

    def routes(self) -> list[Route]:
        """Return the routes, for the application."""
        table: list[tuple[str, str, Callable[[Request], Awaitable[JSON]]]] = [
            ("GET", "/requests", self._requests),
            ("DELETE", "/requests", self._forget_requests),
            ("GET", "/scenarios", self._scenarios),
            ("POST", "/scenarios", self._register),
            ("GET", "/faults", self._list_faults),
            ("POST", "/faults", self._order_fault),
            ("DELETE", "/faults", self._clear_faults),
            ("GET", "/faults/{id}", self._show_fault),
            ("DELETE", "/faults/{id}", self._remove_fault),
            ("POST", "/faults/{id}/release", self._release_fault),
            ("GET", "/runs", self._runs),
            ("POST", "/runs/{id}", self._force),
            ("GET", "/threads/{id}", self._thread),
            ("POST", "/down", self._go_down),
            ("POST", "/up", self._come_up),
            ("POST", "/key", self._rotate_key),
            ("GET", "/health", self._health),
        ]
        return [
            Route("/_simulator" + path, _endpoint(handler), methods=[method])
            for method, path, handler in table
        ]

    async def _health(self, request: Request) -> JSON:
        return {"down": self.down, "threads": len(self._engine.threads)}

    async def _requests(self, request: Request) -> JSON:
        names = ("thread_id", "run_id", "operation")
        return self._journal.report(**{name: request.query_params.get(name) for name in names})

    async def _forget_requests(self, request: Request) -> JSON:
        self._journal.clear()
        return {}

    async def _scenarios(self, request: Request) -> JSON:
        found = self._engine.scenarios.values()
        return {"data": [scenario.model_dump(mode="json") for scenario in found]}

    async def _register(self, request: Request) -> JSON:
        scenario = parse_scenario(await _body(request))
        self._engine.register(scenario)
        return {"assistant_id": scenario.assistant_id}

    async def _list_faults(self, request: Request) -> JSON:
        return {"data": [fault.report() for fault in self._faults.orders.values()]}

    async def _order_fault(self, request: Request) -> JSON:
        return self._faults.order(await _body(request)).report()

    async def _clear_faults(self, request: Request) -> JSON:
        self._faults.clear()
        return {}

    async def _show_fault(self, request: Request) -> JSON:
        return self._fault(request).report()

    async def _remove_fault(self, request: Request) -> JSON:
        fault = self._fault(request)
        self._faults.remove(fault.id)
        return fault.report()

    async def _release_fault(self, request: Request) -> JSON:
        fault = self._fault(request)
        fault.release(answer=(await _body(request)).get("answer") is not False)
        return fault.report()

    def _fault(self, request: Request) -> Fault:
        fault = self._faults.orders.get(request.path_params["id"])
        if fault is None:
            raise ApiError("No such fault.", status=404)
        return fault

    async def _runs(self, request: Request) -> JSON:
        stamp = request.query_params.get("stamp")
        live = request.query_params.get("live") == "true"
        found = [
            run
            for run in self._engine.runs.values()
            if stamp is None or run.metadata.get("runlane_run_id") == stamp
        ]
        for run in found:
            self._engine.lifecycle.advance(run)
        return {"data": [run.wire() for run in found if not (live and run.ended)]}

    async def _force(self, request: Request) -> JSON:
        run = self._engine.runs.get(request.path_params["id"])
        if run is None:
            raise ApiError("No such run.", status=404)
        body = await _body(request)
        self._engine.lifecycle.advance(run)
        if "expires_at" in body:
            run.expires_at = at = body["expires_at"]
            now = self._engine.clock.wall()
            if isinstance(at, int) and abs(at - now) < _PLAUSIBLE:
                run.expires = self._engine.clock.now() + at - now
        if isinstance(body.get("created_at"), int):
            run.created_at = body["created_at"]
        if isinstance(body.get("status"), str):
            self._engine.force(run, body["status"])
        return run.wire()

    async def _thread(self, request: Request) -> JSON:
        thread = self._engine.threads.get(request.path_params["id"])
        if thread is None:
            raise ApiError("No such thread.", status=404)
        for run in thread.runs.values():
            self._engine.lifecycle.advance(run)
        return {
            **thread.wire(),
            "messages": [message.wire() for message in thread.messages],
            "runs": [
                {**run.wire(), "steps": [step.wire() for step in run.steps]}
                for run in thread.runs.values()
            ],
        }

    async def _go_down(self, request: Request) -> JSON:
        seconds = (await _body(request)).get("seconds")
        self._down_until = float("inf") if seconds is None else self._engine.clock.now() + seconds
        return {"down": True}

    async def _come_up(self, request: Request) -> JSON:
        self._down_until = None
        return {"down": False}

    async def _rotate_key(self, request: Request) -> JSON:
        self.api_key = (await _body(request)).get("api_key")
        return {"demanded": self.api_key is not None}


def _endpoint(
    handler: Callable[[Request], Awaitable[JSON]],
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return JSONResponse(await handler(request), headers=_MARK)
        except ScenarioError as error:
            refused = ApiError(str(error))
            return JSONResponse(refused.body, status_code=400, headers=_MARK)

    return endpoint


async def _body(request: Request) -> dict[str, Any]:
    raw = await request.body()
    try:
        body = await request.json() if raw else {}
    except ValueError as error:
        raise ScenarioError(f"body: {error}") from error
    if not isinstance(body, dict):
        raise ScenarioError("body: expected an object")
    return body
