"""The worker: settings, connections, activities, and the two Temporal workers that use them.

`runlane worker` is this module run as a program. Several workers may run at once: they share the
load, and when one dies the others take over what it held.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import NoReturn

from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import Worker, WorkerDeploymentConfig

from activities.batch import BatchActivities
from activities.decision import NoKeys, Verifier
from activities.decisions import DecisionActivities
from activities.notify import NotifyActivities
from activities.runs import RunActivities
from activities.schedule import ScheduleActivities
from activities.scheduled_batches import ScheduledBatchActivities
from activities.tool_calls import ToolActivities
from activities.tools import Toolbox
from ledger import Ledger
from ledger.retention import Retention
from runlane import key_check, search_attributes, upkeep
from runlane.batches.intake import StoredIntake
from runlane.decisions import keys
from runlane.errors import ExitCode, InvalidRequest, RunlaneError
from runlane.leaving import leave
from runlane.ledger_access import open_ledger
from runlane.monitoring import logs, metrics
from runlane.monitoring.monitor import Monitor
from runlane.monitoring.subject import ActivitySubjects
from runlane.promoting import PromotedRuns
from runlane.recording import Recorder
from runlane.recovery import Recovery
from runlane.search_attributes import SearchAttributesMissing
from runlane.settings import LogFormat, Settings, SettingsError
from runlane.temporal import connect, find_data_dir
from runlane.tools import loading
from runlane.tools.toolbox import RegisteredTools
from runlane.upstream import open_upstream
from runlane.webhooks import receivers
from workflows.batch import BatchWorkflow
from workflows.left_notices import NoticesWorkflow
from workflows.run import RunWorkflow
from workflows.scheduled import ScheduledWorkflow
from workflows.scheduled_batch import ScheduledBatchWorkflow
from workflows.task_queues import (
    batch_task_queue,
    notify_task_queue,
    poll_task_queue,
    tools_task_queue,
)

WORKFLOWS: Sequence[type] = (
    RunWorkflow, NoticesWorkflow, BatchWorkflow, ScheduledWorkflow, ScheduledBatchWorkflow,
)  # fmt: skip

MAX_EFFECTS = 1000
"""Creates, submits, cancels and updates that one worker runs at a time, and checks of calls and
decisions: so many that a slow upstream doesn't fill them. How much it is asked at once is limited
in its client."""
MAX_POLLS = 600
"""Attached polls that one worker holds at a time; they have a queue and slots of their own."""
MAX_TOOLS = 200
"""Calls of tools that one worker runs at a time, each in a thread of its own."""
MAX_NOTICES = 20
"""Notices that one worker sends at a time; those to a receiver that hangs wait for each other."""
MAX_LANES = 16
"""Lanes of batches that one worker drives at a time; each holds as many requests as its window."""
MAX_CACHED_WORKFLOWS = 600
"""Runs that one worker keeps in memory, 0.2 MB each; one beyond them is replayed when it goes on.
As many as can have an attached poll."""
GRACE = timedelta(seconds=15)
"""How long a worker that is told to stop waits for effects; attached polls hand over at once."""

MARGIN = timedelta(seconds=5)
"""How much longer than that the whole end may take."""

_logger = logging.getLogger("runlane.worker")


def build_workers(
    client: Client,
    activities: RunActivities,
    *,
    ledger: Ledger,
    task_queue: str,
    tools: Toolbox | None = None,
    verifier: Verifier | None = None,
    notify: NotifyActivities | None = None,
    batches: BatchActivities | None = None,
    schedules: ScheduleActivities | None = None,
    max_cached_workflows: int = MAX_CACHED_WORKFLOWS,
    deployment: WorkerDeploymentConfig | None = None,
) -> list[Worker]:
    """Return the workers of one process: one for workflows and effects, others beside it.

    Those have a queue and slots of their own, so that what waits in one holds up no other. All are
    of one version of one deployment, if of any: Temporal finds an activity's worker by the version
    that its workflow is on.

    Args:
        client: The connection.
        activities: Effects and polls.
        ledger: Open for as long as they run.
        task_queue: Of workflows and effects; the others' names begin with it.
        tools: Of this process; none leaves each call to the caller.
        verifier: Knows the keys of decisions; without one none counts.
        notify: None where this process has no webhooks: it leaves notices to those that have.
        batches: None where this process drives none.
        schedules: None where it starts none.
        max_cached_workflows: Runs kept in memory.
        deployment: For versioned workers.
    """
    verifier = verifier or NoKeys()
    calls = ToolActivities(ledger, tools, verifier)
    decisions = DecisionActivities(ledger, verifier, tools)
    effects: list[Callable[..., Awaitable[object]]] = [
        activities.create,
        activities.submit_tool_outputs,
        activities.cancel,
        activities.update,
        # Not in the slots of tools, which may hold them for hours; policies end within seconds.
        calls.classify,
        decisions.verify,
        decisions.lapse,
    ]

    if batches is not None:
        effects += [batches.check, batches.look, batches.record]
    if schedules is not None:
        effects += [schedules.thread, ScheduledBatchActivities(ledger).begin]

    def beside(
        queue: str,
        slots: int,
        *activities: Callable[..., Awaitable[object]],
        grace: timedelta = GRACE,
    ) -> Worker:
        return Worker(
            client,
            task_queue=queue,
            activities=activities,
            max_concurrent_activities=slots,
            interceptors=[ActivitySubjects()],
            graceful_shutdown_timeout=grace,
            max_heartbeat_throttle_interval=timedelta(seconds=1),
            default_heartbeat_throttle_interval=timedelta(seconds=1),
            deployment_config=deployment,
        )

    workers = [
        Worker(
            client,
            task_queue=task_queue,
            workflows=WORKFLOWS,
            activities=effects,
            max_cached_workflows=max_cached_workflows,
            # New runs come over the queue that all workers share, as does what a worker that is
            # behind didn't take in time. With one poll of five there, both waited for minutes.
            max_concurrent_workflow_task_polls=10,
            nonsticky_to_sticky_poll_ratio=0.5,
            max_concurrent_activities=MAX_EFFECTS,
            interceptors=[ActivitySubjects()],
            graceful_shutdown_timeout=GRACE,
            # A run stands still that long after its worker was killed (10 s by default). With 2 s,
            # runs of a worker that is behind are replayed, which puts it further behind.
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=5),
            max_heartbeat_throttle_interval=timedelta(seconds=1),
            default_heartbeat_throttle_interval=timedelta(seconds=1),
            deployment_config=deployment,
        ),
        beside(poll_task_queue(task_queue), MAX_POLLS, activities.retrieve),
        beside(tools_task_queue(task_queue), MAX_TOOLS, calls.call),
    ]
    if batches is not None:
        workers.append(beside(batch_task_queue(task_queue), MAX_LANES, batches.lane))
    if notify is not None:
        # One to a receiver that hangs is sent by another worker.
        grace = timedelta(seconds=1)
        queue = notify_task_queue(task_queue)
        workers.append(beside(queue, MAX_NOTICES, notify.send, grace=grace))
    return workers


def deployment(settings: Settings) -> WorkerDeploymentConfig | None:
    """Return the version as which Temporal is to know this worker, if it is versioned.

    A run lives for up to 90 days, so it isn't pinned to the version that began it: it goes on
    with whichever is current, as it does with workers that have no version.
    """
    if settings.deployment_name is None or settings.build_id is None:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(settings.deployment_name, settings.build_id),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
    )


async def run(
    settings: Settings, stop: asyncio.Event, ready: Callable[[Client, Monitor, list[str]], None]
) -> bool:
    """Work until `stop` is set; then hand polls over, let effects end, and tell whether all did.

    Args:
        settings: Where the upstream is, and which task queue to serve.
        stop: Set it to shut down.
        ready: Called with the names of the tools once runs are served.

    Raises:
        InvalidRequest: No upstream is named.
        InvalidTool: A tool that the settings name can't be loaded.
        TemporalUnreachable: Temporal doesn't answer.
        SearchAttributesMissing: The namespace lacks them and we may not register them.
        CannotDecrypt: A run of the queue is encrypted with a key that this process hasn't got.
        LedgerUnreachable: The ledger doesn't answer.
        LedgerUnusable: The ledger is a newer Runlane's.
    """
    webhooks = receivers(settings)
    tools = RegisteredTools(loading.load(settings), notifies=bool(webhooks))
    async with (
        open_upstream(settings, on_exchange=metrics.count_exchange) as upstream,
        Monitor(settings.metrics_address) as monitor,
        AsyncExitStack() as stack,
    ):
        client = await connect(settings)
        if not await search_attributes.registered(client):
            await search_attributes.register(client)
        await key_check.check(client, settings.task_queue)
        data_dir = settings.data_dir or await find_data_dir(client)
        signer = upkeep.find_signer(settings, data_dir)
        ledger = await open_ledger(settings, client)
        stack.push_async_callback(ledger.close)
        activities = RunActivities(upstream, ledger)
        workers = build_workers(
            client,
            activities,
            ledger=ledger,
            task_queue=settings.task_queue,
            tools=tools,
            verifier=keys.verifier(settings, data_dir),
            notify=NotifyActivities(webhooks) if webhooks else None,
            batches=BatchActivities(
                upstream,
                ledger,
                PromotedRuns(client, ledger, settings.task_queue),
                StoredIntake(ledger),
            ),
            schedules=ScheduleActivities(upstream),
            deployment=deployment(settings),
        )
        serving = [asyncio.create_task(worker.run()) for worker in workers]
        recovery = Recovery(
            client,
            upstream,
            task_queue=settings.task_queue,
            key_file=settings.upstream_api_key_file,
        )
        retention = Retention(**dict(settings.retention_days))
        watchers = [
            recovery.run(),
            Recorder(client, ledger, task_queue=settings.task_queue).run(),
            upkeep.Upkeep(
                ledger, signer, directory=settings.checkpoint_directory, retention=retention
            ).run(),
        ]
        watching = [asyncio.create_task(watcher) for watcher in watchers]
        monitor.watch(client, ledger, workers)
        stopping = asyncio.create_task(stop.wait())
        ready(client, monitor, tools.names)
        # A worker that ends by itself has failed: end the process, so that somebody starts it anew.
        await asyncio.wait([*serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        monitor.end()
        stopping.cancel()
        for task in watching:
            task.cancel()
        in_time = await shut_down(workers, serving)
        activities.close()
        stack.pop_all()
        return await _closed(ledger) and in_time


async def _closed(ledger: Ledger) -> bool:
    """Close the ledger, and tell whether it did in time: a database may be frozen."""
    closing = asyncio.ensure_future(ledger.close())
    done, _ = await asyncio.wait([closing], timeout=MARGIN.total_seconds())
    if not done:
        _logger.warning("The ledger didn't close in time; leaving it", extra={"action": "left"})
        return False
    closing.result()
    return True


async def shut_down(workers: Sequence[Worker], serving: Sequence[asyncio.Task[None]]) -> bool:
    """Shut workers down, and tell whether they ended in time.

    One that doesn't end can be left: what it holds is given to others once its heartbeats fail
    to come. Temporal's SDK was seen to wait for ever for a poll whose run had just ended.
    """
    closing = asyncio.gather(*(worker.shutdown() for worker in workers), *serving)
    done, _ = await asyncio.wait([closing], timeout=(GRACE + MARGIN).total_seconds())
    if not done:
        _logger.warning("Workers didn't end in time; leaving them", extra={"action": "left"})
        return False
    closing.result()
    return True


async def _serve(settings: Settings, *, as_json: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    def ready(client: Client, monitor: Monitor, tools: list[str]) -> None:
        facts = {
            "pid": os.getpid(),
            "temporal": client.service_client.config.target_host,
            "namespace": client.namespace,
            "task_queue": settings.task_queue,
            "upstream": settings.upstream_url,
            "metrics": monitor.url,
            "tools": tools,
        }
        if as_json:
            sys.stdout.write(json.dumps(facts) + "\n")
        elif settings.log_format is LogFormat.JSON:
            _logger.info("The worker serves its queue", extra=facts)
        else:
            sys.stdout.write(
                "Worker {pid} serves queue {task_queue} of {namespace} at {temporal}; "
                "runs are executed by {upstream}. Stop it with Ctrl-C.\n".format(**facts)
            )
            if tools:
                sys.stdout.write(f"Its tools: {', '.join(tools)}.\n")
            if monitor.url is not None:
                sys.stdout.write(f"Metrics and health are at {monitor.url}.\n")
        sys.stdout.flush()

    if not await run(settings, stop, ready):
        # Leaving the event loop would wait for what doesn't end.
        leave(ExitCode.DONE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker until SIGINT or SIGTERM; return the exit code of the command line."""
    parser = argparse.ArgumentParser(prog="runlane worker", description="Serve runs.")
    parser.add_argument("--json", action="store_true", help="print one JSON document when ready")
    arguments = parser.parse_args(argv)
    try:
        settings = Settings.from_env()
        logs.set_up(settings.log_format)
        asyncio.run(_serve(settings, as_json=arguments.json))
    except RunlaneError as error:
        return _fail(error, as_json=arguments.json)
    except SettingsError as error:
        return _fail(InvalidRequest(str(error), param=error.variable), as_json=arguments.json)
    except SearchAttributesMissing as error:
        return _fail(RunlaneError(str(error), code="search_attributes"), as_json=arguments.json)
    return ExitCode.DONE


def _fail(error: RunlaneError, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps(error.as_json()) + "\n")
    elif logs.are_json():
        _logger.error(error.message, extra={"error": error.code or error.type})
    else:
        sys.stderr.write(f"Error: {error.message}\n")
    return error.exit_code


def program() -> NoReturn:
    """Be the program `runlane-worker`, or `python -m worker`."""
    leave(main())


if __name__ == "__main__":
    program()
