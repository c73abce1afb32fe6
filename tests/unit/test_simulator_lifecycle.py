"""The simulated runs' state machine, on a clock of the test's own."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from runsapi.simulator.engine import Engine
from runsapi.simulator.errors import ApiError
from runsapi.simulator.objects import Run
from runsapi.simulator.scenario import parse_scenario

CALL = {"name": "lookup", "arguments": {"id": 1}}
FUNCTION = {"type": "function", "function": {"name": "lookup", "parameters": {}}}


class Time:
    """A monotonic clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Service:
    """An engine with its clock and one thread."""

    def __init__(self, **scenario: Any) -> None:
        self.time = Time()
        self.engine = Engine(clock=self.time)
        self.engine.register(parse_scenario({"queued": 1, "in_progress": 2, **scenario}))

    def create(self, **fields: Any) -> Run:
        """Start a run on the thread."""
        return self.engine.create_run("thread_1", {"assistant_id": "asst_1", **fields})

    def after(self, seconds: float, run: Run) -> str:
        """Let time pass and return the run's status then."""
        self.time.now += seconds
        return self.engine.run("thread_1", run.id).status

    def looks(self, run: Run, count: int) -> list[str]:
        """Retrieve so often and return what was seen."""
        found = []
        for _ in range(count):
            self.engine.look(self.engine.run("thread_1", run.id))
            found.append(run.status)
        return found

    def answer(self, run: Run, output: str = "{}") -> None:
        """Submit the same output for every call."""
        self.engine.submit(
            run, {"tool_outputs": [{"tool_call_id": i, "output": output} for i in call_ids(run)]}
        )


def call_ids(run: Run) -> list[str]:
    """Return the ids of the calls that wait."""
    assert run.required_action is not None
    calls = run.required_action[run.required_action["type"]]["tool_calls"]
    return [call["id"] for call in calls]


def test_a_run_goes_from_queued_over_its_calls_to_completed() -> None:
    """Each leg is queued, then in progress; a submit queues the run again."""
    service = Service(rounds=[{"calls": [CALL]}])
    run = service.create()

    assert run.status == "queued"
    assert service.after(1, run) == "in_progress"
    assert service.after(2, run) == "requires_action"
    assert service.after(300, run) == "requires_action"
    service.answer(run, "42")
    assert run.status == "queued"
    assert run.required_action is None
    assert service.after(1, run) == "in_progress"
    assert service.after(2, run) == "completed"
    assert run.thread.messages[-1].content[0]["text"]["value"] == "lookup: 42"


def test_a_late_look_finds_each_transition_at_its_own_time() -> None:
    """Looking late changes no timestamp: the transitions happened when they were due."""
    service = Service()
    run = service.create()
    service.after(500, run)

    assert run.times == {
        "started": run.created_at + 1,
        "completed": run.created_at + 3,
    }


def test_expiry_counts_from_creation_and_is_not_extended_by_a_submit() -> None:
    """600 s after creation a run is expired, whenever its outputs came."""
    service = Service(rounds=[{"calls": [CALL]}, {"calls": [CALL]}])
    run = service.create()
    service.after(590, run)
    service.answer(run)

    assert service.after(9, run) == "requires_action"
    assert run.expires_at == run.created_at + 600
    assert service.after(1, run) == "expired"
    assert run.wire()["expires_at"] is None
    assert [step.status for step in run.steps] == ["completed", "expired"]
    with pytest.raises(ApiError, match='Runs in status "expired" do not accept tool outputs'):
        service.engine.submit(run, {"tool_outputs": []})


def test_the_end_of_a_run_unlocks_its_thread() -> None:
    """A thread takes the next run and messages as soon as its run has ended, not before."""
    service = Service()
    first = service.create()

    with pytest.raises(ApiError, match=f"already has an active run {first.id}"):
        service.create(additional_messages=[{"role": "user", "content": "lost"}])
    assert service.engine.thread("thread_1").messages == []
    service.after(3, first)
    service.engine.add_message("thread_1", {"role": "user", "content": "next"})
    second = service.create()

    assert list(service.engine.thread("thread_1").runs) == [first.id, second.id]


