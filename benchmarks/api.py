"""What the HTTP API adds to the upstream's own: requests, streams, retrieves a second, approvals.

The same HTTP client asks the API and the simulator behind it, turn about.
"""

import asyncio
import itertools
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.figures import Row, Target
from benchmarks.parts import ApiServer, RunlaneWorker, Site
from benchmarks.upstream import new_thread, one_round
from ledger.approval import Approval, ApprovalKey
from ledger.contents import digest_of
from runlane import key_file
from runlane.ledger_access import open_ledger

CLIENTS = 16
"""That retrieve at a time, by one connection each."""
MAX_LIST_SECONDS = 0.3

_TIMEOUT = httpx.Timeout(60)
_LIMITS = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
_BETWEEN_SECONDS = 0.05
_LOOK_SECONDS = 0.1
_CALLS_OF_A_RUN = 50
_LISTS = 9

Samples = Mapping[str, Sequence[float]]
"""Seconds by request."""


@dataclass(frozen=True)
class _Face:
    """Whoever answers: the API, or the upstream itself."""

    http: httpx.AsyncClient
    url: str

    async def create(self, thread_id: str, assistant_id: str) -> str:
        run = await self._call("POST", f"/threads/{thread_id}/runs", {"assistant_id": assistant_id})
        return str(run["id"])

    async def retrieve(self, thread_id: str, run_id: str) -> dict[str, Any]:
        return await self._call("GET", f"/threads/{thread_id}/runs/{run_id}")

    async def submit(self, thread_id: str, run: dict[str, Any]) -> None:
        calls = run["required_action"]["submit_tool_outputs"]["tool_calls"]
        outputs = [{"tool_call_id": call["id"], "output": "shipped"} for call in calls]
        path = f"/threads/{thread_id}/runs/{run['id']}/submit_tool_outputs"
        await self._call("POST", path, {"tool_outputs": outputs})

    async def until(self, thread_id: str, run_id: str, status: str) -> dict[str, Any]:
        """Retrieve a run until it has the status."""
        while True:
            run = await self.retrieve(thread_id, run_id)
            if run["status"] == status:
                return run
            await asyncio.sleep(_LOOK_SECONDS)

    async def events(self, thread_id: str, assistant_id: str) -> AsyncIterator[str]:
        """Create a run with a stream, and yield its events' names as they come."""
        body = {"assistant_id": assistant_id, "stream": True}
        path = f"{self.url}/threads/{thread_id}/runs"
        async with self.http.stream("POST", path, json=body) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    yield line.removeprefix("event: ")

    async def approvals(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._call("GET", "/approvals?limit=100"))["data"]
        return found

    async def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer = await self.http.request(method, self.url + path, json=body)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


@dataclass
class _Timed:
    """Seconds of what was asked of one face."""

    face: _Face
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def note(self, what: str, began: float) -> None:
        self.seconds.setdefault(what, []).append(time.perf_counter() - began)


async def measure(site: Site, *, quick: bool) -> list[Row]:
    """Return what requests and streams take beside the upstream's, and what one API answers."""
    samples, seconds, approvals = (3, 0.5, 200) if quick else (40, 8.0, 5_000)
    async with site.runlane_worker() as worker, _http() as http:
        async with site.api(worker) as server:
            ours, own = _Timed(_Face(http, server.url)), _Timed(_Face(http, site.upstream.url))
            site.progress.say(f"API: {samples} creates, retrieves, submits and streams, twice")
            await _requests(site, (ours, own), samples)
            await _streams(site, (ours, own), samples)
            site.progress.say(f"API: {CLIENTS} clients retrieve for {seconds:g} s, twice")
            rates = await _rates(site, server, ours.face, seconds)
        site.progress.say(f"API: a list of approvals, of which {approvals:,} wait")
        listing = await _listing(site, worker, http, approvals)
    return [*_compared(ours.seconds, own.seconds), *rates, listing]


def _compared(ours: Samples, own: Samples) -> list[Row]:
    rows = []
    for what, seconds in ours.items():
        mine, theirs = statistics.median(seconds), statistics.median(own[what])
        rows += [
            Row(subject="api", what=what, unit="ms, median", runlane=mine * 1000,
                upstream=theirs * 1000),
            Row(subject="api", what=what, unit="times the upstream's", runlane=mine / theirs),
        ]  # fmt: skip
    return rows


async def _requests(site: Site, faces: Sequence[_Timed], samples: int) -> None:
    """Create runs that ask, retrieve them while they wait and once they have ended; submit."""
    assistant_id = await site.upstream.assistant(expires_after=0, rounds=one_round(0, 0))
    for _, timed in itertools.product(range(samples), faces):
        thread_id, face = new_thread(), timed.face
        began = time.perf_counter()
        run_id = await face.create(thread_id, assistant_id)
        timed.note("create", began)
        run = await face.until(thread_id, run_id, "requires_action")
        for what, after in (("retrieve of a living run", ""), ("", "completed")):
            if after:
                began = time.perf_counter()
                await face.submit(thread_id, run)
                timed.note("submit", began)
                await face.until(thread_id, run_id, after)
            await asyncio.sleep(_BETWEEN_SECONDS)
            began = time.perf_counter()
            await face.retrieve(thread_id, run_id)
            timed.note(what or "retrieve of an ended run", began)


