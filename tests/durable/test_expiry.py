"""The upstream run expires, the person takes longer: parking, re-creating, and answers kept."""

from typing import Any

import pytest

from tests.lab import QUICK, Lab, LabRun
from tests.outsider import Outsider
from workflows.contract import RunView

DONE = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}
SOON = QUICK.model_copy(update={"look_floor": 0.2})
"""Looks at a waiting upstream run so often that a forced expiry is seen at once."""


def ask(*calls: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a round that makes these calls."""
    listed = [{"name": name, "arguments": arguments} for name, arguments in calls]
    return {"queued": 0.05, "in_progress": 0.05, "calls": listed}


A = ask(("a", {"n": 1}))
B = ask(("b", {"n": 2}))
SLOW = {"queued": 0.05, "in_progress": 60.0}


def ids(view: RunView) -> list[str]:
    """Return the ids of the calls that wait."""
    return [call.tool_call_id for call in view.runlane.pending]


def names(view: RunView) -> list[str]:
    """Return the names of the calls that wait."""
    return [call.name for call in view.runlane.pending]


def outcomes(view: RunView) -> list[str]:
    """Return what became of each answer."""
    return [str(answer.outcome) for answer in view.runlane.answers]


async def parked(run: LabRun, outsider: Outsider, *, attempt: int = 1) -> RunView:
    """Let the upstream run of that attempt expire while it waits; return the view of it."""
    view = await run.until(
        lambda view: bool(view.runlane.pending) and view.runlane.attempt == attempt
    )
    outsider.force(str(view.runlane.upstream_run_id), "expired")
    return await run.until(lambda view: view.runlane.parked)


async def expired(run: LabRun, outsider: Outsider, *, attempt: int) -> None:
    """Let the upstream run of that attempt expire while it works."""
    view = await run.until(lambda view: view.runlane.attempt == attempt)
    outsider.force(str(view.runlane.upstream_run_id), "expired")


async def test_a_run_outlives_its_upstream_run(lab: Lab, outsider: Outsider) -> None:
    """At `expires_at` the upstream is looked at; the run is parked, and still waits as before.

    Once answered, another upstream run is created. It asks the same call and is answered at once.
    """
    message = {"role": "user", "content": "Where is my order?"}
    params = {"additional_messages": [message], "metadata": {"ticket": "7"}, "temperature": 0.5}
    await lab.scenario(rounds=[A, DONE], expires_after=3)
    run = await lab.start(params=params)

    view = await run.until(lambda view: view.runlane.parked)
    assert view.run.status == "requires_action"
    assert view.run.required_action is not None
    assert [call.id for call in view.run.tool_calls] == ids(view)
    assert view.runlane.upstream_status == "expired"
    looks = await lab.received("runs.retrieve")

    assert await run.submit((ids(view)[0], "yes")) == ["accepted"]
    result = await run.result()

    assert result.run.status == "completed"
    assert outcomes(result) == ["submitted"]
    assert looks <= 6
    assert (result.runlane.attempt, result.runlane.recreations) == (2, 1)
    assert [attempt.status for attempt in result.runlane.attempts] == ["expired", "completed"]
    first, second = outsider.bodies("runs.create")
    assert first["additional_messages"] == [message]
    assert "additional_messages" not in second
    assert second["temperature"] == 0.5
    assert second["metadata"] == {
        "ticket": "7",
        "runlane_run_id": run.id,
        "runlane_attempt": "2",
    }
    assert outsider.texts("user") == ["Where is my order?"]
    (outputs,) = outsider.bodies("runs.submit_tool_outputs")
    assert [entry["output"] for entry in outputs["tool_outputs"]] == ["yes"]
    # All of it was paid for.
    assert result.run.usage is not None
    assert result.run.usage.prompt_tokens == 240


@pytest.mark.parametrize("form", ["null", "zero", "milliseconds"])
async def test_an_expiry_is_noticed_whatever_expires_at_says(lab: Lab, form: str) -> None:
    """Expiry is read, never inferred: without a usable instant the run is looked at on the curve,
    and neither parked too soon nor asked in a hot loop.
    """
    await lab.scenario(rounds=[A, DONE], expires_after=3, expires_at_form=form)
    run = await lab.start()
    early = await run.until_status("requires_action")
    assert not early.runlane.parked

    view = await run.until(lambda view: view.runlane.parked)
    assert await lab.received("runs.retrieve") <= 8
    await run.submit((ids(view)[0], "yes"))

    assert (await run.result()).run.status == "completed"


async def test_an_expiry_in_a_leg_starts_the_run_anew(lab: Lab, outsider: Outsider) -> None:
    """An upstream that is too slow for itself gets another try, with nobody asked anything."""
    await lab.scenario(attempts={"1": [SLOW], "2": [DONE]}, expires_after=1)
    run = await lab.start(params={"additional_messages": [{"role": "user", "content": "Hello"}]})

    result = await run.result()

    assert result.run.status == "completed"
    assert result.runlane.recreations == 1
    assert outsider.texts("user") == ["Hello"]


async def test_an_expiry_in_the_leg_after_an_answer_keeps_the_answer(
    lab: Lab, outsider: Outsider
) -> None:
    """An answer that the expired upstream run took already answers the same call once more."""
    await lab.scenario(attempts={"1": [A, SLOW], "2": [A, DONE]})
    run = await lab.start()
    await run.answer_all("yes")
    view = await run.until(lambda view: outcomes(view) == ["submitted"])

    outsider.force(str(view.runlane.upstream_run_id), "expired")
    result = await run.result()

    assert result.run.status == "completed"
    assert outcomes(result) == ["submitted"]
    assert len(result.runlane.answers[0].call_ids) == 2
    assert await lab.accepted("runs.submit_tool_outputs") == 2


async def test_an_expiry_at_the_very_submit_is_a_parking_that_nobody_sees(
    lab: Lab, outsider: Outsider
) -> None:
    """`Runs in status "expired" do not accept tool outputs`: the outputs go to the next one."""
    await lab.scenario(rounds=[A, DONE])
    held = await lab.fault("runs.submit_tool_outputs", "hold_before")
    run = await lab.start()
    view = await run.answer_all("yes")
    await lab.held(held)

    outsider.force(str(view.runlane.upstream_run_id), "expired")
    await lab.release(held)
    result = await run.result()

    assert result.run.status == "completed"
    assert outcomes(result) == ["submitted"]
    assert await lab.received("runs.submit_tool_outputs") == 2
    assert await lab.accepted("runs.submit_tool_outputs") == 1


async def test_argument_order_makes_no_other_call(lab: Lab, outsider: Outsider) -> None:
    """The same arguments in another order and spacing are the same call: nobody is asked again."""
    again = ask()
    again["calls"] = [{"name": "a", "arguments": '{ "y": [1, {"q": null, "p": 1.5}],  "x": "é" }'}]
    once = ask(("a", {"x": "é", "y": [1, {"p": 1.5, "q": None}]}))
    await lab.scenario(attempts={"1": [once], "2": [again, DONE]})
    run = await lab.start(timing=SOON)
    view = await parked(run, outsider)
    await run.submit((ids(view)[0], "yes"))

    result = await run.result()

    assert result.run.status == "completed"
    assert outcomes(result) == ["submitted"]


async def test_other_arguments_are_asked_anew_and_then_asked_for_verbatim(
    lab: Lab, outsider: Outsider
) -> None:
    """An answer never applies to other arguments: a reworded call is asked anew. From then on the
    re-created runs carry the answered calls verbatim, so that the next one can ask the same.
    """
    reworded = ask(("a", {"n": 1.5}))
    await lab.scenario(
        attempts={"1": [A], "2": [reworded], "3": [A, SLOW], "4": [A, reworded, DONE]}
    )
    run = await lab.start(timing=SOON, params={"additional_instructions": "Be brief."})
    view = await parked(run, outsider)
    await run.submit((ids(view)[0], "one"))

    view = await parked(run, outsider, attempt=2)
    assert [call.arguments for call in view.runlane.pending] == ['{"n": 1.5}']
    assert outcomes(view) == ["waiting"]
    await run.submit((ids(view)[0], "one and a half"))
    view = await run.until(
        lambda view: view.runlane.attempt == 3 and outcomes(view)[0] == "submitted"
    )
    outsider.force(str(view.runlane.upstream_run_id), "expired")
    result = await run.result()

    assert result.run.status == "completed"
    assert outcomes(result) == ["submitted", "submitted"]
    said = [body["additional_instructions"] for body in outsider.bodies("runs.create")]
    assert said[0] == said[1] == "Be brief."
    for words in said[2:]:
        assert words.startswith("Be brief.\n\n")
        assert 'a({"n": 1})' in words
        assert 'a({"n": 1.5})' in words
    assert len(said) == 4


async def test_equal_calls_take_one_answer_each(lab: Lab, outsider: Outsider) -> None:
    """Held answers are a multiset: one answers one call, and the second equal call is asked."""
    twice = ask(("a", {"n": 1}), ("a", {"n": 1}))
    await lab.scenario(attempts={"1": [A], "2": [twice, DONE]})
    run = await lab.start(timing=SOON)
    view = await parked(run, outsider)
    await run.submit((ids(view)[0], "first"))

    view = await run.until(lambda view: view.runlane.attempt == 2 and len(ids(view)) == 1)
    await run.submit((ids(view)[0], "second"))
    result = await run.result()

    assert result.run.status == "completed"
    assert outcomes(result) == ["submitted", "submitted"]
    (body,) = outsider.bodies("runs.submit_tool_outputs")
    assert [entry["output"] for entry in body["tool_outputs"]] == ["first", "second"]


async def test_two_equal_calls_keep_both_answers(lab: Lab, outsider: Outsider) -> None:
    """Two equal calls, two answers: both are used again, each once, and nobody is asked."""
    twice = ask(("a", {"n": 1}), ("a", {"n": 1}))
    await lab.scenario(attempts={"1": [twice], "2": [A, A, DONE]})
    run = await lab.start(timing=SOON)
    view = await parked(run, outsider)
    first, second = ids(view)
    await run.submit((first, "first"), (second, "second"))

    result = await run.result()

    assert result.run.status == "completed"
    sent = [
        body["tool_outputs"][0]["output"] for body in outsider.bodies("runs.submit_tool_outputs")
    ]
    assert sent == ["first", "second"]


async def test_an_answer_of_the_same_attempt_answers_no_second_call(lab: Lab) -> None:
    """A model that asks the same once more wants it done once more."""
    await lab.scenario(rounds=[A, A, DONE])
    run = await lab.start()
    first = await run.answer_all("one")

    view = await run.until(lambda view: bool(ids(view)) and ids(view) != ids(first))
    await run.submit((ids(view)[0], "two"))

    assert outcomes(await run.result()) == ["submitted", "submitted"]


async def test_five_rounds_each_answered_after_the_expiry(lab: Lab, outsider: Outsider) -> None:
    """Every round outlives its upstream run; each question is put to a person once, each answer is
    kept, and the message is on the thread once.
    """
    rounds = [ask((f"tool_{n}", {"n": n})) for n in range(5)]
    await lab.scenario(rounds=[*rounds, DONE])
    run = await lab.start(
        timing=SOON,
        max_rounds=5,
        params={"additional_messages": [{"role": "user", "content": "Five, please"}]},
    )
    asked = []
    for n in range(5):
        view = await parked(run, outsider, attempt=n + 1)
        asked += names(view)
        assert await run.submit((ids(view)[0], f"answer {n}")) == ["accepted"]

    result = await run.result(seconds=60)

    assert result.run.status == "completed"
    assert asked == [f"tool_{n}" for n in range(5)]
    assert outcomes(result) == ["submitted"] * 5
    assert result.runlane.attempt == 6
    assert outsider.texts("user") == ["Five, please"]
    last = outsider.runs()[-1]
    taken = [
        step["step_details"]["tool_calls"][0]["function"]["output"]
        for step in last["steps"]
        if step["type"] == "tool_calls"
    ]
    assert taken == [f"answer {n}" for n in range(5)]


async def test_fail_on_expiry(lab: Lab) -> None:
    """With `on_expiry: fail` an expired upstream run ends ours as `expired`, at once."""
    await lab.scenario(rounds=[A, DONE], expires_after=3)
    run = await lab.start(on_expiry="fail")

    result = await run.result()

    assert result.run.status == "expired"
    assert result.runlane.rounds == 1
    assert await lab.accepted("runs.create") == 1


async def test_without_answers_one_more_try_is_enough(lab: Lab) -> None:
    """An upstream that expires twice with nothing asked is given up: `expired`, with the reason."""
    await lab.scenario(rounds=[SLOW], expires_after=1)
    run = await lab.start()

    result = await run.result()

    assert result.run.status == "expired"
    assert await lab.accepted("runs.create") == 2
    assert result.run.last_error is not None
    assert "expired" in result.run.last_error.message


async def test_three_tries_in_a_row_that_take_no_answer_are_enough(
    lab: Lab, outsider: Outsider
) -> None:
    """With an answer to give, three upstream runs may expire without taking it; then the run is
    `expired` and the answer `unused`.
    """
    await lab.scenario(attempts={"1": [A]}, rounds=[SLOW])
    run = await lab.start(timing=SOON)
    view = await parked(run, outsider)
    await run.submit((ids(view)[0], "yes"))
    for attempt in (2, 3, 4):
        await expired(run, outsider, attempt=attempt)

    result = await run.result()

    assert result.run.status == "expired"
    assert outcomes(result) == ["unused"]
    assert [attempt.status for attempt in result.runlane.attempts] == ["expired"] * 4
    assert await lab.accepted("runs.create") == 4


async def test_an_answer_that_is_taken_resets_the_count(lab: Lab, outsider: Outsider) -> None:
    """Two barren tries, an answer taken, and there are three more."""
    await lab.scenario(
        attempts={
            "1": [A],
            "2": [SLOW],
            "3": [SLOW],
            "4": [A, SLOW],
            "5": [SLOW],
            "6": [SLOW],
            "7": [A, DONE],
        },
    )
    run = await lab.start(timing=SOON)
    view = await parked(run, outsider)
    await run.submit((ids(view)[0], "yes"))
    for attempt in (2, 3):
        await expired(run, outsider, attempt=attempt)
    await run.until(lambda view: outcomes(view) == ["submitted"])
    for attempt in (4, 5, 6):
        await expired(run, outsider, attempt=attempt)

    result = await run.result()

    assert result.run.status == "completed"
    assert result.runlane.attempt == 7


async def test_an_answer_to_an_older_attempts_id_is_told_apart(
    lab: Lab, outsider: Outsider
) -> None:
    """The ids of all attempts are kept: the same content is a duplicate, another one a conflict
    while the answer waits and late once the upstream took it.
    """
    await lab.scenario(attempts={"1": [A], "2": [A, B], "3": [A, B, DONE]})
    held = await lab.fault("runs.submit_tool_outputs", "hold_before")
    run = await lab.start(timing=SOON)
    view = await parked(run, outsider)
    (old,) = ids(view)
    assert await run.submit((old, "yes")) == ["accepted"]
    assert await run.submit((old, "yes")) == ["duplicate"]
    assert await run.submit((old, "no")) == ["conflict"]
    await lab.held(held)
    (answer,) = (await run.view()).runlane.answers
    new = answer.call_ids[-1]
    assert new != old
    assert await run.submit((new, "no")) == ["conflict"]

    await lab.release(held)
    await run.until(lambda view: names(view) == ["b"])
    assert await run.submit((old, "no")) == ["late"]
    assert await run.submit((old, "yes")) == ["duplicate"]
    assert await run.submit((new, "no")) == ["late"]
    await run.cancel()
    await run.result()


async def test_an_answer_that_nobody_asks_for_again_is_unused(lab: Lab, outsider: Outsider) -> None:
    """A re-created run may end without the call: the run completes, and says so of the answer."""
    await lab.scenario(attempts={"1": [A], "2": [DONE]})
    run = await lab.start(timing=SOON)
    view = await parked(run, outsider)
    await run.submit((ids(view)[0], "yes"))

    result = await run.result()

    assert result.run.status == "completed"
    assert outcomes(result) == ["unused"]
    assert await lab.received("runs.submit_tool_outputs") == 0


async def test_a_thread_taken_while_parked_is_waited_for(lab: Lab, outsider: Outsider) -> None:
    """Somebody else's run holds the thread when ours is answered: `queued` until it ends."""
    await lab.scenario(rounds=[A, DONE])
    run = await lab.start(timing=SOON)
    view = await parked(run, outsider)
    theirs = outsider.create(lab.assistant_id)

    await run.submit((ids(view)[0], "yes"))
    await run.until_status("queued")
    while await lab.received("runs.create") < 3:
        assert (await run.view()).run.status == "queued"
    assert await lab.accepted("runs.create") == 2
    outsider.force(theirs, "cancelled")
    result = await run.result()

    assert result.run.status == "completed"
    assert outcomes(result) == ["submitted"]


async def test_a_parked_run_is_cancelled_without_the_upstream(lab: Lab, outsider: Outsider) -> None:
    """There is nothing to cancel there."""
    await lab.scenario(rounds=[A, DONE])
    run = await lab.start(timing=SOON)
    await parked(run, outsider)
    before = len(outsider.requests())

    await run.cancel()
    result = await run.result()

    assert result.run.status == "cancelled"
    assert len(outsider.requests()) == before


async def test_a_quota_used_up_while_parked_loses_no_answer(lab: Lab, outsider: Outsider) -> None:
    """What ends a first create only blocks a later one: there are answers to keep."""
    await lab.scenario(rounds=[A, DONE])
    run = await lab.start(timing=SOON)
    view = await parked(run, outsider)
    await lab.fault("runs.create", "quota", times=2)
    await run.submit((ids(view)[0], "yes"))

    blocked = await run.until(lambda view: view.runlane.blocked is not None)
    result = await run.result()

    assert blocked.runlane.blocked is not None
    assert blocked.runlane.blocked.kind == "quota"
    assert result.run.status == "completed"
    assert outcomes(result) == ["submitted"]


async def test_held_answers_that_do_not_fit_one_round_are_asked_anew(
    lab: Lab, outsider: Outsider
) -> None:
    """Two rounds' answers may be too much for one: what doesn't fit is asked again, with the room
    that is left, instead of a submit that is refused for good.
    """
    both = ask(("a", {"n": 1}), ("b", {"n": 2}))
    await lab.scenario(attempts={"1": [A, B], "2": [both, DONE]})
    run = await lab.start(timing=SOON)
    await run.answer_all("x" * 300_000)
    await run.until(lambda view: names(view) == ["b"])
    view = await parked(run, outsider)
    await run.submit((ids(view)[0], "y" * 300_000))

    view = await run.until(lambda view: view.runlane.attempt == 2 and names(view) == ["b"])
    assert await run.submit((ids(view)[0], "y" * 300_000)) == ["too_large"]
    assert await run.submit((ids(view)[0], "y")) == ["accepted"]

    assert (await run.result()).run.status == "completed"
