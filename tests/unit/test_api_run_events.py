"""The events of a run, made of facts alone."""

import time
from typing import Any

from runlane.api.run_events import MadeStep, Pause, Story, before, story
from runsapi import Run, RunStep
from workflows.contract import (
    AnswerOutcome,
    AnswerView,
    AskView,
    AttemptView,
    PendingCall,
    RunlaneView,
    RunView,
)

RUN = "run_ours"


def view(status: str, *, attempts: int = 1, **known: Any) -> RunView:
    """Return a run in a status."""
    run = Run.model_validate(
        {
            "id": RUN,
            "thread_id": "thread_1",
            "assistant_id": "asst_1",
            "status": status,
            "created_at": 1,
            "started_at": known.pop("started_at", None),
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
    )
    known["attempts"] = [
        AttemptView(attempt=n + 1, upstream_run_id=f"run_up{n + 1}", status="in_progress")
        for n in range(attempts)
    ]
    known["attempt"] = attempts
    return RunView(run=run, runlane=RunlaneView(deadline_at=time.time(), **known))


def step(step_id: str, status: str = "completed", *, attempt: int = 1, **details: Any) -> MadeStep:
    """Return a step that made these calls or wrote that message."""
    kind = "tool_calls" if "calls" in details else "message_creation"
    wire: dict[str, Any] = {"type": kind}
    if kind == "tool_calls":
        wire["tool_calls"] = [
            {"id": call, "type": "function", "function": {"name": "f", "arguments": "{}"}}
            for call in details["calls"]
        ]
    else:
        wire["message_creation"] = {"message_id": details["message"]}
    fields = {"id": step_id, "type": kind, "status": status, "run_id": RUN, "step_details": wire}
    return MadeStep(attempt, RunStep.model_validate(fields))


def message(message_id: str, text: str = "Hello.") -> dict[str, Any]:
    """Return a message as the upstream shows it."""
    part = {"type": "text", "text": {"value": text, "annotations": []}}
    return {"id": message_id, "run_id": "run_up1", "status": "completed", "content": [part]}


def pending(call: str, *, attempt: int = 1, round: int = 1, by: str = "caller") -> PendingCall:
    """Return a call that waits."""
    return PendingCall.model_validate(
        {
            "tool_call_id": call,
            "name": "f",
            "arguments": "{}",
            "arguments_digest": "",
            "attempt": attempt,
            "round": round,
            "handled_by": by,
        }
    )


def answer(
    call: str, *more: str, outcome: str = "submitted", attempt: int = 1, by: str | None = None
) -> AnswerView:
    """Return the answer to a call, which later attempts asked for under other ids."""
    return AnswerView(
        tool_call_id=call,
        name="f",
        attempt=attempt,
        round=1,
        outcome=AnswerOutcome(outcome),
        output_digest="",
        by=by,
        call_ids=[call, *more],
    )


def ids(told: Story) -> list[str]:
    """Return the events' ids."""
    return [event.id for event in told.events]


START = ["run.created", "r1.queued"]
BEGUN = [*START, "r1.in_progress"]
ASKED = [*BEGUN, "s.s1.created", "s.s1.in_progress", "s.s1.delta", "r1.requires_action"]
ANSWERED = [*ASKED, "s.s1.completed", "r2.queued", "r2.in_progress"]
WRITING = ["s.s2.created", "s.s2.in_progress", "m.m1.created", "m.m1.in_progress"]
WRITTEN = [*WRITING, "m.m1.delta", "m.m1.completed", "s.s2.completed"]

ASK = AskView(attempt=1, round=1, call_ids=["a"])
CALLED = step("s1", calls=["a"])
CALLING = step("s1", "in_progress", calls=["a"])
SAID = step("s2", message="m1")
SAYING = step("s2", "in_progress", message="m1")
MESSAGES = {"m1": message("m1")}


def test_a_run_with_a_tool_and_a_message_is_told_in_the_protocols_order() -> None:
    """What a run's facts tell at its end is what they told step by step, and more."""
    answered: dict[str, Any] = {"asks": [ASK], "answers": [answer("a")]}
    stages = [
        (START, Pause.WORKING, view("queued"), []),
        (BEGUN, Pause.WORKING, view("in_progress"), []),
        (
            ASKED,
            Pause.ASKING,
            view("requires_action", asks=[ASK], pending=[pending("a")]),
            [CALLING],
        ),
        (ASKED, Pause.WORKING, view("queued", **answered), [CALLING]),
        (ANSWERED[:-1], Pause.WORKING, view("queued", **answered), [CALLED]),
        (ANSWERED, Pause.WORKING, view("in_progress", **answered), [CALLED]),
        ([*ANSWERED, *WRITING], Pause.WORKING, view("in_progress", **answered), [CALLED, SAYING]),
        ([*ANSWERED, *WRITTEN], Pause.WORKING, view("in_progress", **answered), [CALLED, SAID]),
        (
            [*ANSWERED, *WRITTEN, "run.completed"],
            Pause.ENDED,
            view("completed", **answered),
            [CALLED, SAID],
        ),
    ]
    for expected, pause, seen, steps in stages:
        told = story(seen, steps, MESSAGES)
        assert (expected, pause) == (ids(told), told.pause)
    names = [event.name for event in told.events]
    assert "thread.run.created" == names[0]
    assert "thread.run.step.created" == names[3]
    assert "thread.message.delta" == names[names.index("thread.message.in_progress") + 1]


def test_each_event_carries_what_held_at_that_time() -> None:
    """No usage before the end, the calls in `requires_action`, our run's id in all."""
    seen = view("completed", asks=[ASK], answers=[answer("a")])
    events = {e.id: e.data for e in story(seen, [CALLED, SAID], MESSAGES).events}
    assert ("queued", None, None) == tuple(
        events["run.created"][each] for each in ("status", "usage", "required_action")
    )
    action = events["r1.requires_action"]["required_action"]["submit_tool_outputs"]
    assert ["a"] == [call["id"] for call in action["tool_calls"]]
    assert [] == events["s.s1.created"]["step_details"]["tool_calls"]
    assert "in_progress" == events["s.s1.created"]["status"]
    [made] = events["s.s1.delta"]["delta"]["step_details"]["tool_calls"]
    assert (0, "a", None) == (made["index"], made["id"], made["function"]["output"])
    [part] = events["m.m1.delta"]["delta"]["content"]
    assert (0, "Hello.") == (part["index"], part["text"]["value"])
    assert RUN == events["m.m1.completed"]["run_id"]
    assert 2 == events["run.completed"]["usage"]["total_tokens"]


def test_calls_that_others_answer_are_not_asked_of_the_caller() -> None:
    """A round of workers and people goes by without `requires_action`, and without a new leg."""
    waiting = view("requires_action", pending=[pending("a", by="people")])
    assert ([*BEGUN, *ASKED[3:6]], Pause.WORKING) == (
        ids(told := story(waiting, [CALLING], {})),
        told.pause,
    )
    done = view("completed", answers=[answer("a", by="tool:f")])
    assert [*BEGUN, *ASKED[3:6], "s.s1.completed", *WRITTEN, "run.completed"] == ids(
        story(done, [CALLED, SAID], MESSAGES)
    )


def test_what_the_run_has_not_heard_of_is_told_later() -> None:
    """The upstream asks, and nobody knows yet who is to answer: neither order may be guessed."""
    told = story(view("in_progress"), [CALLING], {})
    assert ([*BEGUN, "s.s1.created", "s.s1.in_progress"], Pause.WORKING) == (ids(told), told.pause)
    # It has even been answered meanwhile.
    assert ids(told) == ids(story(view("in_progress"), [CALLED], {}))


def test_a_recreated_upstream_run_is_no_second_run() -> None:
    """The call comes again under another id, and nobody is asked again."""
    again = step("s3", attempt=2, calls=["z"])
    said = step("s2", attempt=2, message="m1")
    expired = step("s1", "expired", calls=["a"])
    parked = view("requires_action", asks=[ASK], pending=[pending("a")])
    assert ASKED == ids(story(parked, [expired], {}))
    answered: dict[str, Any] = {"asks": [ASK], "answers": [answer("a", "z")]}
    assert ASKED == ids(story(view("queued", **answered), [expired], {}))
    ended = story(view("completed", attempts=2, **answered), [expired, again, said], MESSAGES)
    second = ["s.s3.created", "s.s3.in_progress", "s.s3.delta", "s.s3.completed"]
    assert ids(ended) == [
        *ASKED,
        *("s.s1.expired", "r2.queued", "r2.in_progress"),
        *second,
        *WRITTEN,
        "run.completed",
    ]


def test_a_new_call_of_a_recreated_upstream_run_is_asked() -> None:
    """A question that nobody has answered is one, whichever attempt asks it."""
    more = AskView(attempt=2, round=2, call_ids=["b"])
    seen = view(
        "requires_action",
        attempts=2,
        asks=[ASK, more],
        answers=[answer("a")],
        pending=[pending("b", attempt=2, round=2)],
    )
    steps = [step("s1", "expired", calls=["a"]), step("s3", "in_progress", attempt=2, calls=["b"])]
    told = story(seen, steps, {})
    assert (Pause.ASKING, "r2.requires_action") == (told.pause, ids(told)[-1])


def test_a_cancelled_run_says_so_before_its_step_ends() -> None:
    """`cancelling` is told with the end, after all that was completed."""
    stopping = view("cancelling", cancel_requested=True, asks=[ASK], pending=[pending("a")])
    cancelled = step("s1", "cancelled", calls=["a"])
    assert ASKED == ids(story(stopping, [CALLING], {}))
    assert ASKED == ids(story(stopping, [cancelled], {}))
    told = story(view("cancelled", cancel_requested=True, asks=[ASK]), [cancelled], {})
    assert [*ASKED, "run.cancelling", "s.s1.cancelled", "run.cancelled"] == ids(told)


def test_a_run_that_never_began_was_never_in_progress() -> None:
    """It was refused, or cancelled in its queue."""
    assert [*START, "run.failed"] == ids(story(view("failed", attempts=0), [], {}))
    assert [*BEGUN, "run.failed"] == ids(story(view("failed", started_at=5), [], {}))


def test_an_upstream_without_steps_is_told_by_its_rounds() -> None:
    """The caller is asked, once it is sure that no step comes."""
    asking = view("requires_action", asks=[ASK], pending=[pending("a")])
    assert Pause.WORKING == story(asking, [], {}, settled=False).pause
    told = story(asking, [], {})
    assert ([*BEGUN, "r1.requires_action"], Pause.ASKING) == (ids(told), told.pause)
    done = view("completed", asks=[ASK], answers=[answer("a")])
    ends = ["r1.requires_action", "r2.queued", "r2.in_progress", "run.completed"]
    assert [*BEGUN, *ends] == ids(story(done, [], {}))


def test_a_message_is_fetched_before_its_end_is_told() -> None:
    """The story names what it lacks; a message that is gone is left out."""
    seen = view("completed")
    told = story(seen, [SAID], {})
    assert ("m1", [*BEGUN, *WRITING]) == (told.missing, ids(told))
    gone = story(seen, [SAID], {"m1": None})
    assert [*BEGUN, *WRITING, "s.s2.completed", "run.completed"] == ids(gone)


def test_an_action_that_outputs_cant_answer_is_told() -> None:
    """A stream ends there as a poll does, whatever kind of step stands open."""
    other = step("s1", "in_progress", calls=[])
    told = story(view("requires_action", asks=[AskView(attempt=1, round=0)]), [other], {})
    assert (Pause.ASKING, "r1.requires_action") == (told.pause, ids(told)[-1])


def test_an_in_progress_that_was_taken_back_has_the_place_of_its_queued() -> None:
    """An upstream may show a run at work and not say so any more once it failed."""
    assert "r1.in_progress" not in ids(story(view("failed"), [], {}))
    assert "r1.queued" == before("r1.in_progress")
    assert before("s.s1.in_progress") is None


def test_a_question_that_no_step_shows_names_its_own_calls() -> None:
    """Not those of a later one that is open."""
    more = AskView(attempt=1, round=2, call_ids=["b"])
    seen = view(
        "requires_action",
        asks=[ASK, more],
        answers=[answer("a")],
        pending=[pending("b", round=2)],
    )
    events = {event.id: event.data for event in story(seen, [], {}).events}
    action = events["r1.requires_action"]["required_action"]["submit_tool_outputs"]
    assert ["a"] == [call["id"] for call in action["tool_calls"]]
    assert "r2.requires_action" in events
