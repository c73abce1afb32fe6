"""The simulator as the benchmarks steer and question it."""

import asyncio
import secrets
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import httpx

_LOOK_SECONDS = 0.25


@dataclass
class Received:
    """What the upstream got on one thread."""

    at: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Operation → when, in unix seconds."""

    @property
    def counts(self) -> Counter[str]:
        """How many requests of each operation."""
        return Counter({operation: len(times) for operation, times in self.at.items()})


class Upstream:
    """A client of the simulator's controls; `url` is the base URL of its API."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.pid = pid
        self._http = httpx.AsyncClient(
            base_url=url.removesuffix("/v1") + "/_simulator", timeout=60, trust_env=False
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def assistant(self, **scenario: Any) -> str:
        """Return the id of a new assistant that behaves as the scenario says."""
        assistant_id = f"asst_{secrets.token_hex(6)}"
        await self._call("POST", "/scenarios", {"assistant_id": assistant_id, **scenario})
        return assistant_id

    async def received(self) -> dict[str, Received]:
        """Return what was received since `forget`, by thread."""
        found: dict[str, Received] = defaultdict(Received)
        for entry in (await self._call("GET", "/requests"))["data"]:
            if entry["thread_id"] is not None:
                found[entry["thread_id"]].at[entry["operation"]].append(entry["at"])
        return found

    async def received_at(self, thread_id: str, operation: str) -> float:
        """Wait until such a request comes for a thread; return when the first one did.

        The time is in unix seconds.
        """
        query = f"?thread_id={thread_id}&operation={operation}"
        while True:
            for entry in (await self._call("GET", f"/requests{query}"))["data"]:
                return float(entry["at"])
            await asyncio.sleep(_LOOK_SECONDS)

    async def polled(self, threads: set[str]) -> None:
        """Wait until the run on each of the threads has been polled."""
        while True:
            polls = (await self._call("GET", "/requests?operation=runs.retrieve"))["data"]
            if threads <= {entry["thread_id"] for entry in polls}:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def forget(self) -> None:
        """Forget the requests received so far."""
        await self._call("DELETE", "/requests")

    async def asked(self, thread_id: str) -> str:
        """Wait until the run on a thread requires action; return the call's id."""
        while True:
            if (call_id := (await self.waiting()).get(thread_id)) is not None:
                return call_id
            await asyncio.sleep(_LOOK_SECONDS)

    async def waiting(self) -> dict[str, str]:
        """Return the call that waits on each thread whose run requires action."""
        runs = (await self._call("GET", "/runs?live=true"))["data"]
        return {
            run["thread_id"]: run["required_action"]["submit_tool_outputs"]["tool_calls"][0]["id"]
            for run in runs
            if run["status"] == "requires_action"
        }

    async def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = await self._http.request(method, path, json=body)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


def new_thread() -> str:
    """Return the id of a thread that nobody has used."""
    return f"thread_{secrets.token_hex(6)}"


def one_round(first_leg: float, second_leg: float) -> list[dict[str, Any]]:
    """Return the rounds of a scenario with one tool call between two legs, in seconds."""
    call = {"name": "lookup_order", "arguments": {"order_id": "A-1042"}}
    return [
        {"queued": 0, "in_progress": first_leg, "calls": [call]},
        {"queued": 0, "in_progress": second_leg, "says": "Shipped."},
    ]
