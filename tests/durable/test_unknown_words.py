"""What the upstream says that nobody foresaw: unknown statuses, actions, and poll headers."""

import asyncio
import json
from typing import Any

import pytest

from tests.lab import QUICK, Lab
from tests.outsider import Outsider

ASK = {"queued": 0.05, "in_progress": 0.05, "calls": [{"name": "ask"}]}
DONE = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}
MCP = {"name": "search", "type": "mcp", "server_label": "wiki"}
HOSTED = {"name": "render", "type": "openapi"}


async def test_an_unknown_status_is_waited_out(lab: Lab, outsider: Outsider) -> None:
    """A status that the protocol doesn't have is no end: it is shown, polled on the curve and
    never spun on; the run goes on when the upstream does.
    """
    odd = {**DONE, "status": "pondering", "status_seconds": 2.0}
    await lab.scenario(rounds=[odd])
    # A poll that is attached shows what it sees in its heartbeats; the view knows when it is back.
    run = await lab.start(timing=QUICK.model_copy(update={"poll_floor": 0.4, "attach_for": 0.5}))

    view = await run.until(lambda view: view.runlane.upstream_status == "pondering")
    result = await run.result()

    assert view.run.status == "in_progress"
    assert view.runlane.needs_attention is None
    assert result.run.status == "completed"
    polls = outsider.requests("runs.retrieve")
    # Two seconds at 0.4 make five polls, and a few around them; fewer on a busy machine.
    assert 2 <= len(polls) <= 10
    assert min(outsider.gaps("runs.retrieve")[1:]) >= 0.3


async def test_an_unknown_status_while_answers_are_awaited_closes_nothing(
    lab: Lab, outsider: Outsider
) -> None:
    """A word we don't know says nothing of the calls: they stay open, and answers are taken."""
    await lab.scenario(rounds=[{**ASK, "calls": [{"name": "a"}, {"name": "b"}]}, DONE])
    run = await lab.start(timing=QUICK.model_copy(update={"look_floor": 0.3}))
    view = await run.until_status("requires_action")
    upstream = str(view.runlane.upstream_run_id)
    first, second = (call.tool_call_id for call in view.runlane.pending)
    shown = {**outsider.run(upstream), "status": "awaiting_someone", "required_action": None}

    await lab.fault("runs.retrieve", "garbage", body=json.dumps(shown), times=2)
    await run.until(lambda view: view.runlane.upstream_status == "awaiting_someone")
    assert await run.submit((first, "one")) == ["accepted"]
    assert (await run.view()).run.status == "requires_action"
    assert await run.submit((second, "two")) == ["accepted"]
    result = await run.result()

    assert result.run.status == "completed"
    assert [answer.outcome for answer in result.runlane.answers] == ["submitted", "submitted"]


@pytest.mark.parametrize(
    ("asks", "words"),
    [
        ({"required_action_type": "submit_tool_approval", "calls": [MCP]}, "submit_tool_approval"),
        ({"required_action_type": "submit_tool_outputs"}, "no tool call"),
        ({"calls": [HOSTED]}, "openapi"),
        ({"calls": [{"name": "ask"}, HOSTED]}, "openapi"),
        ({"required_action_type": "submit_blood_sample"}, "submit_blood_sample"),
    ],
    ids=["approval", "no calls", "hosted", "function and hosted", "unknown"],
)
async def test_an_action_that_no_output_answers_needs_attention(
    lab: Lab, outsider: Outsider, asks: dict[str, Any], words: str
) -> None:
    """It is shown with its name and polled on; nothing is submitted, an empty list least of all.
    When it resolves by itself, as hosted tools do, the run goes on.
    """
    waits = {"queued": 0.05, "in_progress": 0.05, **asks, "resolves_after": 1.5}
    await lab.scenario(rounds=[waits, ASK, DONE])
    run = await lab.start(timing=QUICK.model_copy(update={"poll_floor": 0.3}))

    view = await run.until(lambda view: view.runlane.needs_attention is not None)

    assert words in str(view.runlane.needs_attention)
    assert view.run.status == "requires_action"
    assert view.runlane.pending == []

    later = await run.answer_all()
    assert later.runlane.needs_attention is None
    result = await run.result()

    assert result.run.status == "completed"
    assert await lab.received("runs.submit_tool_outputs") == 1
    assert len(outsider.requests("runs.retrieve")) <= 15


async def test_a_run_that_needs_attention_can_be_cancelled(lab: Lab, outsider: Outsider) -> None:
    """Nobody can answer it from here, but it can be ended."""
    await lab.scenario(rounds=[{"required_action_type": "submit_blood_sample"}])
    run = await lab.start()
    await run.until(lambda view: view.runlane.needs_attention is not None)

    await run.cancel()
    result = await run.result()

    assert result.run.status == "cancelled"
    assert outsider.runs()[0]["status"] == "cancelled"


