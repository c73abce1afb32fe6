"""Creating an upstream run exactly once, over an API that has no idempotency key."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetActivityRequest
from temporalio.client import Client

from activities import stamps
from runlane import Runlane
from runlane.settings import Settings
from runlane.temporal import failure_message
from tests.lab import QUICK, Lab, LabRun, eventually
from tests.outsider import Outsider
from tests.simulator_process import SimulatorProcess
from workflows.contract import MetadataUpdate, derive_run_id
from workflows.run import RunWorkflow

QUOTA_WORDS = "You exceeded your current quota"
ONE_CALL = [{"queued": 0.05, "in_progress": 0.05, "calls": [{"name": "ask"}]}]
NO_CALL = [{"queued": 0.05, "in_progress": 0.05, "says": "Done."}]


async def pending(run: LabRun) -> str:
    """Return what the latest failure of the activity under way says."""
    described = await run.handle.describe()
    activities = described.raw_description.pending_activities
    if not activities or not activities[0].HasField("last_failure"):
        return ""
    return await failure_message(described.data_converter, activities[0].last_failure)


async def test_a_create_whose_answer_is_lost_is_adopted(lab: Lab, outsider: Outsider) -> None:
    """The upstream run that an unanswered create made is found by its stamp; no second is made."""
    await lab.scenario(rounds=NO_CALL)
    await lab.fault("runs.create", "lost_answer")
    run = await lab.start(params={"metadata": {"ticket": "7"}})

    result = await run.result()

    assert result.run.status == "completed"
    assert await lab.received("runs.create") == 1
    (upstream,) = outsider.runs()
    assert result.runlane.upstream_run_id == upstream["id"]
    assert upstream["metadata"] == {
        "ticket": "7",
        "runlane_run_id": run.id,
        "runlane_attempt": "1",
    }


async def test_a_run_that_ended_while_the_upstream_was_away_is_adopted(
    lab: Lab, outsider: Outsider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time spent retrying counts as ours: a run made by the first try is never too old.

    When it has ended, no thread lock is left to stop a second create.
    """
    # Two minutes' outage in little: without slack, any second that isn't counted tells.
    monkeypatch.setattr(stamps, "_CLOCK_SLACK", 1.0)
    await lab.scenario(rounds=NO_CALL)
    await lab.fault("runs.create", "lost_answer")
    await lab.fault("runs.list", "server_error", times=2)
    run = await lab.start()

    result = await run.result()

    assert result.run.status == "completed"
    assert await lab.accepted("runs.create") == 1
    assert len(outsider.runs()) == 1


@pytest.mark.parametrize("kind", ["garbage", "error_after"])
async def test_a_create_answered_with_nonsense_is_adopted(lab: Lab, kind: str) -> None:
    """A gateway's page or a 500 tells nothing of what the upstream did: it is looked for."""
    await lab.scenario(rounds=NO_CALL)
    await lab.fault("runs.create", kind)
    run = await lab.start()

    result = await run.result()

    assert result.run.status == "completed"
    assert await lab.received("runs.create") == 1


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("server_error", {"times": 3}),
        ("rate_limit", {"times": 3}),
        ("reset", {"times": 2}),
        ("status", {"status": 408}),
        ("status", {"status": 409}),
        ("status", {"status": 400, "headers": {"x-should-retry": "true"}}),
        (
            "status",
            {"status": 400, "body": {"error": {"message": "busy", "code": "conversation_locked"}}},
        ),
    ],
    ids=["500s", "429s", "resets", "408", "409", "400 told to retry", "conversation_locked"],
)
async def test_what_may_pass_is_tried_again(lab: Lab, kind: str, fields: dict[str, Any]) -> None:
    """A refusal that may pass, by its status, its code or the server's word, is waited out."""
    await lab.scenario(rounds=NO_CALL)
    await lab.fault("runs.create", kind, **fields)
    run = await lab.start()

    result = await run.result()

    assert result.run.status == "completed"
    assert await lab.received("runs.create") == fields.get("times", 1) + 1
    assert await lab.accepted("runs.create") == 1


@pytest.mark.parametrize("form", ["seconds", "milliseconds", "date", "half garbage"])
async def test_no_request_comes_before_the_server_wants_one(
    lab: Lab, outsider: Outsider, form: str
) -> None:
    """`retry-after` holds in all its forms, though our own first retry would come sooner."""
    await lab.scenario(rounds=NO_CALL)
    headers = {
        "seconds": {"retry-after": "2"},
        # The finer header beats the coarser one.
        "milliseconds": {"retry-after-ms": "2000", "retry-after": "60"},
        "half garbage": {"retry-after-ms": "soon", "retry-after": "2"},
        # A date has whole seconds, so that the wait is up to a second shorter.
        "date": {"retry-after": format_datetime(datetime.now(UTC) + timedelta(seconds=5))},
    }
    await lab.fault("runs.create", "rate_limit", headers=headers[form])
    run = await lab.start()

    await run.result()

    first, second = (entry["at"] for entry in outsider.requests()[:2])
    assert 1.9 <= second - first <= 10


