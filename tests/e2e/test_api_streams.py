"""Streams of API processes that die, of runs whose worker dies, and a thousand of them at once."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
import pytest_asyncio

from runlane.embedded import EmbeddedTemporal
from runlane.temporal import connect
from runsapi import Assistants
from tests.handed_on import Starter
from tests.lab import eventually
from tests.processes import ApiProcess, Plant
from tests.simulator_process import SimulatorProcess
from tests.temporal_server import encrypting
from workflows.contract import RunOptions, RunRequest

pytestmark = pytest.mark.slow

RUNS = 250
STREAMS = 1000
"""So many at once, four on each of the runs."""
WITHIN = 240.0
"""Seconds for what takes a few: the machine has other tests to run."""

ROUND = {"queued": 0.2, "in_progress": 0.8, "says": "A moment.", "calls": [{"name": "look"}]}
LAST = {"queued": 0.2, "in_progress": 0.8, "says": "Found: {outputs}."}


class Sent(NamedTuple):
    """An event as it came."""

    id: str | None
    """None: of text that came while its message was written."""
    name: str
    data: Any


async def read(
    url: str, *, last: str | None = None, body: dict[str, Any] | None = None
) -> AsyncIterator[Sent]:
    """Yield the events of a stream until it says that it is done."""
    headers = {} if last is None else {"last-event-id": last}
    async with httpx.AsyncClient(timeout=60) as http:
        method = "GET" if body is None else "POST"
        async with http.stream(method, url, headers=headers, json=body) as response:
            assert 200 == response.status_code, await response.aread()
            event: dict[str, str] = {}
            async for line in response.aiter_lines():
                name, _, value = line.partition(": ")
                if name:
                    event[name] = value
                elif event.get("event") == "done":
                    return
                elif "event" in event:
                    yield Sent(event.get("id"), event["event"], json.loads(event["data"]))
                    event = {}
    raise AssertionError("the stream broke off")


async def until(stream: AsyncIterator[Sent], count: int) -> list[Sent]:
    """Return the first events of a stream."""
    found = []
    async for event in stream:
        found.append(event)
        if len(found) == count:
            break
    return found


@pytest.mark.parametrize("seen", [1, 3, 6, 9])
async def test_a_stream_goes_on_at_another_process(plant: Plant, seen: int) -> None:
    """The API dies in the middle; what two processes told is the whole, nothing of it twice."""
    lab = plant.lab
    await lab.scenario(rounds=[ROUND, LAST])
    await plant.worker()
    dying, other = await asyncio.gather(plant.api(), plant.api())
    path = f"/threads/{lab.thread_id}/runs"
    body = {"assistant_id": lab.assistant_id, "stream": True}
    first = await until(read(dying.url + path, body=body), seen)
    await dying.kill()
    run_id = first[0].data["id"]
    events = f"{other.url}{path}/{run_id}/events"
    asked = [*first, *[event async for event in read(events, last=first[-1].id)]]
    assert "thread.run.requires_action" == asked[-1].name
    [call] = asked[-1].data["required_action"]["submit_tool_outputs"]["tool_calls"]
    submit = {"tool_outputs": [{"tool_call_id": call["id"], "output": "it"}], "stream": True}
    rest = read(f"{other.url}{path}/{run_id}/submit_tool_outputs", body=submit)
    told = [*asked, *[event async for event in rest]]

    assert "thread.run.completed" == told[-1].name
    assert len(told) == len({event.id for event in told})
    # A process that has seen nothing of it.
    await dying.start()
    every = [event async for event in read(f"{dying.url}{path}/{run_id}/events")]
    assert [(e.id, e.name) for e in every] == [(e.id, e.name) for e in told]


async def test_a_stream_outlives_the_worker(plant: Plant) -> None:
    """A worker is killed and replaced while a stream is open: it goes on, and tells all of it."""
    lab = plant.lab
    await lab.scenario(rounds=[LAST | {"in_progress": 4.0}])
    first, api = await asyncio.gather(plant.worker(), plant.api())
    path = f"{api.url}/threads/{lab.thread_id}/runs"
    told: list[Sent] = []
    async for event in read(path, body={"assistant_id": lab.assistant_id, "stream": True}):
        told.append(event)
        if event.name == "thread.run.in_progress":
            await first.kill()
            await plant.worker()
    assert "thread.run.completed" == told[-1].name
    every = [event async for event in read(f"{path}/{told[0].data['id']}/events")]
    assert [event.id for event in every] == [event.id for event in told]


async def test_text_outlives_the_worker_that_heard_it(plant: Plant) -> None:
    """A worker is killed in the middle of a message: what was told is gone on with in the end."""
    lab = plant.lab
    words = " ".join(f"word{number}" for number in range(40))
    await lab.scenario(rounds=[LAST | {"says": words, "words_per_second": 5.0}])
    first, api = await asyncio.gather(plant.worker(), plant.api())
    path = f"{api.url}/threads/{lab.thread_id}/runs"
    texts: list[tuple[bool, str]] = []
    names: list[str] = []
    async for event in read(path, body={"assistant_id": lab.assistant_id, "stream": True}):
        names.append(event.name)
        if event.name == "thread.message.delta":
            texts.append((event.id is None, event.data["delta"]["content"][0]["text"]["value"]))
            if len(texts) == 2:
                await first.kill()
                await plant.worker()
    assert ["thread.message.completed", "thread.run.step.completed", "thread.run.completed"] == (
        names[-3:]
    )
    assert [True, True, False] == [is_live for is_live, _ in texts]
    assert words == "".join(text for _, text in texts)
    assert 1 == await lab.accepted("runs.create")


@pytest_asyncio.fixture
async def own_plant(tmp_path: Path) -> AsyncIterator[Plant]:
    """A plant on a server and an upstream of its own, which go with the hundreds of its runs."""
    settings = encrypting(tmp_path)
    with SimulatorProcess("--no-bodies") as simulator:
        async with EmbeddedTemporal(tmp_path) as server:
            client = await connect(settings, environ={"TEMPORAL_ADDRESS": server.address})
            plant = Plant(server.address, client, simulator, tmp_path)
            try:
                yield plant
            finally:
                await plant.dispose()


class Listener:
    """One stream, read as cheaply as can be."""

    def __init__(self, api: ApiProcess, thread_id: str, run_id: str) -> None:
        self._address = urlsplit(api.url)
        self._path = f"/v1/threads/{thread_id}/runs/{run_id}/events"
        self.text = b""
        self.opened_at = 0.0

    async def listen(self) -> None:
        """Read to the end; where there is too much to do just now, ask again as clients do."""
        while not await self._read():
            await asyncio.sleep(1)

    async def _read(self) -> bool:
        self.text = b""
        reader, writer = await asyncio.open_connection(self._address.hostname, self._address.port)
        try:
            host = self._address.netloc
            writer.write(f"GET {self._path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            while b"data: [DONE]" not in self.text:
                chunk = await reader.read(65536)
                if not chunk and self.text.startswith(b"HTTP/1.1 503 "):
                    return False
                assert chunk, self.text[-500:]
                self.text += chunk
                if b"event: " in chunk and not self.opened_at:
                    self.opened_at = time.monotonic()
            return True
        finally:
            writer.close()


@pytest.mark.timeout(1200)
async def test_a_thousand_streams_get_their_end(
    own_plant: Plant, record_property: Callable[[str, object], None]
) -> None:
    """All are opened, hear of their run's end, and cost little while nothing happens."""
    plant, simulator = own_plant, own_plant.simulator
    await plant.lab.scenario(rounds=[{"queued": 0.0, "in_progress": 3600.0}], expires_after=0)
    _, api = await asyncio.gather(plant.worker(), plant.api())
    asking = [
        RunRequest(
            thread_id=f"{plant.lab.assistant_id}_{number}",
            params={"assistant_id": plant.lab.assistant_id},
            options=RunOptions(poll_interval_ms=20_000),
            created_at=time.time(),
        )
        for number in range(RUNS)
    ]
    async with Assistants(simulator.url) as upstream:
        starter = Starter(plant.client, upstream, plant.lab.task_queue)
        run_ids = await asyncio.gather(*(starter.in_leg(request) for request in asking))
    process = psutil.Process(api.pid)
    before = process.memory_info().rss

    listeners = [
        Listener(api, request.thread_id, run_id)
        for _ in range(STREAMS // RUNS)
        for request, run_id in zip(asking, run_ids, strict=True)
    ]
    began = time.monotonic()
    listening = [asyncio.create_task(each.listen()) for each in listeners]

    async def opened() -> int:
        for task in listening:
            if task.done():
                task.result()
        return sum(bool(each.opened_at) for each in listeners)

    await eventually(opened, lambda count: count == STREAMS, within=timedelta(seconds=WITHIN))
    opened_in = max(each.opened_at for each in listeners) - began
    held = process.memory_info().rss - before
    busy, since = sum(process.cpu_times()[:2]), time.monotonic()
    await asyncio.sleep(10)
    share = (sum(process.cpu_times()[:2]) - busy) / (time.monotonic() - since)

    ended = time.monotonic()
    for run in await asyncio.to_thread(lambda: simulator.runs(live=True)):
        await asyncio.to_thread(simulator.force, run["id"], "completed")
    await asyncio.wait_for(asyncio.gather(*listening), WITHIN)
    record_property(
        "streams",
        {
            "opened_s": round(opened_in, 1),
            "kb_each": round(held / STREAMS / 1000),
            "cpu_while_quiet": round(share, 2),
            "all_ended_s": round(time.monotonic() - ended, 1),
        },
    )
    assert all(b"event: thread.run.completed" in each.text for each in listeners)
    assert share < 1.0
    assert held / STREAMS < 200_000
