"""An upstream that is blocked, gone, another one, or talks nonsense, and what it may refuse."""

import asyncio
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey

from tests.lab import QUICK, Lab, LabRun, eventually
from tests.outsider import Outsider
from tests.simulator_process import SimulatorProcess
from workflows.contract import MetadataUpdate, RunView
from workflows.run import RunWorkflow

ASK = {"queued": 0.05, "in_progress": 0.05, "calls": [{"name": "ask"}]}
DONE = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}
LONG = {"queued": 0.05, "in_progress": 600.0}
BLOCKED = SearchAttributeKey.for_keyword("RunlaneBlocked")
RARELY = QUICK.model_copy(update={"blocked_floor": 60.0})
"""So that only a nudge lets a blocked run go on."""


async def shown_blocked(run: LabRun) -> str | None:
    """Return the search attribute by which lists find blocked runs."""
    return (await run.handle.describe()).typed_search_attributes.get(BLOCKED)


async def update(run: LabRun, **metadata: str) -> None:
    """Replace the caller's metadata."""
    await run.handle.execute_update(RunWorkflow.update_metadata, MetadataUpdate(metadata=metadata))


def is_blocked(view: RunView) -> bool:
    """Tell whether the run is blocked."""
    return view.runlane.blocked is not None


@pytest.mark.parametrize(
    ("refusal", "blocked", "words"),
    [
        (("unauthorized", {}), "credentials", "RUNLANE_UPSTREAM_API_KEY"),
        (("status", {"status": 403}), "credentials", "RUNLANE_UPSTREAM_API_KEY"),
        (("quota", {}), "quota", "You exceeded your current quota"),
        (("not_found", {}), "not_found", "{url}"),
    ],
    ids=["401", "403", "quota", "404"],
)
@pytest.mark.parametrize("when", ["leg", "submit"])
async def test_a_run_that_exists_is_blocked_and_loses_nothing(
    lab: Lab, when: str, refusal: tuple[str, dict[str, Any]], blocked: str, words: str
) -> None:
    """What ends a create blocks a run that exists: shown with its kind and what to do, in lists
    too; mended, it goes on by itself, with its answers.
    """
    await lab.scenario(rounds=[ASK, {**DONE, "in_progress": 0.5}])
    operation = "runs.retrieve" if when == "leg" else "runs.submit_tool_outputs"
    kind, fields = refusal
    fault = await lab.fault(operation, kind, times=0, **fields)
    run = await lab.start()
    if when == "submit":
        await run.answer_all("yes")

    view = await run.until(is_blocked)
    assert view.runlane.blocked is not None
    assert view.runlane.blocked.kind == blocked
    assert words.format(url=lab.simulator.url) in view.runlane.blocked.message
    assert await eventually(lambda: shown_blocked(run), bool) == blocked

    await asyncio.to_thread(lab.simulator.remove_fault, fault)
    if when == "leg":
        await run.answer_all("yes")
    result = await run.result()

    assert result.run.status == "completed"
    assert result.runlane.blocked is None
    assert [answer.outcome for answer in result.runlane.answers] == ["submitted"]
    assert await lab.accepted("runs.submit_tool_outputs") == 1
    assert not await shown_blocked(run)


async def test_a_blocked_run_goes_on_at_a_nudge(lab: Lab) -> None:
    """Who has mended something needn't wait for the curve, nor for the caller's own interval."""
    await lab.scenario(rounds=[DONE])
    await lab.fault("runs.retrieve", "unauthorized")
    run = await lab.start(timing=RARELY, poll_interval_ms=9_000)
    await run.until(is_blocked)

    await run.handle.signal(RunWorkflow.nudge)
    result = await run.result(seconds=8)

    assert result.run.status == "completed"


async def test_answers_are_taken_while_blocked(lab: Lab) -> None:
    """A blocked run still has its open calls; what is answered meanwhile is submitted later."""
    await lab.scenario(rounds=[ASK, DONE])
    run = await lab.start(timing=RARELY.model_copy(update={"look_floor": 0.2}))
    view = await run.until_status("requires_action")
    await lab.fault("runs.retrieve", "unauthorized")
    await run.until(is_blocked)

    assert await run.submit((view.runlane.pending[0].tool_call_id, "yes")) == ["accepted"]
    assert await lab.received("runs.submit_tool_outputs") == 0
    await run.handle.signal(RunWorkflow.nudge)

    assert (await run.result()).run.status == "completed"


