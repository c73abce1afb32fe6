"""An upstream that wishes us ill, over real connections, and a worker in a process of its own."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from functools import partial

import psutil
import pytest

from tests.hostile import ATTACKS, Attack, HostileUpstream, redirect
from tests.lab import Lab, LabRun, eventually
from tests.processes import Plant

KEY = "sk-never-for-others"
MORE_MB = 200
"""Megabytes by which the worker may grow; one answer that is sent at it would take a hundred."""


@pytest.fixture
async def hostile() -> AsyncIterator[HostileUpstream]:
    async with HostileUpstream().serving() as upstream:
        yield upstream


async def failure(lab: Lab, run: LabRun) -> str:
    """What the activity under way failed with last."""
    described = await run.handle.describe()
    for pending in described.raw_description.pending_activities:
        if pending.HasField("last_failure"):
            return str(await lab.client.data_converter.decode_failure(pending.last_failure))
    return ""


class Highest:
    """The most memory that a process had, in MB."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.at_first = self.mb = self._now()
        self._task = asyncio.create_task(self._watch())

    def _now(self) -> float:
        return float(self._process.memory_info().rss) / 1e6

    async def _watch(self) -> None:
        while True:
            self.mb = max(self.mb, self._now())
            await asyncio.sleep(0.05)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


def contains(words: str, text: str) -> bool:
    return words in text


async def attacked(
    hostile: HostileUpstream, lab: Lab, at: str, attacks: dict[str, tuple[Attack, str]]
) -> None:
    """Attack one run by each; see what they say, a sane one pass, and all end once it is over."""

    async def start(name: str) -> LabRun:
        run = await lab.start(thread_id=f"thread_{name}")
        await run.signal(("call_1", "ok"))
        return run

    for name, (attack, _) in attacks.items():
        hostile.attacks[f"thread_{name}"] = (at, attack)
    runs = dict(zip(attacks, await asyncio.gather(*map(start, attacks)), strict=True))
    for name, (_, words) in attacks.items():
        text = await eventually(partial(failure, lab, runs[name]), partial(contains, words))
        assert len(text) < 1_000, name
        assert KEY not in text

    assert (await (await start("sane")).result()).run.status == "completed"

    hostile.attacks.clear()
    results = await asyncio.gather(*(run.result() for run in runs.values()))
    assert [result.run.status for result in results] == ["completed"] * len(runs)
    for name in attacks:
        assert hostile.creates[f"thread_{name}"] == 1, name
        assert hostile.submits[f"thread_{name}"] == 1, name


EFFECTS = ("trickle", "flood", "bomb", "nested", "status_600", "cut_off")


@pytest.mark.parametrize(
    ("at", "names"), [("create", EFFECTS), ("leg", ATTACKS), ("submit", EFFECTS)]
)
async def test_whatever_the_upstream_answers(
    plant: Plant, hostile: HostileUpstream, at: str, names: Iterable[str]
) -> None:
    """A body without end, a hundred megabytes, bombs, nonsense: each run says what came, others go
    on, memory stays bounded, and once the upstream is sane nothing was lost or done twice.
    """
    worker = await plant.worker(
        RUNLANE_UPSTREAM_URL=hostile.url,
        RUNLANE_UPSTREAM_API_KEY=KEY,
        RUNLANE_UPSTREAM_TIMEOUT="3s",
    )
    highest = Highest(worker.pid)
    try:
        await attacked(hostile, plant.lab, at, {name: ATTACKS[name] for name in names})
    finally:
        await highest.end()

    assert highest.mb < highest.at_first + MORE_MB
    keys = {key for _, path, key in hostile.requests}
    assert keys == {f"bearer {KEY}"}
    assert not [path for _, path, _ in hostile.requests if "admin" in path]


async def test_a_redirect_is_not_followed(plant: Plant, hostile: HostileUpstream) -> None:
    """Neither request nor key reach the other host. A create is refused, naming the remedy; a run
    that exists waits until the redirect is gone.
    """
    async with HostileUpstream().serving() as other:
        await plant.worker(RUNLANE_UPSTREAM_URL=hostile.url, RUNLANE_UPSTREAM_API_KEY=KEY)
        attacks = {"redirect": (redirect(other.url + "/threads/t/runs"), "redirected")}
        hostile.attacks["thread_refused"] = ("create", attacks["redirect"][0])
        refused = await (await plant.lab.start(thread_id="thread_refused")).result()
        for at in ("leg", "submit"):
            hostile.creates.clear()
            hostile.submits.clear()
            await attacked(hostile, plant.lab, at, {f"redirect_{at}": attacks["redirect"]})
        assert other.requests == []

    assert refused.run.status == "failed"
    assert refused.run.last_error is not None
    assert "mend the base URL" in refused.run.last_error.message
