"""The events of a run, in the protocol's order, made of what is known of it. Pure.

They are told from facts and not from what somebody happened to see, so that two processes, or one
before and after its restart, tell the same: where `created`, `queued` and `in_progress` passed
unseen, they are told all the same. What the facts don't settle yet is told later, so what was told
once is never told otherwise.

| event's id | event |
|---|---|
| `run.created` | the run was created |
| `r1.queued`, `r1.in_progress`, `r1.requires_action` | the run, until its caller was first asked |
| `r2.queued`, … | the same, after the caller's answer |
| `s.<step>.created`, `.in_progress`, `.delta`, `.completed`, … | a step |
| `m.<message>.created`, … | a message; `.delta` is its text, or what of it nobody was told before |
| `run.cancelling`, `run.completed`, … | the run's end |
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote

from runlane.api import event_data, presenting
from runsapi import TERMINAL, RunStatus, RunStep
from runsapi.steps import MessageCreationStepDetails
from workflows.contract import AnswerOutcome, AskView, RunView

_TAKEN = (AnswerOutcome.SUBMITTED, AnswerOutcome.OVERTAKEN)
_AT_WORK = (
    RunStatus.IN_PROGRESS,
    RunStatus.REQUIRES_ACTION,
    RunStatus.COMPLETED,
    RunStatus.INCOMPLETE,
)
_STEP_ENDS = frozenset({"completed", "failed", "cancelled", "expired"})


class Event(NamedTuple):
    """One event of a stream."""

    id: str
    """Its place, under which a stream can be taken up again; the same in every process."""
    name: str
    make: Callable[[], dict[str, Any]]
    """Returns the data: of a long run most of it was made before."""
    message_id: str = ""
    """Of what a message's own events tell."""

    @property
    def data(self) -> dict[str, Any]:
        """The object that the event carries."""
        return self.make()


class Pause(StrEnum):
    """Why a story goes no further."""

    WORKING = "working"
    ASKING = "asking"
    """The caller's answer is awaited."""
    ENDED = "ended"


class MadeStep(NamedTuple):
    """A step under our run's id, and the upstream run that made it, by its number."""

    attempt: int
    step: RunStep


class Story(NamedTuple):
    """The events of a run so far."""

    events: list[Event]
    pause: Pause
    missing: str | None = None
    """The message without which it can't be told further."""


def story(
    view: RunView,
    steps: Sequence[MadeStep],
    messages: Mapping[str, Mapping[str, Any] | None],
    *,
    settled: bool = True,
) -> Story:
    """Tell a run as far as it is known.

    Args:
        view: as its worker or its result tells it.
        steps: of all its upstream runs, as they were after the view was read, in their order.
        messages: what is known of the messages of steps that have ended; None: gone upstream.
        settled: whether a step that isn't there yet won't come: some upstreams show them late.
    """
    teller = _Teller(view, steps, messages, settled=settled)
    try:
        pause = teller.tell()
    except _Unknown as unknown:
        return Story(teller.events, Pause.WORKING, unknown.message_id)
    return Story(teller.events, pause)


def before(event_id: str) -> str | None:
    """Return the event after which this one came, where it may have been taken back.

    An upstream may show a run at work, and not say so any more once that has failed.
    """
    leg, _, word = event_id.partition(".")
    return f"{leg}.queued" if word == "in_progress" and leg[:1] == "r" else None


class _Unknown(Exception):
    def __init__(self, message_id: str) -> None:
        super().__init__(message_id)
        self.message_id = message_id


