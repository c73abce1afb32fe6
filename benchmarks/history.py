"""Events and bytes of history that one run costs."""

import asyncio
from typing import NamedTuple

from benchmarks.figures import Row, Target
from benchmarks.parts import PlainWorker, RunlaneWorker, Site
from benchmarks.upstream import new_thread, one_round
from tests.histories import undisturbed

MAX_EVENTS = 40
_SECOND_LEG = 1.0
_ANSWER_AFTER = 2.0


class _Cost(NamedTuple):
    events: int
    bytes: int


async def measure(site: Site, *, quick: bool) -> list[Row]:
    """Return the cost of a run with one tool round, by the length of its first leg."""
    legs = (1.0,) if quick else (1.0, 5.0, 20.0, 60.0)
    site.progress.say(f"History of a run with one tool round, legs of {_list(legs)} s")
    with site.progress.watching(lambda: "waiting for the legs to end"):
        costs = await asyncio.gather(
            *(_cost(site, worker, leg) for leg in legs for worker in (site.runlane, site.plain))
        )
    rows = []
    for number, leg in enumerate(legs):
        ours, theirs = costs[2 * number], costs[2 * number + 1]
        target = Target(f"at most {MAX_EVENTS}", ours.events <= MAX_EVENTS)
        what = f"one tool round, a leg of {leg:g} s"
        rows += [
            Row(subject="history", what=what, unit="events", runlane=ours.events,
                workflow=theirs.events, target=target),
            Row(subject="history", what=what, unit="kB", runlane=ours.bytes / 1000,
                workflow=theirs.bytes / 1000),
        ]  # fmt: skip
    return rows


async def _cost(site: Site, worker: RunlaneWorker | PlainWorker, leg: float) -> _Cost:
    assistant_id = await site.upstream.assistant(rounds=one_round(leg, _SECOND_LEG))
    thread_id = new_thread()
    run_id = await worker.start(thread_id, assistant_id)
    call_id = await site.upstream.asked(thread_id)
    # As long as an external tool may take, and long enough for both to have noticed.
    await asyncio.sleep(_ANSWER_AFTER + leg / 20)
    await worker.answer(run_id, call_id)
    handle = worker.handle(run_id)
    await handle.result()
    history = await handle.fetch_history()
    description = (await handle.describe()).raw_description.workflow_execution_info
    # A worker without time for two seconds loses a task: the machine's doing, not the run's.
    return _Cost(len(undisturbed(list(history.events))), description.history_size_bytes)


def _list(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
