"""Runs that Temporal ended past Runlane: how they are shown, and what becomes of what they left."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from temporalio import workflow
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from runlane import Runlane, orphans, search_attributes
from runlane.doctor import Finding
from runlane.doctor.orphans import check_orphans
from runlane.settings import Settings
from runsapi import Assistants
from tests.lab import Lab, LabRun, eventually
from tests.outsider import Outsider
from tests.resetting import reset
from workflows.contract import WORKFLOW

ENDLESS = {"queued": 0.0, "ends": "never"}
ASK = {"queued": 0.0, "in_progress": 0.0, "calls": [{"name": "pay"}]}
LAST = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}


@workflow.defn(name=WORKFLOW)
class Buggy:
    """A `Run` of a version that has a bug."""

    @workflow.run
    async def run(self) -> None:
        raise ApplicationError("a bug", non_retryable=True)


def settings(lab: Lab, **fields: Any) -> Settings:
    """Return what somebody who calls the doctor has set."""
    return Settings(**{"task_queue": lab.task_queue, "upstream_url": lab.simulator.url} | fields)


async def findings(lab: Lab, run_id: str, **fields: Any) -> list[Finding]:
    """Return what the doctor finds about a run; other tests' runs are left out."""
    found = [each async for each in check_orphans(lab.client, settings(lab, **fields))]
    return [each for each in found if run_id in each.message]


async def orphan(lab: Lab, run_id: str) -> Finding:
    """Wait until the doctor finds what is left of a run, and return it."""
    (found,) = await eventually(lambda: findings(lab, run_id), bool)
    return found


async def alive(lab: Lab, outsider: Outsider, **scenario: Any) -> LabRun:
    """Return a run whose upstream run lives, and never ends by itself."""
    await lab.scenario(rounds=[scenario or ENDLESS, LAST])
    run = await lab.start()
    await run.until(lambda view: view.runlane.upstream_run_id is not None)
    return run


async def statuses(outsider: Outsider) -> list[str]:
    return [run["status"] for run in outsider.runs()]


async def start_plainly(lab: Lab, run_id: str, **options: Any) -> WorkflowHandle[Any, Any]:
    """Start a workflow as Temporal's own command line would."""
    return await lab.client.start_workflow(
        WORKFLOW,
        id=run_id,
        task_queue=f"{lab.task_queue}-plain",
        search_attributes=TypedSearchAttributes(
            [
                SearchAttributePair(search_attributes.STATUS, "in_progress"),
                SearchAttributePair(search_attributes.THREAD, lab.thread_id),
            ]
        ),
        **options,
    )


async def test_what_a_terminated_run_left_is_found_and_cancelled(
    lab: Lab, outsider: Outsider
) -> None:
    """The upstream run is named with its run; fixed, it is cancelled, and found no more."""
    run = await alive(lab, outsider)
    (upstream,) = outsider.runs()
    assert await findings(lab, run.id) == []
    await run.handle.terminate("by hand")

    found = await orphan(lab, run.id)

    assert found.level == "problem"
    assert "terminated in Temporal" in found.message
    assert upstream["id"] in found.message
    assert "runlane doctor --fix" in found.remedy
    assert await statuses(outsider) == ["in_progress"]
    assert found.fix is not None
    assert await found.fix.apply() in ("cancelling", "cancelled")
    await eventually(lambda: statuses(outsider), lambda now: now == ["cancelled"])
    assert await findings(lab, run.id) == []
    # Twice is as good as once: the second time there is nothing to cancel.
    assert await found.fix.apply() == "cancelled"
    assert await lab.accepted("runs.cancel") == 1


@pytest.mark.parametrize("how", ["timed out", "failed"])
async def test_what_other_ends_left_is_found_by_the_stamp_alone(
    lab: Lab, outsider: Outsider, how: str
) -> None:
    """A run that timed out or failed by a bug, of whose create its history knows nothing."""
    await lab.scenario(rounds=[ENDLESS])
    run_id = f"run_{lab.thread_id}"
    stamps = {"runlane_run_id": run_id, "runlane_attempt": "1"}
    upstream_run_id = outsider.create(lab.assistant_id, metadata=stamps)
    if how == "failed":
        async with Worker(
            lab.client,
            task_queue=f"{lab.task_queue}-plain",
            workflows=[Buggy],
            workflow_runner=UnsandboxedWorkflowRunner(),
        ):
            handle = await start_plainly(lab, run_id)
            await eventually(
                lambda: status_of(handle), lambda now: now is WorkflowExecutionStatus.FAILED
            )
    else:
        handle = await start_plainly(lab, run_id, execution_timeout=timedelta(seconds=1))
        await eventually(
            lambda: status_of(handle), lambda now: now is WorkflowExecutionStatus.TIMED_OUT
        )

    found = await orphan(lab, run_id)

    assert f"{run_id} was {how} in Temporal" in found.message
    assert upstream_run_id in found.message
    assert found.fix is not None
    await found.fix.apply()
    await eventually(lambda: statuses(outsider), lambda now: now == ["cancelled"])


