"""The lifecycle of one run: which transition is due when, and what it brings about.

Nothing ticks: a run is brought up to now whenever it is looked at, each transition as of the moment
it was due. Ten thousand waiting runs thus cost no timers. Only streams sleep, until the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from runsapi.simulator import model
from runsapi.simulator.errors import JSON
from runsapi.simulator.objects import TERMINAL, Message, Run, Step, new_id, text_content, usage_of

_KNOWN = TERMINAL | {"queued", "in_progress", "requires_action", "cancelling"}

Transition = Callable[[Run, float], None]
Due = tuple[float, Transition]


class Clock:
    """Instants on a monotonic clock, and what they are in seconds since 1970."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._epoch = time.time() - now()

    def wall(self, instant: float | None = None) -> int:
        """Return whole seconds since 1970 for an instant, or for now."""
        return int(self._epoch + (self.now() if instant is None else instant))

    def since_1970(self, instant: float) -> float:
        """Return an instant in a form that another process understands."""
        return self._epoch + instant

    def instant(self, since_1970: float) -> float:
        """Return the instant on this clock."""
        return since_1970 - self._epoch


class Lifecycle:
    """The transitions of runs. `ask`, `enter`, `end` and `requeue` are for the engine's verbs."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.touched: set[str] = set()
        """Ids of threads that may have changed; emptied by whoever keeps them."""

    def look(self, run: Run) -> None:
        """Count one retrieve, for the legs that go by retrieves."""
        if not self._goes_by_looks(run):
            return
        now = self._clock.now()
        part = run.round
        run.looks += 1
        if run.status not in ("queued", "in_progress"):
            if run.looks > (part.status_polls or 0):
                self._work(run, now)
            return
        ready = run.looks > (part.polls or 0)
        if run.status == "queued" and (ready or run.looks > 1):
            looks = run.looks
            self._start(run, now)
            run.looks = looks if run.status == "in_progress" else 0
        if ready and run.status == "in_progress" and part.ends != "never":
            self._finish(run, now)

    def advance(self, run: Run) -> None:
        """Bring the run up to now."""
        now = self._clock.now()
        while (due := self.due(run)) is not None and due[0] <= now:
            due[1](run, due[0])

    def due(self, run: Run) -> Due | None:
        """Return when the run changes next by itself, and how."""
        if run.ended:
            return None
        options: list[Due] = []
        if run.expires is not None:
            options.append((run.expires, lambda run, at: self.end(run, "expired", at)))
        step = None if run.forced else self._next(run)
        if step is not None:
            # Never before the run was entered: a transition can't be due in its own past.
            options.append((max(step[0], run.entered), step[1]))
        return min(options, key=lambda option: option[0], default=None)

    def _goes_by_looks(self, run: Run) -> bool:
        if run.forced or run.writing is not None:
            return False
        if run.status in ("queued", "in_progress"):
            return run.round.polls is not None
        return run.status == run.round.status and run.round.status_polls is not None

    def _next(self, run: Run) -> Due | None:
        # A stream makes no retrieves, so what goes by retrieves goes by time while one is open.
        if self._goes_by_looks(run) and not run.listeners:
            return None
        part = run.round
        if run.writing is not None and run.status == "in_progress":
            return run.wrote + 1 / (part.words_per_second or 1.0), self._next_word
        steps: dict[str, tuple[float | None, Transition]] = {
            "queued": (part.queued, self._start),
            "in_progress": (None if part.ends == "never" else part.in_progress, self._finish),
            "requires_action": (part.resolves_after, self._resolve),
            "cancelling": (run.scenario.cancel_seconds, self._finish_cancel),
        }
        seconds, transition = steps.get(run.status, (part.status_seconds, self._work))
        return None if seconds is None else (run.entered + seconds, transition)

    def _resolve(self, run: Run, at: float) -> None:
        self.requeue(run, at, {})

    def enter(self, run: Run, status: str, at: float) -> None:
        """Put a run into a status and tell its streams."""
        self.touched.add(run.thread_id)
        run.status = status
        run.entered = at
        run.looks = 0
        run.forced = False
        if status != "requires_action":
            run.required_action = None
        if status in _KNOWN:
            run.emit(f"thread.run.{status}")

    def _start(self, run: Run, at: float) -> None:
        run.times.setdefault("started", self._clock.wall(at))
        self.enter(run, run.round.status or "in_progress", at)

    def _work(self, run: Run, at: float) -> None:
        self.enter(run, "in_progress", at)

    def _finish(self, run: Run, at: float) -> None:
        text = _spoken(run)
        if text is not None and run.round.words_per_second is not None:
            message = self._begin_message(run, at)
            run.writing = {"id": message.id, "words": text.split(" "), "told": 0}
            run.wrote = at
        else:
            self._finish_leg(run, at)

    def _finish_leg(self, run: Run, at: float) -> None:
        if run.round.asks:
            self.ask(run, at)
        else:
            self.end(run, run.round.ends or "completed", at)

    def _next_word(self, run: Run, at: float) -> None:
        writing = run.writing
        assert writing is not None
        self.touched.add(run.thread_id)
        run.wrote = at
        words, told = writing["words"], writing["told"]
        if told == len(words):
            self._finish_leg(run, at)
            return
        message = _written(run, writing["id"])
        writing["told"] = told + 1
        message.content = text_content(" ".join(words[: told + 1]))
        run.emit(
            "thread.message.delta",
            _message_delta(message, words[0] if told == 0 else " " + words[told]),
        )

    def ask(self, run: Run, at: float) -> None:
        """Stop at `requires_action` with the calls of the round."""
        if run.writing is not None:
            self._end_writing(run, at, "completed")
        elif run.round.says is not None:
            self._write(run, model.filled(run.round.says, run.outputs), at)
        run.required_action = action = model.required_action_for(run.round)
        calls = [
            {**call, "function": {**call["function"], "output": None}}
            if "function" in call
            else {**call, "output": None}
            for call in action[action["type"]]["tool_calls"]
        ]
        step = self._step(run, {"type": "tool_calls", "tool_calls": []}, at)
        delta = [{"index": n, **call} for n, call in enumerate(calls)]
        run.emit("thread.run.step.delta", _step_delta(step, delta))
        step.details = {"type": "tool_calls", "tool_calls": calls}
        self.enter(run, "requires_action", at)

    def requeue(self, run: Run, at: float, answers: dict[str, str]) -> None:
        """Go on to the next round; `answers` are outputs by call id."""
        step = run.steps[-1] if run.steps else None
        if step is not None and step.status == "in_progress":
            for call in step.details["tool_calls"]:
                call.get("function", call)["output"] = answers.get(call["id"])
            self._close(step, "completed", at)
        run.at += 1
        self.enter(run, "queued", at)

    def _finish_cancel(self, run: Run, at: float) -> None:
        self.end(run, "completed" if run.scenario.cancel_loses else "cancelled", at)

    def end(self, run: Run, status: str, at: float) -> None:
        """End a run, free its thread and close its open step."""
        if run.writing is not None:
            self._end_writing(run, at, "completed" if status == "completed" else "incomplete")
        elif status in ("completed", "incomplete"):
            self._write(run, model.last_words(run), at, status)
        if status == "failed":
            run.last_error = run.round.last_error.model_dump()
        if status == "incomplete":
            reason = run.round.incomplete_reason
            run.incomplete_details = {"reason": reason} if reason else {}
        for step in run.steps:
            if step.status == "in_progress":
                self._close(step, status if status in ("expired", "failed") else "cancelled", at)
        run.times[status] = self._clock.wall(at)
        run.usage = usage_of(run)
        if run.thread.active is run:
            run.thread.active = None
        self.enter(run, status, at)

    def _step(self, run: Run, details: JSON, at: float) -> Step:
        step = Step(new_id("step"), run, self._clock.wall(at), details)
        run.steps.append(step)
        run.emit("thread.run.step.created", step)
        run.emit("thread.run.step.in_progress", step)
        return step

    def _close(self, step: Step, status: str, at: float) -> None:
        step.status = status
        step.ended_at = self._clock.wall(at)
        step.run.emit(f"thread.run.step.{status}", step)

    def _write(self, run: Run, text: str, at: float, status: str = "completed") -> None:
        message = self._begin_message(run, at)
        for n, word in enumerate(text.split(" ")):
            run.emit(
                "thread.message.delta", _message_delta(message, word if n == 0 else " " + word)
            )
        message.content = text_content(text)
        self._end_message(run, message, at, status)

    def _end_writing(self, run: Run, at: float, status: str) -> None:
        """End the message that is being written: whole, or where it stands."""
        writing, run.writing = run.writing, None
        assert writing is not None
        message = _written(run, writing["id"])
        if status == "completed":
            message.content = text_content(" ".join(writing["words"]))
        # A bad end closes its step as it closes others.
        self._end_message(run, message, at, status, closes=status == "completed")

    def _end_message(
        self, run: Run, message: Message, at: float, status: str, *, closes: bool = True
    ) -> None:
        message.status = status
        run.emit(f"thread.message.{status}", message)
        if closes:
            self._close(run.steps[-1], "completed", at)

    def _begin_message(self, run: Run, at: float) -> Message:
        message = Message(
            id=new_id("msg"),
            thread_id=run.thread_id,
            created_at=self._clock.wall(at),
            role="assistant",
            content=[],
            attachments=[],
            metadata={},
            assistant_id=run.assistant_id,
            run_id=run.id,
            status="in_progress",
        )
        run.thread.messages.append(message)
        details = {"type": "message_creation", "message_creation": {"message_id": message.id}}
        self._step(run, details, at)
        run.emit("thread.message.created", message)
        run.emit("thread.message.in_progress", message)
        return message


def _spoken(run: Run) -> str | None:
    """Return what is written at the end of the run's leg, if anything."""
    part = run.round
    if part.asks:
        return None if part.says is None else model.filled(part.says, run.outputs)
    return model.last_words(run) if part.ends in (None, "completed", "incomplete") else None


def _written(run: Run, message_id: str) -> Message:
    return next(each for each in run.thread.messages if each.id == message_id)


def _message_delta(message: Message, text: str) -> dict[str, Any]:
    part = {"index": 0, "type": "text", "text": {"value": text, "annotations": []}}
    return {"id": message.id, "object": "thread.message.delta", "delta": {"content": [part]}}


def _step_delta(step: Step, calls: list[JSON]) -> dict[str, Any]:
    details = {"type": "tool_calls", "tool_calls": calls}
    return {
        "id": step.id,
        "object": "thread.run.step.delta",
        "delta": {"step_details": details},
    }