@pytest.mark.parametrize("status", ["queued", "in_progress", "requires_action"])
def test_cancel_works_in_every_state_that_is_not_terminal(status: str) -> None:
    """Cancel answers `cancelling`, keeps the thread locked, and ends `cancelled`."""
    service = Service(rounds=[{"calls": [CALL]}], cancel_seconds=5)
    run = service.create()
    service.after({"queued": 0, "in_progress": 1, "requires_action": 3}[status], run)
    assert run.status == status
    service.engine.cancel(run)

    assert run.status == "cancelling"
    with pytest.raises(ApiError, match="Cannot cancel run with status 'cancelling'"):
        service.engine.cancel(run)
    with pytest.raises(ApiError, match="already has an active run"):
        service.create()
    assert service.after(5, run) == "cancelled"
    with pytest.raises(ApiError, match="Cannot cancel run with status 'cancelled'"):
        service.engine.cancel(run)


def test_a_cancel_can_lose() -> None:
    """With `cancel_loses` a run that was cancelled completes all the same."""
    service = Service(cancel_loses=True, cancel_seconds=1)
    run = service.create()
    service.engine.cancel(run)

    assert service.after(1, run) == "completed"


def test_a_leg_can_go_by_retrieves() -> None:
    """With `polls` time brings no end, and so many retrieves see the leg unfinished."""
    service = Service(polls=2, rounds=[{"calls": [CALL]}])
    run = service.create()

    assert service.after(100, run) == "queued"
    assert service.looks(run, 3) == ["queued", "in_progress", "requires_action"]
    service.answer(run)
    assert service.looks(run, 3) == ["queued", "in_progress", "completed"]


def test_an_unknown_status_shows_and_passes() -> None:
    """`status` stands between queued and in progress, by seconds or by retrieves."""
    timed = Service(rounds=[{"status": "generating", "status_seconds": 5}])
    run = timed.create()
    assert timed.after(1, run) == "generating"
    assert timed.after(5, run) == "in_progress"
    assert timed.after(2, run) == "completed"

    counted = Service(polls=0, rounds=[{"status": "generating", "status_polls": 2}])
    run = counted.create()
    assert counted.looks(run, 4) == ["generating", "generating", "generating", "in_progress"]
    assert counted.looks(run, 1) == ["completed"]


def test_a_run_that_never_ends_still_expires_unless_told_otherwise() -> None:
    """`ends = "never"` works until expiry; with `expires_after = 0` for ever."""
    service = Service(rounds=[{"ends": "never"}])
    run = service.create()
    assert service.after(599, run) == "in_progress"
    assert service.after(1, run) == "expired"

    service = Service(rounds=[{"ends": "never"}], expires_after=0)
    run = service.create()
    assert service.after(1e6, run) == "in_progress"
    assert run.expires_at is None


def test_an_endless_scenario_always_asks_again_under_new_ids() -> None:
    """Each round asks anew, and no call id comes twice."""
    service = Service(queued=0, in_progress=0, endless=True, rounds=[{"calls": [CALL]}])
    run = service.create()
    seen: list[str] = []
    for _ in range(5):
        assert service.after(0, run) == "requires_action"
        seen += call_ids(run)
        service.answer(run)

    assert len(set(seen)) == 5


def test_an_attempt_named_in_the_metadata_can_ask_otherwise() -> None:
    """`attempts` replaces the rounds of runs whose `runlane_attempt` it names."""
    other = {"name": "lookup", "arguments": {"id": 2}}
    service = Service(rounds=[{"calls": [CALL]}], attempts={"2": [{"calls": [other]}]})
    asked = []
    for attempt in ("1", "2"):
        run = service.create(metadata={"runlane_attempt": attempt})
        service.after(3, run)
        assert run.required_action is not None
        call = run.required_action["submit_tool_outputs"]["tool_calls"][0]
        asked.append(call["function"]["arguments"])
        service.engine.force(run, "expired")

    assert asked == ['{"id": 1}', '{"id": 2}']


def test_approvals_are_answered_by_approvals() -> None:
    """`submit_tool_approval` waits for `tool_approvals` of exactly its calls."""
    call = {"type": "mcp", "name": "delete", "server_label": "files"}
    part = {"required_action_type": "submit_tool_approval", "calls": [call]}
    service = Service(rounds=[part])
    run = service.create()
    service.after(3, run)
    assert run.required_action is not None
    (asked,) = run.required_action["submit_tool_approval"]["tool_calls"]

    assert (asked["type"], asked["server_label"]) == ("mcp", "files")
    with pytest.raises(ApiError, match="Expected tool outputs for call_ids"):
        service.engine.submit(run, {"tool_outputs": []})
    service.engine.submit(run, {"tool_approvals": [{"tool_call_id": asked["id"], "approve": True}]})
    assert service.after(3, run) == "completed"


