"""Events of a run whose upstream takes a week, on a server that skips time."""

import asyncio
import secrets

from activities.runs import RunActivities
from benchmarks.figures import Row, Target
from benchmarks.parts import Site
from benchmarks.upstream import new_thread
from runlane import requests
from runlane.ledger_access import open_ledger
from runlane.settings import Settings
from runsapi import Assistants
from tests.skipping import SkippingServer, chain, skipping_server
from worker import build_workers, shut_down
from workflows.contract import RunOptions, Timing
from workflows.run import RunWorkflow
from workflows.state import RunInput

MAX_EVENTS = 10_000
_STEP_HOURS = 6
_PATIENCE = 60.0

# Of attached polls nothing is skipped, so these begin as timers, which cost more events.
_TIMERS = RunOptions(timing=Timing(timer_from=0.4))


async def measure(site: Site, *, quick: bool) -> list[Row]:
    """Return the events of one leg that never ends."""
    hours, length = (_STEP_HOURS, "six hours") if quick else (7 * 24, "a week")
    site.progress.say(f"A leg of {length}, on a server that skips time")
    never_ends = [{"queued": 0, "ends": "never"}]
    assistant_id = await site.upstream.assistant(expires_after=0, rounds=never_ends)
    async with (
        skipping_server(site.data_dir) as server,
        Assistants(site.upstream.url) as upstream,
        await open_ledger(Settings(data_dir=site.data_dir)) as ledger,
    ):
        task_queue = f"week-{secrets.token_hex(4)}"
        activities = RunActivities(upstream, ledger)
        workers = build_workers(server.client, activities, ledger=ledger, task_queue=task_queue)
        serving = [asyncio.create_task(worker.run()) for worker in workers]
        try:
            events = await _events(site, server, task_queue, assistant_id, hours)
        finally:
            await shut_down(workers, serving)
    target = Target(f"under {MAX_EVENTS:,}", events < MAX_EVENTS)
    return [
        Row(subject="week", what=f"a leg of {length}", unit="events", runlane=events,
            target=target)
    ]  # fmt: skip


async def _events(
    site: Site, server: SkippingServer, task_queue: str, assistant_id: str, hours: int
) -> int:
    run_id, request = requests.asked(new_thread(), {"assistant_id": assistant_id})
    handle = await server.client.start_workflow(
        RunWorkflow.run,
        RunInput(request=request.model_copy(update={"options": _TIMERS})),
        id=run_id,
        task_queue=task_queue,
    )
    passed = 0
    with site.progress.watching(lambda: f"{passed / 24:g} days have passed"):
        while passed < hours:
            await server.sleep(_STEP_HOURS * 3600, patience=_PATIENCE)
            passed += _STEP_HOURS
    assert handle.first_execution_run_id is not None
    return sum(
        len(events) for events in await chain(server.client, run_id, handle.first_execution_run_id)
    )