async def test_a_storm_of_limits_is_sat_out_each_as_told(lab: Lab, outsider: Outsider) -> None:
    """Each 429 of a storm is waited out by its own `retry-after`; one create comes of it."""
    await lab.scenario(rounds=NO_CALL)
    await lab.fault("runs.create", "rate_limit", retry_after=2)
    await lab.fault("*", "rate_limit", retry_after=1.5, times=2)
    run = await lab.start()

    result = await run.result()

    assert result.run.status == "completed"
    assert await lab.accepted("runs.create") == 1
    gaps = outsider.gaps()
    assert gaps[0] >= 1.9
    assert min(gaps[1:3]) >= 1.4


@pytest.mark.parametrize(
    ("refusal", "code", "words"),
    [
        (("quota", {}), "rate_limit_exceeded", [QUOTA_WORDS, "quota", "billing"]),
        (("not_found", {}), "server_error", ["404", "Not found", "{url}", "RUNLANE_UPSTREAM_URL"]),
        (("unauthorized", {}), "server_error", ["401", "RUNLANE_UPSTREAM_API_KEY"]),
        (("status", {"status": 403}), "server_error", ["403", "RUNLANE_UPSTREAM_API_KEY"]),
        (
            ("status", {"status": 400, "body": {"error": {"message": "The model `x` is gone"}}}),
            "invalid_prompt",
            ["400", "The model `x` is gone"],
        ),
        (
            ("rate_limit", {"headers": {"x-should-retry": "false"}}),
            "rate_limit_exceeded",
            ["429"],
        ),
    ],
    ids=["quota", "404", "401", "403", "400", "429 told not to"],
)
async def test_what_trying_again_cannot_mend_ends_the_run(
    lab: Lab,
    outsider: Outsider,
    refusal: tuple[str, dict[str, Any]],
    code: str,
    words: list[str],
) -> None:
    """The run ends `failed`, saying what the upstream said and what to do; nothing is retried."""
    kind, fields = refusal
    await lab.fault("runs.create", kind, **fields)
    run = await lab.start()

    result = await run.result()

    assert result.run.status == "failed"
    error = result.run.last_error
    assert error is not None
    assert error.code == code
    for word in words:
        url = f"{lab.simulator.url}/threads/{lab.thread_id}/runs"
        assert word.format(url=url) in error.message
    assert result.runlane.uncertain is None
    assert [entry["operation"] for entry in outsider.requests()] == ["runs.create"]


@pytest.mark.parametrize(
    ("kind", "left"), [("status", []), ("error_after", ["cancelled"])], ids=["not done", "done"]
)
@pytest.mark.parametrize("status", [408, 500, 504])
async def test_a_final_answer_that_does_not_say_what_was_done(
    lab: Lab, kind: str, left: list[str], status: int
) -> None:
    """A server that failed and wants no second try may have created the run all the same: it is
    looked for, and what is found is cancelled.
    """
    await lab.scenario(rounds=ONE_CALL)
    await lab.fault("runs.create", kind, status=status, headers={"x-should-retry": "false"})
    run = await lab.start()

    result = await run.result()

    assert result.run.status == "failed"
    assert result.run.last_error is not None
    assert result.run.last_error.code == "server_error"
    assert str(status) in result.run.last_error.message
    stamped = await asyncio.to_thread(lambda: lab.simulator.runs(stamp=run.id))
    assert [upstream["status"] for upstream in stamped] == left
    assert result.runlane.uncertain is None
    assert await lab.received("runs.create") == 1


async def test_an_activity_that_temporal_begins_anew_does_not_create_twice(lab: Lab) -> None:
    """An operator's reset of the activity counts its attempts from 1; what it had sent is known."""
    await lab.scenario(rounds=NO_CALL)
    await lab.fault("runs.create", "lost_answer")
    await lab.fault("runs.list", "status", status=503, times=3)
    run = await lab.start()
    await eventually(lambda: lab.received("runs.list"), lambda looks: looks >= 1)
    # Ended, it locks its thread no more.
    await eventually(lambda: statuses(lab), lambda seen: seen == ["completed"])

    await lab.client.workflow_service.reset_activity(
        ResetActivityRequest(
            namespace=lab.client.namespace,
            execution=WorkflowExecution(workflow_id=run.id),
            type="runs.create",
        )
    )

    assert (await run.result()).run.status == "completed"
    assert await lab.received("runs.create") == 1