async def test_a_blocked_run_tries_again_on_a_curve(lab: Lab, outsider: Outsider) -> None:
    """No hot loop against a service that says no."""
    await lab.scenario(rounds=[LONG])
    await lab.fault("runs.retrieve", "unauthorized", times=0)
    run = await lab.start(timing=QUICK.model_copy(update={"blocked_floor": 0.7}))
    await run.until(is_blocked)
    await eventually(lambda: lab.received("runs.retrieve"), lambda count: count >= 4)

    assert min(outsider.gaps("runs.retrieve")) >= 0.65


async def test_a_run_not_found_for_long_enough_is_gone(lab: Lab) -> None:
    """404 without a break for `not_found_for` ends the run as `failed`, naming the URL."""
    await lab.scenario(rounds=[LONG])
    await lab.fault("runs.retrieve", "not_found", times=0)
    run = await lab.start(timing=QUICK.model_copy(update={"not_found_for": 3.0}))
    blocked = await run.until(is_blocked)

    result = await run.result()
    closed_at = (await run.handle.describe()).close_time

    assert blocked.run.status in ("queued", "in_progress")
    assert result.run.status == "failed"
    assert result.run.last_error is not None
    assert lab.simulator.url in result.run.last_error.message
    # By the clock that counts: the upstream sees a request before the run sees its answer.
    assert blocked.runlane.blocked is not None
    assert blocked.runlane.blocked.since_at is not None
    assert closed_at is not None
    assert closed_at.timestamp() - blocked.runlane.blocked.since_at >= 3.0
    assert await lab.received("runs.retrieve") > 1
    assert await lab.received("runs.cancel") == 0


async def test_a_404_that_passes_begins_anew(lab: Lab, outsider: Outsider) -> None:
    """Only an unbroken 404 counts: two that are farther apart than `not_found_for` end nothing,
    and in between the run isn't shown as blocked.
    """
    await lab.scenario(rounds=[LONG])
    await lab.fault("runs.retrieve", "not_found")
    run = await lab.start(timing=QUICK.model_copy(update={"not_found_for": 2.0}))
    first = (await run.until(is_blocked)).runlane
    await run.until(lambda view: not is_blocked(view))
    await asyncio.sleep(2.5)

    await lab.fault("runs.retrieve", "not_found")
    second = (await run.until(is_blocked)).runlane
    await run.until(lambda view: not is_blocked(view))
    outsider.force(str(second.upstream_run_id), "completed")
    result = await run.result()

    assert result.run.status == "completed"
    assert first.blocked is not None
    assert first.blocked.since_at is not None
    assert second.blocked is not None
    assert second.blocked.since_at is not None
    assert second.blocked.since_at >= first.blocked.since_at + 2.0


async def test_a_create_without_an_answer_binds_the_run(
    client: Client, simulator: SimulatorProcess
) -> None:
    """What one upstream may have accepted is never created on another one."""
    lab = Lab(client, simulator)
    await lab.scenario(rounds=[{"queued": 0.05, "in_progress": 0.05}])
    fault = await lab.fault("runs.create", "hold_after")
    async with lab.worker():
        run = await lab.start()
        await lab.held(fault)
        await lab.release(fault, answer=False)

    async with lab.worker(upstream_url=simulator.url.replace("/v1", "/openai/v1")):
        view = await run.until(lambda view: view.runlane.blocked is not None)
        assert view.runlane.blocked is not None
        assert view.runlane.blocked.kind == "other_upstream"
        assert view.runlane.upstream is not None
        assert view.runlane.upstream.url == simulator.url
    assert await lab.accepted("runs.create") == 1

    async with lab.worker():
        result = await run.result()
    assert result.run.status == "completed"
    assert await lab.accepted("runs.create") == 1


async def test_an_upstream_that_was_never_reached_binds_nothing(
    client: Client, simulator: SimulatorProcess
) -> None:
    """A mistyped URL, once mended, keeps no run from going on."""
    lab = Lab(client, simulator)
    await lab.scenario(rounds=[{"queued": 0.05, "in_progress": 0.05}])
    async with lab.worker(upstream_url="http://127.0.0.1:1/v1"):
        run = await lab.start()
        await eventually(lambda: tries(run), lambda count: count > 1)

    async with lab.worker():
        result = await run.result()
    assert result.run.status == "completed"