async def test_a_required_action_of_nothing_is_no_action(lab: Lab, outsider: Outsider) -> None:
    """`{}` where null belongs, fields that nobody knows, times in milliseconds: read all the same,
    and the run ends as it should.
    """
    await lab.scenario(rounds=[{**DONE, "in_progress": 1.0}])
    run = await lab.start()
    view = await run.until(lambda view: view.runlane.upstream_run_id is not None)
    shown = outsider.run(str(view.runlane.upstream_run_id))
    odd = {
        **shown,
        "required_action": {},
        "last_error": {},
        "incomplete_details": {},
        "instructions": None,
        "expires_at": shown["expires_at"] * 1000,
        "tool_resources": {"x": [1]},
        "tools": None,
        "metadata": None,
    }

    await lab.fault("runs.retrieve", "garbage", body=json.dumps(odd), times=3)
    result = await run.result()

    assert result.run.status == "completed"
    assert result.run.last_error is None


@pytest.mark.parametrize("value", ["soon", "0", "-5", "", "NaN", None])
async def test_a_header_without_a_usable_interval_is_ignored(
    lab: Lab, outsider: Outsider, value: str | None
) -> None:
    """Absent, zero, negative or garbage: our own curve holds, no hot loop and no long wait."""
    await lab.scenario(rounds=[{**DONE, "in_progress": 1.5}])
    if value is not None:
        headers = {"openai-poll-after-ms": value}
        for operation in ("runs.create", "runs.retrieve"):
            await lab.fault(operation, "headers", headers=headers, times=0)
    run = await lab.start(timing=QUICK.model_copy(update={"poll_floor": 0.3}))

    await run.result()

    gaps = outsider.gaps("runs.create", "runs.retrieve")
    assert min(gaps) >= 0.25
    assert sum(gaps) / len(gaps) <= 5


async def test_the_latest_header_counts(lab: Lab, outsider: Outsider) -> None:
    """A server that changes its mind midway is followed, faster and slower."""
    await lab.scenario(rounds=[{**DONE, "in_progress": 8.0}])
    await lab.fault("runs.create", "headers", headers={"openai-poll-after-ms": "200"})
    for milliseconds in ("200", "3000", "200"):
        headers = {"openai-poll-after-ms": milliseconds}
        await lab.fault("runs.retrieve", "headers", headers=headers)
    run = await lab.start(timing=QUICK.model_copy(update={"poll_floor": 2.5}))

    await run.result()

    gaps = outsider.gaps("runs.create", "runs.retrieve")[:5]
    assert [
        round(gap, 1) >= wanted for gap, wanted in zip(gaps, (0.2, 0.2, 3.0, 0.2, 2.5), strict=True)
    ] == [True] * 5
    # The first gap holds the way through the server, too.
    assert max(gaps[1], gaps[3]) < 2.5


async def test_a_header_beyond_an_attached_poll_is_a_timer(lab: Lab, outsider: Outsider) -> None:
    """A wait longer than a poll may stay attached is waited by the workflow, from the first poll of
    a leg on.
    """
    timing = QUICK.model_copy(update={"timer_from": 1.0, "attach_for": 0.5, "poll_floor": 0.2})
    await lab.scenario(rounds=[{**DONE, "in_progress": 0.3}], poll_after_ms=4_000)
    run = await lab.start(timing=timing)

    result = await run.result()

    assert result.run.status == "completed"
    (gap,) = outsider.gaps("runs.create", "runs.retrieve")
    assert 3.9 <= gap <= 20
    assert "TIMER_FIRED" in await run.events()


async def test_a_huge_header_is_cut_to_an_hour_and_nudged_through(lab: Lab) -> None:
    """A server that says "in a century" is asked again in an hour, or when somebody nudges."""
    await lab.scenario(rounds=[DONE], poll_after_ms=10**12)
    run = await lab.start()
    await run.until(lambda view: view.runlane.upstream_run_id is not None)
    await asyncio.sleep(0.5)
    assert await lab.received("runs.retrieve") == 0
    history = await run.handle.fetch_history()
    (timer,) = (
        event.timer_started_event_attributes
        for event in history.events
        if event.HasField("timer_started_event_attributes")
    )
    assert timer.start_to_fire_timeout.ToSeconds() in (3599, 3600)

    await run.handle.signal("nudge")
    result = await run.result()

    assert result.run.status == "completed"
    assert await lab.received("runs.retrieve") == 1


@pytest.mark.parametrize("header", [100, 30_000])
async def test_the_callers_interval_beats_the_header(
    lab: Lab, outsider: Outsider, header: int
) -> None:
    """`poll_interval_ms` holds whether the server wants to be asked more or less often."""
    await lab.scenario(rounds=[{**DONE, "in_progress": 2.0}], poll_after_ms=header)
    run = await lab.start(poll_interval_ms=600)

    await run.result()

    gaps = outsider.gaps("runs.retrieve")
    assert 1 <= len(gaps) <= 5
    assert min(gaps) >= 0.55
    assert max(gaps) <= 15
