"""The lifecycle on a real Temporal server over real HTTP, with nothing going wrong."""

from tests.histories import history, kinds, undisturbed
from tests.lab import Lab

MAX_EVENTS = 40
"""Of one run with one external tool round and legs of up to a minute."""


async def test_one_tool_round(lab: Lab) -> None:
    """Create, wait, answer, submit, wait: the run completes, and nothing happens twice."""
    await lab.scenario(
        rounds=[
            {
                "queued": 0.1,
                "in_progress": 0.2,
                "calls": [{"name": "lookup_order", "arguments": {"order_id": "A-1042"}}],
            },
            {"queued": 0.1, "in_progress": 0.2, "says": "Shipped."},
        ]
    )
    run = await lab.start(params={"metadata": {"ticket": "7"}})

    view = await run.until_status("requires_action")
    (call,) = view.runlane.pending

    assert call.name == "lookup_order"
    assert await run.submit((call.tool_call_id, '{"state": "shipped"}')) == ["accepted"]

    result = await run.result()

    assert result.run.status == "completed"
    assert result.run.id == run.id
    assert result.run.metadata == {"ticket": "7"}
    assert [answer.outcome for answer in result.runlane.answers] == ["submitted"]
    assert await lab.accepted("runs.create") == 1
    assert await lab.accepted("runs.submit_tool_outputs") == 1
    events = await history(run)

    assert len(undisturbed(events)) <= MAX_EVENTS, kinds(events)