async def status_of(handle: WorkflowHandle[Any, Any]) -> WorkflowExecutionStatus | None:
    return (await handle.describe()).status


async def test_a_run_that_was_begun_anew_keeps_its_upstream_run(
    lab: Lab, outsider: Outsider
) -> None:
    """Reset between the finding and its fix: the successor drives the upstream run, which is left
    alone; and the doctor, called again, finds nothing.
    """
    run = await alive(lab, outsider, **ASK)
    await run.handle.terminate("by hand")
    found = await orphan(lab, run.id)

    successor = await reset(lab, run)

    assert found.fix is not None
    assert await found.fix.apply() == "left alone: the run lives again"
    assert await findings(lab, run.id) == []
    await successor.answer_all()
    assert (await successor.result()).run.status == "completed"
    assert await lab.received("runs.cancel") == 0
    assert await lab.accepted("runs.create") == 1


async def test_an_upstream_of_another_url_is_not_touched(lab: Lab, outsider: Outsider) -> None:
    """It may be another service altogether: what to set is said, and nobody is asked."""
    run = await alive(lab, outsider)
    await run.handle.terminate("by hand")
    await orphan(lab, run.id)
    before = await lab.received("runs.list")

    elsewhere = lab.simulator.url.replace("/v1", "/openai/v1")
    (found,) = await findings(lab, run.id, upstream_url=elsewhere)

    assert found.level == "note"
    assert found.fix is None
    assert f"RUNLANE_UPSTREAM_URL={lab.simulator.url}" in found.remedy
    assert await lab.received("runs.list") == before


async def test_what_is_left_is_found_where_the_oldest_are_listed_first(
    lab: Lab, outsider: Outsider
) -> None:
    """An upstream needn't heed the order that is asked for: an old run in front hides nothing."""

    async def oldest_first(request: httpx.Request) -> None:
        request.url = request.url.copy_with(query=request.url.query.replace(b"=desc", b"=asc"))

    theirs = outsider.create(lab.assistant_id)
    outsider.force(theirs, "completed", created_at=int(time.time()) - 3600)
    run = await alive(lab, outsider)
    await run.handle.terminate("by hand")
    await orphan(lab, run.id)
    ended = [each async for each in orphans.ended(lab.client)]
    abandoned = next(each for each in ended if each.run_id == run.id)

    hooks = {"request": [oldest_first]}
    async with (
        httpx.AsyncClient(event_hooks=hooks) as http,
        Assistants(lab.simulator.url, http_client=http) as upstream,
    ):
        found = await orphans.alive(upstream, abandoned)

    assert [each.id for each in found] == [outsider.runs()[-1]["id"]]


@pytest.mark.parametrize(
    "foreign",
    [
        lambda run: {"created_at": run["created_at"] + 3_600},
        lambda run: {"status": "completed"},
    ],
    ids=["another namespace's", "ended"],
)
async def test_what_is_not_left_by_the_run_is_left_alone(
    lab: Lab, outsider: Outsider, foreign: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """An upstream run from after the run's end has another driver, whatever its stamp says."""
    run = await alive(lab, outsider)
    await run.handle.terminate("by hand")
    found = await orphan(lab, run.id)
    (upstream,) = outsider.runs()

    fields = foreign(upstream)
    outsider.force(upstream["id"], fields.pop("status", None), **fields)

    assert await findings(lab, run.id) == []
    if upstream["status"] != "completed" and "created_at" not in foreign(upstream):
        assert found.fix is not None
        assert await found.fix.apply() == "completed"
    assert await lab.received("runs.cancel") == 0


async def test_lists_show_what_temporal_ended_and_each_run_once(
    lab: Lab, outsider: Outsider
) -> None:
    """A terminated run is failed, and says so; begun anew it is one row, as it is now."""
    runlane = Runlane(lab.client, settings(lab))
    run = await alive(lab, outsider, **ASK)

    async def rows(status: str | None = None) -> list[tuple[str, str | None]]:
        page = await runlane.runs.list(lab.thread_id, status=status)
        return [(str(view.run.status), view.runlane.uncertain) for view in page.views]

    await run.handle.terminate("by hand")
    ((status, why),) = await eventually(rows, lambda found: [r[0] for r in found] == ["failed"])
    assert status == "failed"
    assert why is not None
    assert "terminated in Temporal" in why

    successor = await reset(lab, run)
    await successor.until_status("requires_action")
    await eventually(rows, lambda found: found == [("requires_action", None)])
    assert await rows("failed") == []
    await successor.answer_all()
    await successor.result()
