"""Faults on order: which requests go wrong, how, and how often.

lost_answer   acts, then closes the connection without an answer
reset         resets the connection before acting
hold_before   waits, acts when released; hold_after acts, then holds the answer until released
slow          waits `seconds` before acting
rate_limit, quota, server_error, unauthorized, not_found, status   refuse without acting
garbage       acts, then answers 200 with a page of HTML
error_after   acts, then answers `status` and `body` all the same
headers       acts and answers, with `headers` besides
cut_stream    acts, streams `events` events, then closes the connection
stream_error  acts, streams `events` events, then one `error`, and ends
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from runsapi.simulator import errors
from runsapi.simulator.errors import JSON, ApiError
from runsapi.simulator.scenario import load_file, parse

Operation = Literal[
    "*",
    "assistants.create",
    "assistants.list",
    "assistants.retrieve",
    "assistants.update",
    "assistants.delete",
    "threads.create",
    "threads.retrieve",
    "threads.update",
    "threads.delete",
    "threads.create_and_run",
    "messages.create",
    "messages.list",
    "messages.retrieve",
    "messages.update",
    "messages.delete",
    "runs.create",
    "runs.list",
    "runs.retrieve",
    "runs.update",
    "runs.cancel",
    "runs.submit_tool_outputs",
    "steps.list",
    "steps.retrieve",
]
Kind = Literal[
    "lost_answer",
    "reset",
    "hold_before",
    "hold_after",
    "slow",
    "rate_limit",
    "quota",
    "server_error",
    "unauthorized",
    "not_found",
    "status",
    "garbage",
    "error_after",
    "headers",
    "cut_stream",
    "stream_error",
]


class FaultSpec(BaseModel):
    """An order for a fault."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    operation: Operation
    kind: Kind
    thread_id: str | None = None
    run_id: str | None = None
    after: int = Field(default=0, ge=0)
    """Let this many matching requests pass first."""
    times: int = Field(default=1, ge=0)
    """How often; 0 means until the fault is deleted."""
    probability: float = Field(default=1.0, ge=0, le=1)
    seed: int = 0
    retry_after: float | None = Field(default=None, ge=0)
    """Seconds, sent as `retry-after`; without it no such header is sent."""
    headers: dict[str, str] = Field(default_factory=dict)
    status: int = Field(default=500, ge=400, le=599)
    """For kinds `status` and `error_after`."""
    body: Any = None
    """The body of kinds `status` and `error_after` (JSON) and `garbage` (text)."""
    seconds: float = Field(default=1.0, ge=0)
    """For kind `slow`."""
    events: int = Field(default=1, ge=0)
    """For kinds `cut_stream` and `stream_error`."""


class Fault:
    """An order at work."""

    def __init__(self, id: str, spec: FaultSpec) -> None:
        self.id = id
        self.spec = spec
        self.hits = 0
        self.waiting = 0
        self.answer = True
        self.released = asyncio.Event()
        self._seen = 0
        # Reproducible on purpose: the same seed fails the same requests.
        self._random = random.Random(spec.seed)  # noqa: S311 - no secret depends on it

    def takes(self, operation: str, thread_id: str | None, run_id: str | None) -> bool:
        """Whether this request is hit; counts it."""
        spec = self.spec
        if spec.operation not in ("*", operation):
            return False
        if spec.thread_id not in (None, thread_id) or spec.run_id not in (None, run_id):
            return False
        if spec.times and self.hits >= spec.times:
            return False
        self._seen += 1
        if self._seen <= spec.after or self._random.random() >= spec.probability:
            return False
        self.hits += 1
        return True

    def release(self, *, answer: bool = True) -> None:
        """Let go what is held; without `answer` its connections are closed instead."""
        self.answer = answer
        self.released.set()

    async def hold(self) -> bool:
        """Wait for the release; whether an answer is to be given."""
        self.waiting += 1
        try:
            await self.released.wait()
        finally:
            self.waiting -= 1
        return self.answer

    async def pause(self) -> None:
        """Wait the seconds ordered, or until the release."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.hold(), self.spec.seconds)

    def refusal(self) -> ApiError | None:
        """Return the error this fault answers with, if it is of that sort."""
        makers = {
            "rate_limit": errors.rate_limited,
            "quota": errors.quota_exceeded,
            "server_error": errors.server_error,
            "unauthorized": errors.unauthorized,
        }
        if self.spec.kind in makers:
            return makers[self.spec.kind]()
        if self.spec.kind == "not_found":
            return ApiError("Not found.", status=404)
        if self.spec.kind == "status":
            return self.error()
        return None

    def error(self) -> ApiError:
        """Return the error with the status and body ordered."""
        error = ApiError("Ordered by a fault.", status=self.spec.status, type="server_error")
        if self.spec.body is not None:
            error.body = self.spec.body
        return error

    def headers(self) -> dict[str, str]:
        """Return the headers that go with the refusal."""
        headers = dict(self.spec.headers)
        if self.spec.retry_after is not None:
            headers["retry-after"] = f"{self.spec.retry_after:g}"
        return headers

    def report(self) -> JSON:
        """Return what `GET /_simulator/faults/{id}` shows."""
        return {
            "id": self.id,
            "hits": self.hits,
            "waiting": self.waiting,
            "released": self.released.is_set(),
            **self.spec.model_dump(),
        }


class Faults:
    """All orders, in the sequence given; the first that takes a request has it."""

    def __init__(self) -> None:
        self.orders: dict[str, Fault] = {}
        self._count = 0

    def order(self, data: Any, where: str = "fault") -> Fault:
        """Add an order; a `ScenarioError` names the field that is wrong."""
        spec = parse(FaultSpec, data, where)
        self._count += 1
        fault = Fault(f"fault_{self._count}", spec)
        self.orders[fault.id] = fault
        return fault

    def match(self, operation: str, thread_id: str | None, run_id: str | None) -> Fault | None:
        """Return the fault that hits this request."""
        taking = (f for f in self.orders.values() if f.takes(operation, thread_id, run_id))
        return next(taking, None)

    def remove(self, id: str) -> bool:
        """Delete an order and let go what it holds."""
        fault = self.orders.pop(id, None)
        if fault is not None:
            fault.release()
        return fault is not None

    def clear(self, *, answer: bool = True) -> None:
        """Delete all orders and let go what they hold."""
        for fault in self.orders.values():
            fault.release(answer=answer)
        self.orders.clear()


def load_faults(path: Path) -> list[Any]:
    """Read the orders of a TOML or JSON file: a list under `faults`, or the list itself."""
    data = load_file(path)
    if isinstance(data, dict):
        data = data.get("faults", [data])
    return data if isinstance(data, list) else [data]