class _Teller:
    def __init__(
        self,
        view: RunView,
        steps: Sequence[MadeStep],
        messages: Mapping[str, Mapping[str, Any] | None],
        *,
        settled: bool,
    ) -> None:
        self.events: list[Event] = []
        self._view, self._steps, self._messages = view, steps, messages
        self._settled = settled
        self._status = presenting.status_of(view)
        self._ended = view.run.status in TERMINAL
        self._asks = list(view.runlane.asks)
        self._told_asks = 0
        self._leg = 1
        self._cancelling_told = False
        self._known = _known_calls(view)

    def tell(self) -> Pause:
        """Tell everything; return why there is no more."""
        self._run("run.created", "created", RunStatus.QUEUED)
        self._run("r1.queued", "queued", RunStatus.QUEUED)
        if self._has_begun():
            self._run("r1.in_progress", "in_progress", RunStatus.IN_PROGRESS)
        elif not self._ended:
            return Pause.WORKING
        for index in range(len(self._steps)):
            pause = self._step(index)
            if pause is Pause.WORKING and any(map(self._is_open, self._asks[self._told_asks :])):
                # Whoever polls hears that the caller is asked, whatever the steps say.
                break
            if pause is not None:
                return pause
        pause = self._unshown(before=len(self._asks))
        if pause is None and self._ended:
            self._tell_cancelling()
            data = partial(presenting.shown, self._view)
            self.events.append(Event(f"run.{self._status}", f"thread.run.{self._status}", data))
            return Pause.ENDED
        return pause or Pause.WORKING

    # Steps

    def _step(self, index: int) -> Pause | None:
        made, is_last = self._steps[index], index + 1 == len(self._steps)
        step, over = made.step, not is_last or made.attempt < self._view.runlane.attempt
        matching = self._matching(made)
        # What no step shows was asked before.
        if matching and (pause := self._unshown(before=matching[0])):
            return pause
        message_id = message_of(step)
        self._begin(step, message_id)
        if not self._is_told_of(index):
            return Pause.WORKING
        if step.tool_calls:
            self._of_step(step, "delta", partial(event_data.calls_made, step))
        for each in matching:
            if self._ask(self._asks[each], step):
                return Pause.ASKING
        has_ended = step.status in _STEP_ENDS
        # A bad end comes with that of its upstream run; one that doesn't come may come late.
        if not (
            over or step.status == "completed" or (self._ended and (has_ended or self._settled))
        ):
            return Pause.WORKING
        if has_ended:
            if step.status != "completed" and is_last:
                self._tell_cancelling()
            if message_id:
                self._message(step, message_id)
            self._of_step(step, step.status, partial(step.model_dump, mode="json"))
        if matching and (over or step.status == "completed"):
            self._next_leg(at_work=not is_last)
        return None

    def _begin(self, step: RunStep, message_id: str) -> None:
        for word in ("created", "in_progress"):
            self._of_step(step, word, partial(event_data.step_begun, step))
        if message_id:
            for word in ("created", "in_progress"):
                begun = partial(event_data.message_begun, step, message_id)
                self._of_message(message_id, word, begun)

    def _is_told_of(self, index: int) -> bool:
        """Tell whether the run knows who is to answer the calls of a step, all of which are there.

        The upstream may be ahead of it: then nobody can tell yet who was asked.
        """
        made, later = self._steps[index], self._steps[index + 1 :]
        if self._ended or made.attempt < self._view.runlane.attempt:
            return True
        functions = {call.id for call in made.step.tool_calls if call.type == "function"}
        if functions:
            return bool(functions & self._known) or any(map(self._matching, later))
        return bool(later) or made.step.status in _STEP_ENDS or made.step.type != "tool_calls"

    def _message(self, step: RunStep, message_id: str) -> None:
        if message_id not in self._messages:
            raise _Unknown(message_id)
        message = self._messages[message_id]
        if message is None:
            return
        whole = step.status == "completed" and message.get("status") != "incomplete"
        word = "completed" if whole else "incomplete"
        if message.get("content"):
            self._of_message(message_id, "delta", partial(event_data.message_text, message))
        ended = partial(event_data.message_ended, message, self._view.run.id, word)
        self._of_message(message_id, word, ended)

    # Rounds in which the caller is asked

    def _matching(self, made: MadeStep) -> list[int]:
        """Return which questions, told so far by none, the calls of a step were."""
        ids = {call.id for call in made.step.tool_calls}
        found: list[int] = []
        for index in range(self._told_asks, len(self._asks)):
            ask = self._asks[index]
            is_it = ask.attempt == made.attempt and bool(ids & set(ask.call_ids))
            # A round may ask more than once, where a tool has become the caller's.
            if found and (not is_it or ask.round != self._asks[found[0]].round):
                break
            if is_it:
                found.append(index)
        return found

    def _unshown(self, *, before: int) -> Pause | None:
        """Tell of questions that no step shows."""
        while self._told_asks < before:
            ask = self._asks[self._told_asks]
            is_open = self._is_open(ask)
            if is_open and ask.call_ids and not self._settled:
                return Pause.WORKING
            if self._ask(ask, None):
                return Pause.ASKING
            later = self._told_asks < len(self._asks) or ask.attempt < self._view.runlane.attempt
            if later or self._was_taken(ask) or not (ask.call_ids or self._ended):
                self._next_leg(at_work=later)
            elif not self._ended:
                return Pause.WORKING
        return None

    def _ask(self, ask: AskView, step: RunStep | None) -> bool:
        """Tell that the caller was asked; return whether the answer is still awaited."""
        is_open = self._is_open(ask)
        action = event_data.action(self._view, ask, step, is_open=is_open)
        data = partial(event_data.run_at, self._view, RunStatus.REQUIRES_ACTION, action)
        before = sum(each.id.startswith(f"r{self._leg}.requires_action") for each in self.events)
        more = f".{before + 1}" if before else ""
        event_id = f"r{self._leg}.requires_action{more}"
        self.events.append(Event(event_id, "thread.run.requires_action", data))
        self._told_asks += 1
        return is_open

    def _is_open(self, ask: AskView) -> bool:
        if self._status != RunStatus.REQUIRES_ACTION:
            return False
        if not ask.call_ids:
            return not self._view.runlane.pending and ask is self._asks[-1]
        return any(
            call.tool_call_id in ask.call_ids
            and (call.attempt, call.round, call.handled_by) == (ask.attempt, ask.round, "caller")
            for call in self._view.runlane.pending
        )

    def _was_taken(self, ask: AskView) -> bool:
        return any(
            answer.outcome in _TAKEN and set(ask.call_ids) & {answer.tool_call_id, *answer.call_ids}
            for answer in self._view.runlane.answers
        )

    def _next_leg(self, *, at_work: bool) -> None:
        self._leg += 1
        self._run(f"r{self._leg}.queued", "queued", RunStatus.QUEUED)
        more_asked = self._told_asks < len(self._asks)
        if at_work or more_asked or self._status in _AT_WORK:
            self._run(f"r{self._leg}.in_progress", "in_progress", RunStatus.IN_PROGRESS)

    # The run

    def _has_begun(self) -> bool:
        view = self._view
        return bool(
            self._status in _AT_WORK
            or self._steps
            or self._asks
            or view.run.started_at is not None
            or view.runlane.attempt > 1
        )

    def _tell_cancelling(self) -> None:
        """Tell of a cancel where its end is known: until then what completes comes before it."""
        if self._ended and self._view.runlane.cancel_requested and not self._cancelling_told:
            self._cancelling_told = True
            self._run("run.cancelling", "cancelling", RunStatus.CANCELLING)

    def _run(self, event_id: str, word: str, status: RunStatus) -> None:
        data = partial(event_data.run_at, self._view, status)
        self.events.append(Event(event_id, f"thread.run.{word}", data))

    def _of_step(self, step: RunStep, word: str, data: Callable[[], dict[str, Any]]) -> None:
        self.events.append(Event(f"s.{quote(step.id)}.{word}", f"thread.run.step.{word}", data))

    def _of_message(self, message_id: str, word: str, data: Callable[[], dict[str, Any]]) -> None:
        event_id = f"m.{quote(message_id)}.{word}"
        self.events.append(Event(event_id, f"thread.message.{word}", data, message_id))


def _known_calls(view: RunView) -> set[str]:
    known = view.runlane
    ids = {each for ask in known.asks for each in ask.call_ids}
    ids |= {each for a in known.answers for each in (a.tool_call_id, *a.call_ids)}
    ids |= {call.tool_call_id for call in known.pending}
    return ids | {tool.tool_call_id for tool in known.running}


def message_of(step: RunStep) -> str:
    """Return the id of the message that a step makes; empty: it makes none."""
    details = step.step_details
    if isinstance(details, MessageCreationStepDetails):
        return details.message_creation.message_id
    return ""