async def _streams(site: Site, faces: Sequence[_Timed], samples: int) -> None:
    """Create runs with a stream, that end at once."""
    says = {"queued": 0, "in_progress": 0, "says": "Shipped."}
    assistant_id = await site.upstream.assistant(expires_after=0, rounds=[says])
    for _, timed in itertools.product(range(samples), faces):
        began = time.perf_counter()
        async for number, event in _numbered(timed.face.events(new_thread(), assistant_id)):
            if number == 0:
                timed.note("stream to its first event", began)
            if event == "thread.run.completed":
                timed.note("stream to thread.run.completed", began)
        await asyncio.sleep(_BETWEEN_SECONDS)


async def _numbered(events: AsyncIterator[str]) -> AsyncIterator[tuple[int, str]]:
    number = 0
    async for event in events:
        yield number, event
        number += 1


async def _rates(site: Site, server: ApiServer, face: _Face, seconds: float) -> list[Row]:
    """Return how many retrieves a second one API process answers, of living and of ended runs."""
    asks = await site.upstream.assistant(expires_after=0, rounds=one_round(0, 0))

    async def asking(thread_id: str) -> tuple[str, dict[str, Any]]:
        run_id = await face.create(thread_id, asks)
        return thread_id, await face.until(thread_id, run_id, "requires_action")

    async def finish(thread_id: str, run: dict[str, Any]) -> None:
        await face.submit(thread_id, run)
        await face.until(thread_id, run["id"], "completed")

    runs = await asyncio.gather(*(asking(new_thread()) for _ in range(CLIENTS)))
    rows = await _rate(server, face, runs, "living runs", seconds)
    await asyncio.gather(*(finish(*each) for each in runs))
    return [*rows, *await _rate(server, face, runs, "ended runs", seconds)]


async def _rate(
    server: ApiServer,
    face: _Face,
    runs: Sequence[tuple[str, dict[str, Any]]],
    which: str,
    seconds: float,
) -> list[Row]:
    began, used = time.perf_counter(), _processor_seconds(server.pid)

    async def client(thread_id: str, run_id: str) -> int:
        answered = 0
        while time.perf_counter() - began < seconds:
            await face.retrieve(thread_id, run_id)
            answered += 1
        return answered

    answered = sum(await asyncio.gather(*(client(thread, run["id"]) for thread, run in runs)))
    rate = answered / (time.perf_counter() - began)
    used = _processor_seconds(server.pid) - used
    what = f"{which}, {CLIENTS} clients at a time"
    return [
        Row(subject="api", what=what, unit="retrieves a second", runlane=rate),
        Row(subject="api", what=f"processor time of the API, {which}", unit="ms a retrieve",
            runlane=used / answered * 1000),
    ]  # fmt: skip


def _processor_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


async def _listing(site: Site, worker: RunlaneWorker, http: httpx.AsyncClient, number: int) -> Row:
    """Return what a list takes by a ledger, made for it, in which so many approvals wait."""
    data_dir = site.data_dir / "api"
    data_dir.mkdir()
    for name in (key_file.NAME, "decision.key", "decision.pub"):
        shutil.copy(site.data_dir / name, data_dir / name)
    await _seed(worker, data_dir, number)
    async with site.api(worker, data_dir) as server:
        face, seconds = _Face(http, server.url), []
        for _ in range(_LISTS):
            began = time.perf_counter()
            assert len(await face.approvals()) == 100
            seconds.append(time.perf_counter() - began)
    median = statistics.median(seconds)
    reached = median < MAX_LIST_SECONDS
    target = Target(f"under {MAX_LIST_SECONDS * 1000:g}", reached)
    return Row(
        subject="api", what=f"list of 100 approvals, {number:,} wait", unit="ms, median",
        runlane=median * 1000, target=target,
    )  # fmt: skip


async def _seed(worker: RunlaneWorker, data_dir: Path, number: int) -> None:
    settings = replace(worker.client.settings, data_dir=data_dir)
    began = datetime.now(UTC) - timedelta(seconds=number)
    async with await open_ledger(settings) as ledger:
        for first in range(0, number, _CALLS_OF_A_RUN):
            run_id = f"run_{first}"
            numbers = range(first, first + _CALLS_OF_A_RUN)
            calls = [_approval(run_id, each, began) for each in numbers]
            await ledger.approvals.record(run_id, calls)


def _approval(run_id: str, number: int, began: datetime) -> Approval:
    arguments = f'{{"amount":250,"order_id":"A-{number}"}}'
    return Approval(
        key=ApprovalKey(run_id=run_id, attempt=1, round=1, call_id=f"call_{number}"),
        tool="refund",
        tool_digest=digest_of("{}"),
        arguments_digest=digest_of(arguments),
        arguments=arguments,
        reason="over 100 euros",
        groups=("desk",),
        since=began + timedelta(seconds=number),
    )


@asynccontextmanager
async def _http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=_TIMEOUT, limits=_LIMITS, trust_env=False) as http:
        yield http