async def tries(run: LabRun) -> int:
    """Return the attempt of the activity under way."""
    described = await run.handle.describe()
    return max((a.attempt for a in described.raw_description.pending_activities), default=0)


async def test_a_worker_of_another_upstream_does_not_touch_the_run(
    lab: Lab, outsider: Outsider
) -> None:
    """A run lives where it was created: a worker set up otherwise calls nobody, and says both URLs;
    with a right one the run goes on.
    """
    other = Lab(lab.client, lab.simulator)
    elsewhere = lab.simulator.url.replace("127.0.0.1", "localhost")
    await other.scenario(rounds=[ASK, DONE])
    async with other.worker():
        run = await other.start()
        view = await run.until_status("requires_action")
    before = await other.received("runs.submit_tool_outputs")
    async with other.worker(upstream_url=elsewhere):
        assert await run.submit((view.runlane.pending[0].tool_call_id, "yes")) == ["accepted"]
        view = await run.until(is_blocked)
        assert view.runlane.blocked is not None
        assert view.runlane.blocked.kind == "other_upstream"
        assert lab.simulator.url in view.runlane.blocked.message
        assert elsewhere in view.runlane.blocked.message
    assert await other.received("runs.submit_tool_outputs") == before
    async with other.worker():
        result = await run.result()

    assert result.run.status == "completed"
    assert view.runlane.upstream is not None
    assert view.runlane.upstream.url == lab.simulator.url


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("garbage", {}),
        ("garbage", {"body": '{"id": "run_1", "object": "thre'}),
        ("garbage", {"body": "[]"}),
        ("garbage", {"body": "{}"}),
        ("garbage", {"body": "null"}),
        ("reset", {}),
        ("lost_answer", {}),
        ("server_error", {}),
        ("rate_limit", {"retry_after": 1}),
        ("status", {"status": 503, "body": "<html>"}),
        ("status", {"status": 400}),
        ("server_error", {"headers": {"x-should-retry": "false"}}),
    ],
    ids=[
        *("html", "truncated", "list", "empty", "null", "reset", "lost", "500", "429", "503"),
        *("400", "500 told not to"),
    ],
)
async def test_nonsense_in_a_leg_is_outlasted(lab: Lab, kind: str, fields: dict[str, Any]) -> None:
    """No answer to a look is final: what can't be made sense of is asked for again, and the run
    neither ends nor shows it.
    """
    await lab.scenario(rounds=[{**DONE, "in_progress": 0.5}])
    await lab.fault("runs.retrieve", kind, times=2, **fields)
    run = await lab.start()

    result = await run.result()

    assert result.run.status == "completed"
    assert result.run.last_error is None
    assert await lab.received("runs.retrieve") >= 3
    assert await lab.received("runs.cancel") == 0


async def test_an_upstream_that_is_down_for_a_while_loses_nothing(lab: Lab) -> None:
    """Nothing answers for some seconds in the middle of a leg; then the run goes on."""
    await lab.scenario(rounds=[ASK, {**DONE, "in_progress": 1.0}])
    run = await lab.start()
    await run.answer_all("yes")
    down = await lab.fault("*", "reset", times=0)
    await asyncio.sleep(3)
    await asyncio.to_thread(lab.simulator.remove_fault, down)

    result = await run.result()

    assert result.run.status == "completed"
    assert [answer.outcome for answer in result.runlane.answers] == ["submitted"]
    assert await lab.accepted("runs.create") == 1


async def test_an_endless_tool_loop_is_ended(lab: Lab, outsider: Outsider) -> None:
    """After `max_rounds` the run ends `incomplete` with the reason, cancelled upstream as well."""
    await lab.scenario(rounds=[ASK], endless=True)
    run = await lab.start(max_rounds=3)
    answered: set[str] = set()
    for _ in range(3):
        view = await run.until(
            lambda view: any(call.tool_call_id not in answered for call in view.runlane.pending)
        )
        answered.add(view.runlane.pending[0].tool_call_id)
        await run.submit((view.runlane.pending[0].tool_call_id, "again"))

    result = await run.result()

    assert result.run.status == "incomplete"
    assert result.run.last_error is not None
    assert "3 rounds" in result.run.last_error.message
    assert [answer.outcome for answer in result.runlane.answers] == ["submitted"] * 3
    assert outsider.runs()[0]["status"] == "cancelled"