async def statuses(lab: Lab) -> list[str]:
    """Return the upstream's word on each of the thread's runs."""
    thread = await asyncio.to_thread(lab.simulator.thread, lab.thread_id)
    return [run["status"] for run in thread["runs"]]


async def test_a_key_revoked_after_a_lost_answer_does_not_end_the_run(
    lab: Lab, outsider: Outsider
) -> None:
    """A refusal says nothing of the try before it: the run that one made is found and cancelled."""
    await lab.scenario(rounds=ONE_CALL)
    await lab.fault("runs.create", "lost_answer")
    await lab.fault("runs.list", "unauthorized", times=2)
    run = await lab.start()

    result = await run.result()

    assert result.run.status == "failed"
    assert result.run.last_error is not None
    assert "401" in result.run.last_error.message
    (upstream,) = outsider.runs()
    assert upstream["status"] == "cancelled"
    assert result.runlane.uncertain is None


async def test_a_busy_thread_is_waited_for(lab: Lab, outsider: Outsider) -> None:
    """A thread that somebody else's run holds is waited for, visibly, and then used."""
    await lab.scenario(rounds=ONE_CALL)
    theirs = outsider.create(lab.assistant_id, metadata={"runlane_run_id": "run_somebody"})
    await lab.scenario(rounds=NO_CALL)
    run = await lab.start()

    said = await eventually(lambda: pending(run), bool)

    assert said == (
        f"Thread {lab.thread_id} is taken by run {theirs}, which belongs to run_somebody; "
        "that has to end first"
    )
    assert (await run.view()).run.status == "queued"
    assert await lab.accepted("runs.create") == 1

    outsider.force(theirs, "completed")
    result = await run.result()

    assert result.run.status == "completed"
    assert await lab.accepted("runs.create") == 2
    assert result.runlane.upstream_run_id != theirs


async def test_a_run_cancelled_while_its_thread_is_busy_creates_nothing(
    lab: Lab, outsider: Outsider
) -> None:
    """Waiting for a thread ends at the cancel: no create, and the other run is left alone."""
    await lab.scenario(rounds=ONE_CALL)
    theirs = outsider.create(lab.assistant_id)
    run = await lab.start()
    await eventually(lambda: pending(run), bool)

    await run.cancel()
    result = await run.result()

    assert result.run.status == "cancelled"
    assert result.runlane.upstream_run_id is None
    assert result.runlane.uncertain is None
    assert [upstream["id"] for upstream in outsider.runs()] == [theirs]
    assert await lab.received("runs.cancel") == 0


async def test_the_thread_lock_names_the_run_to_adopt(lab: Lab, outsider: Outsider) -> None:
    """Where a list doesn't show the run yet, the refused create names it; it is ours by stamp."""
    await lab.fault("runs.create", "lost_answer")
    # A list that lags behind: it is well formed, and empty.
    await lab.fault(
        "runs.list", "garbage", body='{"object": "list", "data": [], "has_more": false}'
    )
    await lab.scenario(rounds=ONE_CALL)
    run = await lab.start()

    view = await run.until_status("requires_action")

    (upstream,) = outsider.runs()
    assert view.runlane.upstream_run_id == upstream["id"]
    assert await lab.received("runs.create") == 2
    assert await lab.accepted("runs.create") == 1


@pytest.mark.parametrize("holds_the_thread", [True, False])
async def test_a_run_older_than_ours_is_never_adopted(
    lab: Lab, outsider: Outsider, holds_the_thread: bool
) -> None:
    """A stamp can be copied or left by another installation; a run from before our start isn't
    ours, whether a list shows it or the thread's lock names it.
    """
    run_id = f"run_{lab.thread_id}"
    stamps = {"runlane_run_id": run_id, "runlane_attempt": "1"}
    await lab.scenario(rounds=ONE_CALL)
    forged = outsider.create(lab.assistant_id, metadata=stamps)
    outsider.force(forged, created_at=int(time.time()) - 3600)
    if not holds_the_thread:
        outsider.force(forged, "completed")
    await lab.fault("runs.create", "server_error")
    run = await lab.start(run_id=run_id)

    if holds_the_thread:
        await eventually(lambda: pending(run), lambda said: "not ours" in said)
        outsider.force(forged, "completed")
    view = await run.until_status("requires_action")

    assert view.runlane.upstream_run_id != forged
    assert len(outsider.runs()) == 2


