"""One worker full of attached polls and of waiting runs: what changes something goes at once."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import psutil
import pytest

from tests.lab import Lab, eventually
from tests.processes import Plant

T = TypeVar("T")

POLLS = 40
WAITING = 20
AT_A_TIME = 20
"""Runs that are started at once, as a caller with a pool would."""
TRIES = 2
SOON = 30.0
"""Seconds more than when idle; with slots shared by all, a cancel took 31."""
ENDLESS = {"queued": 0.0, "ends": "never"}
ASK = {"queued": 0.0, "in_progress": 0.0, "calls": [{"name": "look"}]}


async def start_many(lab: Lab, count: int, name: str) -> None:
    room = asyncio.Semaphore(AT_A_TIME)

    async def start(number: int) -> None:
        async with room:
            await lab.start(thread_id=f"{lab.thread_id}_{name}_{number}")

    await asyncio.gather(*(start(number) for number in range(count)))


async def live(lab: Lab, status: str) -> int:
    """How many upstream runs of the lab's assistant have that status and have been looked at."""
    runs = await asyncio.to_thread(lambda: lab.simulator.runs(live=True))
    return sum(run["assistant_id"] == lab.assistant_id and run["status"] == status for run in runs)


async def until_live(lab: Lab, status: str, count: int) -> None:
    deadline = time.monotonic() + 200
    while (found := await live(lab, status)) < count:
        assert time.monotonic() < deadline, f"{found} of {count} are {status}"
        await asyncio.sleep(0.5)


async def accepted_at(lab: Lab, operation: str) -> float:
    """When the upstream took that request, in unix seconds."""
    answer = await asyncio.to_thread(lambda: lab.simulator.requests(thread_id=lab.thread_id))
    at = [e["at"] for e in answer["data"] if e["operation"] == operation and e["accepted"]]
    return at[0] if at else 0.0


async def polls_between(lab: Lab, began: float, ended: float) -> int:
    """How many polls the upstream got in that time, whoever made them."""
    answer = await asyncio.to_thread(lambda: lab.simulator.requests(operation="runs.retrieve"))
    return sum(began < entry["at"] < ended for entry in answer["data"])


async def figures(plant: Plant) -> dict[str, tuple[float, int]]:
    """Return the least seconds until the upstream had a create, a submit and a cancel, and the
    polls that it got before.
    """
    found: dict[str, list[tuple[float, int]]] = {"create": [], "submit": [], "cancel": []}

    async def note(name: str, lab: Lab, operation: str, do: Callable[[], Awaitable[T]]) -> T:
        began = time.time()
        done = await do()
        at = await eventually(partial(accepted_at, lab, operation), bool)
        found[name].append((round(at - began, 2), await polls_between(lab, began, at)))
        return done

    for _ in range(TRIES):
        lab = plant.another_lab()
        await lab.scenario(rounds=[ASK, ENDLESS])
        run = await note("create", lab, "runs.create", lab.start)
        view = await run.until(lambda view: bool(view.runlane.pending))
        answer = (view.runlane.pending[0].tool_call_id, "ok")
        await note("submit", lab, "runs.submit_tool_outputs", partial(run.submit, answer))
        await note("cancel", lab, "runs.cancel", run.cancel)
    return {name: min(tries) for name, tries in found.items()}


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_nothing_waits_behind_polls(
    plant: Plant, record_property: Callable[[str, object], None]
) -> None:
    """With many attached polls and waiting runs on one worker, create, submit and cancel
    reach the upstream as before; also where its limits let the polls queue for twenty seconds.
    """
    lab = plant.lab
    first = await plant.worker()
    memory = psutil.Process(first.pid)
    idle = await figures(plant)
    await lab.scenario(rounds=[ENDLESS])
    await start_many(lab, POLLS, "poll")
    await until_live(lab, "in_progress", POLLS)
    waiting = plant.another_lab()
    await waiting.scenario(rounds=[ASK])
    await start_many(waiting, WAITING, "wait")
    await until_live(waiting, "requires_action", WAITING)

    loaded = await figures(plant)
    mb = round(memory.memory_info().rss / 1e6)

    first.terminate()
    await first.wait()
    await plant.worker(RUNLANE_UPSTREAM_MAX_CONCURRENCY="4", RUNLANE_UPSTREAM_RPS="2")
    # Polls come over at once, and more than its rate allows: all wait but two a second.
    capped = await figures(plant)

    record_property("load", {"idle": idle, "loaded": loaded, "capped": capped, "mb": mb})
    for name, (seconds, _) in loaded.items():
        assert seconds < idle[name][0] + SOON
    # Behind the polls an effect would let all of them pass first.
    assert max(polls for _, polls in capped.values()) < POLLS / 2, capped