async def test_a_failure_of_the_upstream_run_is_ours(lab: Lab) -> None:
    """A 200 can carry a failed run: its code and words are shown as they are."""
    error = {"code": "rate_limit_exceeded", "message": "Slow down."}
    await lab.scenario(rounds=[{**ASK, "calls": [], "ends": "failed", "last_error": error}])
    run = await lab.start()

    result = await run.result()

    assert result.run.status == "failed"
    assert result.run.last_error is not None
    assert result.run.last_error.model_dump() == error


@pytest.mark.parametrize("when", ["leg", "gather"])
async def test_metadata_reaches_the_upstream_with_our_stamps(
    lab: Lab, outsider: Outsider, when: str
) -> None:
    """The caller's pairs are replaced, ours stay, and the run goes on undisturbed."""
    rounds = [ASK, DONE] if when == "gather" else [{**DONE, "in_progress": 2.0}]
    await lab.scenario(rounds=rounds)
    run = await lab.start(params={"metadata": {"ticket": "7", "old": "x"}})
    if when == "gather":
        await run.until_status("requires_action")
    else:
        await run.until(lambda view: view.runlane.upstream_run_id is not None)

    await update(run, ticket="8")
    await eventually(lambda: lab.accepted("runs.update"), lambda count: count == 1)
    assert outsider.runs()[0]["metadata"] == {
        "ticket": "8",
        "runlane_run_id": run.id,
        "runlane_attempt": "1",
    }
    if when == "gather":
        await run.answer_all("yes")
    result = await run.result()

    assert result.run.status == "completed"
    assert result.run.metadata == {"ticket": "8"}
    assert await lab.received("runs.update") == 1


async def test_metadata_of_a_parked_run_goes_with_the_next_create(
    lab: Lab, outsider: Outsider
) -> None:
    """There is nobody to tell while parked; the next upstream run has the new pairs."""
    await lab.scenario(rounds=[ASK, DONE])
    run = await lab.start(
        timing=QUICK.model_copy(update={"look_floor": 0.2}), params={"metadata": {"ticket": "7"}}
    )
    view = await run.until_status("requires_action")
    outsider.force(str(view.runlane.upstream_run_id), "expired")
    await run.until(lambda view: view.runlane.parked)

    await update(run, ticket="8")
    assert (await run.view()).run.metadata == {"ticket": "8"}
    await run.answer_all("yes")
    result = await run.result()

    assert result.run.status == "completed"
    assert await lab.received("runs.update") == 0
    assert outsider.runs()[-1]["metadata"] == {
        "ticket": "8",
        "runlane_run_id": run.id,
        "runlane_attempt": "2",
    }


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_an_upstream_that_refuses_the_update_keeps_the_run(lab: Lab, status: int) -> None:
    """Servers that can't update a run refuse; ours has the metadata all the same, and goes on."""
    await lab.scenario(rounds=[ASK, DONE])
    await lab.fault("runs.update", "status", status=status, times=0)
    run = await lab.start(timing=QUICK.model_copy(update={"blocked_floor": 60.0}))
    await run.until_status("requires_action")

    await update(run, ticket="8")
    await eventually(lambda: lab.received("runs.update"), lambda count: count == 1)
    await run.answer_all("yes")
    result = await run.result()

    assert result.run.status == "completed"
    assert result.run.metadata == {"ticket": "8"}
    assert await lab.received("runs.update") == 1


async def test_an_update_that_is_never_done_does_not_hold_up_the_run(lab: Lab) -> None:
    """A server that answers 500 to every update: given up after the time of one effect."""
    await lab.scenario(rounds=[ASK, DONE])
    await lab.fault("runs.update", "server_error", times=0)
    run = await lab.start(timing=QUICK.model_copy(update={"effect_for": 7.0}))
    await run.until_status("requires_action")

    await update(run, ticket="8")
    await run.answer_all("yes")
    result = await run.result()

    assert result.run.status == "completed"
    assert result.run.metadata == {"ticket": "8"}
    assert await lab.received("runs.update") >= 2