@pytest.mark.parametrize(("hours", "creates"), [(23, 0), (24, 1)])
async def test_a_key_is_looked_for_no_longer_than_it_is_kept(
    lab: Lab, outsider: Outsider, hours: int, creates: int
) -> None:
    """Used again when Temporal may have lost its run, a key finds what it created; used again when
    Temporal has rightly forgotten it, a key is new.
    """
    run_id = derive_run_id("", lab.thread_id)
    await lab.scenario(rounds=NO_CALL)
    first = outsider.create(
        lab.assistant_id, metadata={"runlane_run_id": run_id, "runlane_attempt": "1"}
    )
    outsider.force(first, "completed", created_at=int(time.time()) - hours * 3600)
    runlane = Runlane(lab.client, Settings(task_queue=lab.task_queue))

    run = await runlane.runs.create_and_poll(
        lab.thread_id, assistant_id=lab.assistant_id, idempotency_key=lab.thread_id
    )

    assert run.id == run_id
    assert await lab.accepted("runs.create") == 1 + creates


async def test_anothers_request_under_the_same_key_is_not_adopted(
    lab: Lab, outsider: Outsider
) -> None:
    """Another installation may use the same key on the same thread for another assistant's run."""
    run_id = derive_run_id("", lab.thread_id)
    await lab.scenario(rounds=NO_CALL)
    theirs = outsider.create(
        "asst_of_another_request", metadata={"runlane_run_id": run_id, "runlane_attempt": "1"}
    )
    outsider.force(theirs, "completed", created_at=int(time.time()) - 3600)
    runlane = Runlane(lab.client, Settings(task_queue=lab.task_queue))

    run = await runlane.runs.create_and_poll(
        lab.thread_id, assistant_id=lab.assistant_id, idempotency_key=lab.thread_id
    )

    assert run.assistant_id == lab.assistant_id
    assert await lab.accepted("runs.create") == 2


async def test_a_list_in_another_order_than_asked_for(
    client: Client, simulator: SimulatorProcess
) -> None:
    """An upstream that lists the oldest first shows ours behind one that is too old to be it."""

    async def oldest_first(request: httpx.Request) -> None:
        request.url = request.url.copy_with(query=request.url.query.replace(b"=desc", b"=asc"))

    lab = Lab(client, simulator)
    outsider = Outsider(lab)
    await lab.scenario(rounds=NO_CALL)
    theirs = outsider.create(lab.assistant_id)
    outsider.force(theirs, "completed", created_at=int(time.time()) - 3600)
    await lab.fault("runs.create", "lost_answer")
    # Until ours has ended, the thread's lock would name it.
    await lab.fault("runs.list", "status", status=503)
    hooks = {"request": [oldest_first]}
    async with httpx.AsyncClient(event_hooks=hooks) as http, lab.worker(http_client=http):
        run = await lab.start()
        result = await run.result()
    outsider.close()

    assert result.run.status == "completed"
    assert await lab.accepted("runs.create") == 2
    assert [upstream["status"] for upstream in outsider.runs()] == ["completed", "completed"]


async def test_a_run_of_another_attempt_is_not_adopted(lab: Lab, outsider: Outsider) -> None:
    """Our id alone isn't enough: what another attempt created isn't what this one asked for."""
    run_id = f"run_{lab.thread_id}"
    await lab.scenario(rounds=ONE_CALL)
    other = outsider.create(
        lab.assistant_id, metadata={"runlane_run_id": run_id, "runlane_attempt": "2"}
    )
    run = await lab.start(run_id=run_id)
    await eventually(lambda: pending(run), lambda said: "not ours" in said)

    outsider.force(other, "completed")
    view = await run.until_status("requires_action")

    assert view.runlane.upstream_run_id != other


async def test_an_upstream_that_never_answers_is_given_up_at_the_deadline(lab: Lab) -> None:
    """Retries of a create go on until the run's deadline, and end with it."""
    await lab.fault("runs.create", "server_error", times=0)
    run = await lab.start(deadline=6, timing=QUICK.model_copy(update={"settle_for": 0.2}))

    result = await run.result()

    assert result.run.status == "expired"
    assert result.run.last_error is not None
    assert "deadline" in result.run.last_error.message
    assert await lab.received("runs.create") >= 2
    assert await lab.accepted("runs.create") == 0


async def test_metadata_changed_during_the_create_follows_it(lab: Lab, outsider: Outsider) -> None:
    """What is changed while the create is on its way reaches the upstream right after it."""
    await lab.scenario(rounds=ONE_CALL)
    held = await lab.fault("runs.create", "hold_after")
    run = await lab.start(params={"metadata": {"ticket": "7"}})
    await lab.held(held)

    await run.handle.execute_update(
        RunWorkflow.update_metadata, MetadataUpdate(metadata={"ticket": "8"})
    )
    await lab.release(held)
    await eventually(lambda: lab.accepted("runs.update"), lambda count: count == 1)

    (upstream,) = outsider.runs()
    assert upstream["metadata"] == {
        "ticket": "8",
        "runlane_run_id": run.id,
        "runlane_attempt": "1",
    }
    await run.cancel()
    await run.result()
