"""A worker is killed while it awaits the answer to a request that changes something upstream.

Each kill lands inside the await, for the upstream holds the request or its answer until told. The
upstream knows no idempotency key, so the next worker must find out what the request did. Several
runs die together where they differ only in what becomes of their request.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab import Lab, LabRun, eventually
from tests.processes import Plant

ASKS: dict[str, Any] = {
    "queued": 0.05,
    "in_progress": 0.1,
    "calls": [{"name": "lookup_order", "arguments": {"order_id": "A-1042"}}],
}
WORKS_ON: dict[str, Any] = {"queued": 0.05, "in_progress": 600}

CREATE, SUBMIT = "runs.create", "runs.submit_tool_outputs"


@dataclass
class _Held:
    """A run of which the upstream holds a request or an answer."""

    lab: Lab
    run: LabRun
    fault: str

    async def release(self, *, answer: bool = True) -> None:
        """Let it go, and wait until it is gone."""
        await self.lab.release(self.fault, answer=answer)
        await eventually(
            lambda: asyncio.to_thread(self.lab.simulator.fault_state, self.fault),
            lambda state: state["waiting"] == 0,
        )

    async def until_accepted(self, operation: str) -> None:
        await eventually(lambda: self.lab.accepted(operation), lambda accepted: accepted == 1)

    async def completes_once(self) -> None:
        """Wait for the end, and hold that the upstream took one create and one submit."""
        result = await self.run.result()

        assert "completed" == result.run.status
        assert ["submitted"] == [answer.outcome for answer in result.runlane.answers]
        assert 1 == result.runlane.attempt
        assert 1 == await self.lab.accepted(CREATE)
        assert 1 == await self.lab.accepted(SUBMIT)


async def _held(plant: Plant, operation: str, kind: str) -> _Held:
    """Start a run with one tool round, and wait until the upstream holds its create or submit."""
    lab = plant.another_lab()
    await lab.scenario(rounds=[ASKS])
    fault = await lab.fault(operation, kind)
    run = await lab.start()
    if operation == SUBMIT:
        await run.answer_all()
    await lab.held(fault)
    return _Held(lab, run, fault)


async def test_create_sent(plant: Plant) -> None:
    """A create that was on its way when its worker died brings one upstream run into being.

    Whether it is lost, takes effect before the next worker looks, or after it has created anew.
    """
    first = await plant.worker()
    lost, early, late = all_held = [await _held(plant, CREATE, "hold_before") for _ in range(3)]
    await plant.worker()

    died_at = await first.kill()
    await lost.release(answer=False)
    await early.release()
    await asyncio.gather(*(plant.goes_on(died_at, held.lab) for held in all_held))
    await late.until_accepted(CREATE)
    await late.release()

    await asyncio.gather(*(held.run.answer_all() for held in all_held))
    await asyncio.gather(*(held.completes_once() for held in all_held))
    assert [2, 1, 2] == [await held.lab.received(CREATE) for held in all_held]


async def test_create_answered_but_not_recorded(plant: Plant) -> None:
    """An upstream run of which Temporal never heard is found and kept.

    Whether its answer never left the upstream, or stood unread in the dead worker's socket.
    """
    first = await plant.worker()
    withheld, unread = both = [await _held(plant, CREATE, "hold_after") for _ in range(2)]
    await plant.worker()

    first.pause()
    await unread.release()
    died_at = await first.kill()
    await asyncio.gather(*(plant.goes_on(died_at, held.lab) for held in both))

    await asyncio.gather(*(held.run.answer_all() for held in both))
    await asyncio.gather(*(held.completes_once() for held in both))
    assert [1, 1] == [await held.lab.received(CREATE) for held in (withheld, unread)]


async def test_submit_sent(plant: Plant) -> None:
    """Outputs that were on their way when their worker died are taken once.

    Whether they are lost, arrive before the next worker looks, or after it has sent them anew.
    """
    first = await plant.worker()
    lost, early, late = all_held = [await _held(plant, SUBMIT, "hold_before") for _ in range(3)]
    await plant.worker()

    died_at = await first.kill()
    await lost.release(answer=False)
    await early.release()
    await asyncio.gather(*(plant.goes_on(died_at, held.lab) for held in all_held))
    await late.until_accepted(SUBMIT)
    await late.release()

    await asyncio.gather(*(held.completes_once() for held in all_held))
    assert [2, 1, 2] == [await held.lab.received(SUBMIT) for held in all_held]


async def test_submit_answered_but_not_recorded(plant: Plant) -> None:
    """Outputs that were taken, while Temporal never heard of it, are not sent again.

    Whether the answer never left the upstream, or stood unread in the dead worker's socket.
    """
    first = await plant.worker()
    withheld, unread = both = [await _held(plant, SUBMIT, "hold_after") for _ in range(2)]
    await plant.worker()

    first.pause()
    await unread.release()
    died_at = await first.kill()
    await asyncio.gather(*(plant.goes_on(died_at, held.lab) for held in both))

    await asyncio.gather(*(held.completes_once() for held in both))
    assert [1, 1] == [await held.lab.received(SUBMIT) for held in (withheld, unread)]


async def test_answered_in_the_moment_of_the_kill(plant: Plant) -> None:
    """Whether or not the worker still recorded an answer, nothing is done twice."""
    first = await plant.worker()
    creates = [await _held(plant, CREATE, "hold_after") for _ in range(3)]
    submits = [await _held(plant, SUBMIT, "hold_after") for _ in range(3)]
    await plant.worker()

    await asyncio.gather(*(held.release() for held in (*creates, *submits)), first.kill())

    await asyncio.gather(*(held.run.answer_all() for held in creates))
    await asyncio.gather(*(held.completes_once() for held in (*creates, *submits)))
    assert {1} == {await held.lab.received(CREATE) for held in creates}
    assert {1} == {await held.lab.received(SUBMIT) for held in submits}


async def test_cancelling(plant: Plant) -> None:
    """A run ends cancelled, with one cancel upstream, wherever the kill hit its cancelling.

    With the cancel sent and lost, sent and taken after the kill, answered but not recorded, or
    while its effect was awaited.
    """

    async def cancelling(kind: str) -> _Held:
        lab = plant.another_lab()
        await lab.scenario(rounds=[WORKS_ON])
        run = await lab.start()
        await eventually(lambda: lab.received("runs.retrieve"), bool)
        fault = await lab.fault("runs.cancel", kind)
        await run.cancel()
        await lab.held(fault)
        return _Held(lab, run, fault)

    async def cancelled() -> _Held:
        lab = plant.another_lab()
        await lab.scenario(rounds=[WORKS_ON])
        fault = await lab.fault("runs.retrieve", "hold_before", times=0)
        run = await lab.start()
        await lab.held(fault)
        await run.cancel()
        # The first poll is given up; the second is the one that awaits the cancel's effect.
        await asyncio.to_thread(lambda: lab.simulator.wait_held(fault, waiting=2))
        return _Held(lab, run, fault)

    first = await plant.worker()
    lost, late, _, awaits = all_held = [
        await cancelling("hold_before"),
        await cancelling("hold_before"),
        await cancelling("hold_after"),
        await cancelled(),
    ]
    await plant.worker()

    died_at = await first.kill()
    await lost.release(answer=False)
    await late.release()
    await asyncio.to_thread(awaits.lab.simulator.remove_fault, awaits.fault)
    await asyncio.gather(*(plant.goes_on(died_at, held.lab) for held in all_held))

    for held in all_held:
        result = await held.run.result()
        assert "cancelled" == result.run.status
        assert result.runlane.uncertain is None
        assert 1 == await held.lab.accepted(CREATE)
        assert 1 == await held.lab.accepted("runs.cancel")
    # A second cancel is refused, so it needs no look before it.
    assert [2, 2, 2, 1] == [await held.lab.received("runs.cancel") for held in all_held]


async def test_cancelled_while_its_create_was_on_its_way(plant: Plant) -> None:
    """A create under way when the run is cancelled and the worker dies leaves nothing alive.

    If the upstream took it, that run is found and cancelled; if not, none is created any more.
    """
    first = await plant.worker()
    lost, taken = both = [await _held(plant, CREATE, "hold_before") for _ in range(2)]
    for held in both:
        await held.run.cancel()
    await plant.worker()

    died_at = await first.kill()
    await lost.release(answer=False)
    await taken.release()
    await asyncio.gather(*(plant.goes_on(died_at, held.lab) for held in both))

    for held in both:
        result = await held.run.result()
        assert "cancelled" == result.run.status
        assert result.runlane.uncertain is None
    assert [0, 1] == [await held.lab.accepted(CREATE) for held in (lost, taken)]
    assert [0, 1] == [await held.lab.accepted("runs.cancel") for held in (lost, taken)]


async def test_killed_twice_in_a_row(plant: Plant) -> None:
    """The worker that takes over may die over it too: the third one goes on."""
    first = await plant.worker()
    created, submitted = both = [
        await _held(plant, CREATE, "hold_after"),
        await _held(plant, SUBMIT, "hold_after"),
    ]
    looks = [
        await created.lab.fault("runs.list", "hold_before"),
        await submitted.lab.fault("runs.retrieve", "hold_before"),
    ]
    second = await plant.worker()
    died_at = await first.kill()
    await asyncio.gather(*(plant.goes_on(died_at, held.lab) for held in both))
    for held, look in zip(both, looks, strict=True):
        await held.lab.held(look)

    await plant.worker()
    died_at = await second.kill()
    await asyncio.gather(*(plant.goes_on(died_at, held.lab) for held in both))

    await created.run.answer_all()
    await asyncio.gather(*(held.completes_once() for held in both))
    assert 1 == await created.lab.received(CREATE)
    assert 1 == await submitted.lab.received(SUBMIT)


@pytest.mark.timeout(240)
async def test_a_worker_that_was_only_slow(plant: Plant) -> None:
    """A worker that comes back after it was given up changes nothing any more.

    Its polls for tasks stay open meanwhile, for a minute, and a task given to them is lost for
    another timeout; so this one takes longer than a death.
    """
    first = await plant.worker()
    created, submitted = both = [
        await _held(plant, CREATE, "hold_after"),
        await _held(plant, SUBMIT, "hold_after"),
    ]
    await plant.worker()

    first.pause()
    stopped_at = time.time()
    await asyncio.gather(*(held.release() for held in both))
    await asyncio.gather(*(plant.goes_on(stopped_at, held.lab, within=90) for held in both))
    first.resume()

    await created.run.answer_all()
    await asyncio.gather(*(held.completes_once() for held in both))
    assert 1 == await created.lab.received(CREATE)
    assert 1 == await submitted.lab.received(SUBMIT)