def test_a_hosted_tool_resolves_by_itself() -> None:
    """`resolves_after` leaves requires_action with no submit, even with no calls in it."""
    part = {"required_action_type": "submit_tool_outputs", "resolves_after": 10}
    service = Service(rounds=[part])
    run = service.create()

    assert service.after(3, run) == "requires_action"
    assert run.required_action == {
        "type": "submit_tool_outputs",
        "submit_tool_outputs": {"tool_calls": []},
    }
    assert service.after(10, run) == "queued"
    assert service.after(3, run) == "completed"


def test_a_run_without_scenario_asks_for_parallel_calls_unless_forbidden() -> None:
    """Declared functions are called together, one a round, or not at all, as the request says."""

    def asked(**fields: Any) -> int:
        service = Service()
        run = service.create(tools=[FUNCTION, FUNCTION], **fields)
        service.after(3, run)
        return len(call_ids(run)) if run.required_action else 0

    assert asked() == 2
    assert asked(parallel_tool_calls=False) == 1
    assert asked(tool_choice="none") == 0


@pytest.mark.parametrize("form", ["null", "zero", "milliseconds"])
def test_expires_at_can_be_shown_as_other_servers_show_it(form: str) -> None:
    """What is shown may be odd; the run expires at its time all the same."""
    service = Service(rounds=[{"ends": "never"}], expires_at_form=form)
    run = service.create()
    expected = {"null": None, "zero": 0, "milliseconds": (run.created_at + 600) * 1000}[form]

    assert run.expires_at == expected
    assert service.after(600, run) == "expired"


def test_a_forced_status_stays_until_it_is_forced_again() -> None:
    """A forced status that isn't terminal holds; a terminal one ends the run properly."""
    service = Service()
    run = service.create()
    service.engine.force(run, "generating")
    assert service.after(60, run) == "generating"
    service.engine.force(run, "failed")

    assert run.status == "failed"
    assert run.last_error is not None
    assert run.thread.active is None
    assert run.usage is not None


def test_strict_refuses_what_was_never_created() -> None:
    """A strict engine knows only ids it gave out."""
    engine = Engine(strict=True)
    with pytest.raises(ApiError, match="No thread found with id 'thread_x'"):
        engine.thread("thread_x")
    thread = engine.create_thread({})
    with pytest.raises(ApiError, match="No assistant found with id 'asst_x'"):
        engine.create_run(thread.id, {"assistant_id": "asst_x"})


def test_a_message_is_written_word_by_word_while_the_run_is_at_work() -> None:
    """It grows at the speed asked for, and only then the run ends; a stream hears each word."""
    service = Service(rounds=[{"says": "one two three", "words_per_second": 1}])
    run = service.create()
    heard: deque[tuple[str, str]] = deque()
    run.listeners.append(heard)
    found = []
    for seconds in (3.0, 1.0, 1.0, 1.0):
        status = service.after(seconds, run)
        [message] = run.thread.messages
        text = message.content[0]["text"]["value"] if message.content else ""
        found.append((status, message.status, text))
    assert found == [
        ("in_progress", "in_progress", ""),
        ("in_progress", "in_progress", "one"),
        ("in_progress", "in_progress", "one two"),
        ("in_progress", "in_progress", "one two three"),
    ]
    assert ["in_progress"] == [step.status for step in run.steps]
    assert service.after(1, run) == "completed"
    [message] = run.thread.messages
    assert ("completed", "completed") == (message.status, run.steps[0].status)
    assert [each for each, _ in heard if each == "thread.message.delta"] == [
        "thread.message.delta"
    ] * 3
    assert "thread.run.completed" == heard[-1][0]


@pytest.mark.parametrize("ends", ["cancelled", "expired", "failed"])
def test_a_message_that_is_broken_off_is_incomplete(ends: str) -> None:
    """It holds what was written until then, and its step ends as the run does."""
    service = Service(rounds=[{"says": "one two three", "words_per_second": 1}])
    run = service.create()
    service.after(3, run)
    service.after(2, run)
    service.engine.force(run, ends)
    [message] = run.thread.messages
    assert ("incomplete", "one two") == (message.status, message.content[0]["text"]["value"])
    assert [ends] == [step.status for step in run.steps]
    assert service.after(60, run) == ends
