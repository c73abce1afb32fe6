"""The state machine of runs, and the store of threads and assistants it works on.

Nothing ticks: a run is brought up to now whenever it is looked at, each transition as of the moment
it was due. Ten thousand waiting runs thus cost no timers. Only streams sleep, until the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from runsapi.simulator import errors, model
from runsapi.simulator.errors import JSON, ApiError
from runsapi.simulator.objects import (
    TERMINAL,
    Assistant,
    Message,
    Run,
    Step,
    Thread,
    new_id,
    text_content,
    usage_of,
)
from runsapi.simulator.scenario import Scenario

EXPIRES_AFTER = 600.0
"""Seconds from a run's creation to its expiry, as the protocol has it."""
OUTPUTS_LIMIT = 512 * 1024
"""Bytes of UTF-8 which the outputs of one submit must stay below, together."""
_KNOWN = TERMINAL | {"queued", "in_progress", "requires_action", "cancelling"}
_INHERITED = ("model", "instructions", "tools", "temperature", "top_p", "response_format")

Transition = Callable[[Run, float], None]
Due = tuple[float, Transition]


class Engine:
    """All that the simulated service knows. `strict` refuses ids that were never created."""

    def __init__(
        self,
        *,
        strict: bool = False,
        expires_after: float = EXPIRES_AFTER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.strict = strict
        self.expires_after = expires_after
        self.clock = clock
        self.threads: dict[str, Thread] = {}
        self.assistants: dict[str, Assistant] = {}
        self.runs: dict[str, Run] = {}
        self.scenarios: dict[str | None, Scenario] = {}
        self._epoch = time.time() - clock()

    def wall(self, instant: float | None = None) -> int:
        """Return whole seconds since 1970 for an instant of the engine's clock, or for now."""
        return int(self._epoch + (self.clock() if instant is None else instant))

    def register(self, scenario: Scenario) -> None:
        """Use the scenario for new runs of its assistant, in the place of an earlier one."""
        self.scenarios[scenario.assistant_id] = scenario

    def create_assistant(self, fields: JSON, id: str | None = None) -> Assistant:
        """Store an assistant."""
        assistant = Assistant(id or new_id("asst"), self.wall(), fields)
        self.assistants[assistant.id] = assistant
        return assistant

    def assistant(self, id: str) -> Assistant:
        """Return the assistant, made on its first use unless `strict`."""
        found = self.assistants.get(id)
        if found is None:
            if self.strict:
                raise errors.not_found("assistant", id)
            found = self.create_assistant({}, id)
        return found

    def create_thread(self, fields: JSON, id: str | None = None) -> Thread:
        """Store a thread with the messages given."""
        thread = Thread(
            id or new_id("thread"),
            self.wall(),
            fields.get("metadata") or {},
            fields.get("tool_resources") or {},
        )
        self.threads[thread.id] = thread
        for message in fields.get("messages") or []:
            self._add(thread, message)
        return thread

    def thread(self, id: str) -> Thread:
        """Return the thread, made on its first use unless `strict`, with its run brought to now."""
        found = self.threads.get(id)
        if found is None:
            if self.strict:
                raise errors.not_found("thread", id)
            found = self.create_thread({}, id)
        if found.active is not None:
            self.advance(found.active)
        return found

    def run(self, thread_id: str, run_id: str) -> Run:
        """Return the thread's run, brought to now."""
        run = self.thread(thread_id).runs.get(run_id)
        if run is None:
            raise errors.not_found("run", run_id)
        return run

    def add_message(self, thread_id: str, fields: JSON) -> Message:
        """Add a message unless a run locks the thread."""
        thread = self.thread(thread_id)
        if thread.active is not None:
            raise errors.thread_locked(thread.id, thread.active.id)
        return self._add(thread, fields)

    def _add(self, thread: Thread, fields: JSON, run: Run | None = None) -> Message:
        content = fields["content"]
        if not isinstance(content, str):
            content = [
                {"type": "text", "text": {"value": part["text"], "annotations": []}}
                if part.get("type") == "text" and isinstance(part.get("text"), str)
                else part
                for part in content
            ]
        message = Message(
            id=new_id("msg"),
            thread_id=thread.id,
            created_at=self.wall(),
            role=fields["role"],
            content=text_content(content) if isinstance(content, str) else content,
            attachments=fields.get("attachments") or [],
            metadata=fields.get("metadata") or {},
            assistant_id=run.assistant_id if run and fields["role"] == "assistant" else None,
            run_id=run.id if run and fields["role"] == "assistant" else None,
        )
        thread.messages.append(message)
        return message

    def create_run(self, thread_id: str, fields: JSON) -> Run:
        """Start a run, or refuse because the thread has one that has not ended."""
        thread = self.thread(thread_id)
        assistant = self.assistant(fields["assistant_id"])
        if thread.active is not None:
            raise errors.thread_busy(thread.id, thread.active.id)
        defaults = assistant.wire()
        merged = dict(fields)
        for name in _INHERITED:
            if merged.get(name) is None:
                merged[name] = defaults[name]
        if extra := merged.pop("additional_instructions", None):
            merged["instructions"] = "\n".join(filter(None, (merged["instructions"], extra)))
        for message in merged.pop("additional_messages", None) or []:
            self._add(thread, message)
        run = self._new_run(thread, assistant.id, merged)
        thread.runs[run.id] = self.runs[run.id] = thread.active = run
        return run

    def _new_run(self, thread: Thread, assistant_id: str, fields: JSON) -> Run:
        scenario = self.scenarios.get(assistant_id) or self.scenarios.get(None) or Scenario()
        metadata = dict(fields.get("metadata") or {})
        now = self.clock()
        lasts = self.expires_after if scenario.expires_after is None else scenario.expires_after
        run = Run(
            id=new_id("run"),
            thread_id=thread.id,
            assistant_id=assistant_id,
            created=now,
            created_at=self.wall(now),
            fields=fields,
            metadata=metadata,
            scenario=scenario,
            rounds=model.rounds_for(scenario, fields, metadata),
            expires=now + lasts if lasts else None,
            expires_at=None,
            entered=now,
        )
        if lasts:
            seconds = run.created_at + max(1, int(lasts))
            shown = {"seconds": seconds, "null": None, "zero": 0, "milliseconds": seconds * 1000}
            run.expires_at = shown[scenario.expires_at_form]
        return run

    def submit(self, run: Run, fields: JSON) -> None:
        """Take all outputs of the round, or none of them."""
        action = run.required_action
        if run.status != "requires_action" or action is None:
            raise errors.outputs_not_accepted(run.status)
        given = fields.get("tool_outputs") or []
        if action["type"] == "submit_tool_approval":
            given = [
                {"tool_call_id": part["tool_call_id"], "output": str(bool(part.get("approve")))}
                for part in fields.get("tool_approvals") or []
            ]
        calls = action[action["type"]]["tool_calls"]
        expected = [call["id"] for call in calls]
        got = [part.get("tool_call_id") or "" for part in given]
        if sorted(expected) != sorted(got):
            raise errors.outputs_mismatch(expected, got)
        answers = {part["tool_call_id"]: part.get("output") or "" for part in given}
        for call in calls:
            name = call["function"]["name"] if "function" in call else call["name"]
            run.outputs.append((name, answers[call["id"]]))
        self._requeue(run, self.clock(), answers)

    def cancel(self, run: Run) -> None:
        """Begin to cancel, or refuse because there is nothing left to cancel."""
        if run.ended or run.status == "cancelling":
            raise errors.cannot_cancel(run.status)
        self._enter(run, "cancelling", self.clock())

    def force(self, run: Run, status: str) -> None:
        """Put the run into a status at once; one that is not terminal stays there."""
        now = self.clock()
        if status in TERMINAL:
            self._end(run, status, now)
        elif status == "requires_action":
            self._ask(run, now)
        else:
            run.times = {k: v for k, v in run.times.items() if k == "started"}
            self.threads[run.thread_id].active = run
            self._enter(run, status, now)
            run.forced = True

    def look(self, run: Run) -> None:
        """Count one retrieve, for the legs that go by retrieves."""
        if not self._goes_by_looks(run):
            return
        now = self.clock()
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
        now = self.clock()
        while (due := self.due(run)) is not None and due[0] <= now:
            due[1](run, due[0])

    def due(self, run: Run) -> Due | None:
        """Return when the run changes next by itself, and how."""
        if run.ended:
            return None
        options: list[Due] = []
        if run.expires is not None:
            options.append((run.expires, lambda run, at: self._end(run, "expired", at)))
        step = None if run.forced else self._next(run)
        if step is not None:
            # Never before the run was entered: a transition can't be due in its own past.
            options.append((max(step[0], run.entered), step[1]))
        return min(options, key=lambda option: option[0], default=None)

    def _goes_by_looks(self, run: Run) -> bool:
        if run.forced:
            return False
        if run.status in ("queued", "in_progress"):
            return run.round.polls is not None
        return run.status == run.round.status and run.round.status_polls is not None

    def _next(self, run: Run) -> Due | None:
        # A stream makes no retrieves, so what goes by retrieves goes by time while one is open.
        if self._goes_by_looks(run) and not run.listeners:
            return None
        part = run.round
        steps: dict[str, tuple[float | None, Transition]] = {
            "queued": (part.queued, self._start),
            "in_progress": (None if part.ends == "never" else part.in_progress, self._finish),
            "requires_action": (part.resolves_after, self._resolve),
            "cancelling": (run.scenario.cancel_seconds, self._finish_cancel),
        }
        seconds, transition = steps.get(run.status, (part.status_seconds, self._work))
        return None if seconds is None else (run.entered + seconds, transition)

    def _resolve(self, run: Run, at: float) -> None:
        self._requeue(run, at, {})

    def _enter(self, run: Run, status: str, at: float) -> None:
        run.status = status
        run.entered = at
        run.looks = 0
        run.forced = False
        if status != "requires_action":
            run.required_action = None
        if status in _KNOWN:
            run.emit(f"thread.run.{status}")

    def _start(self, run: Run, at: float) -> None:
        run.times.setdefault("started", self.wall(at))
        self._enter(run, run.round.status or "in_progress", at)

    def _work(self, run: Run, at: float) -> None:
        self._enter(run, "in_progress", at)

    def _finish(self, run: Run, at: float) -> None:
        if run.round.asks:
            self._ask(run, at)
        else:
            self._end(run, run.round.ends or "completed", at)

    def _ask(self, run: Run, at: float) -> None:
        if run.round.says is not None:
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
        self._enter(run, "requires_action", at)

    def _requeue(self, run: Run, at: float, answers: dict[str, str]) -> None:
        step = run.steps[-1] if run.steps else None
        if step is not None and step.status == "in_progress":
            for call in step.details["tool_calls"]:
                call.get("function", call)["output"] = answers.get(call["id"])
            self._close(step, "completed", at)
        run.at += 1
        self._enter(run, "queued", at)

    def _finish_cancel(self, run: Run, at: float) -> None:
        self._end(run, "completed" if run.scenario.cancel_loses else "cancelled", at)

    def _end(self, run: Run, status: str, at: float) -> None:
        if status in ("completed", "incomplete"):
            self._write(run, model.last_words(run), at, status)
        if status == "failed":
            run.last_error = run.round.last_error.model_dump()
        if status == "incomplete":
            reason = run.round.incomplete_reason
            run.incomplete_details = {"reason": reason} if reason else {}
        for step in run.steps:
            if step.status == "in_progress":
                self._close(step, status if status in ("expired", "failed") else "cancelled", at)
        run.times[status] = self.wall(at)
        run.usage = usage_of(run)
        thread = self.threads[run.thread_id]
        if thread.active is run:
            thread.active = None
        self._enter(run, status, at)

    def _step(self, run: Run, details: JSON, at: float) -> Step:
        step = Step(new_id("step"), run, self.wall(at), details)
        run.steps.append(step)
        run.emit("thread.run.step.created", step)
        run.emit("thread.run.step.in_progress", step)
        return step

    def _close(self, step: Step, status: str, at: float) -> None:
        step.status = status
        step.ended_at = self.wall(at)
        step.run.emit(f"thread.run.step.{status}", step)

    def _write(self, run: Run, text: str, at: float, status: str = "completed") -> None:
        message = self._add(
            self.threads[run.thread_id], {"role": "assistant", "content": text}, run
        )
        message.created_at = self.wall(at)
        details = {"type": "message_creation", "message_creation": {"message_id": message.id}}
        step = self._step(run, details, at)
        content, message.content, message.status = message.content, [], "in_progress"
        run.emit("thread.message.created", message)
        run.emit("thread.message.in_progress", message)
        for n, word in enumerate(text.split(" ")):
            run.emit(
                "thread.message.delta", _message_delta(message, word if n == 0 else " " + word)
            )
        message.content, message.status = content, status
        run.emit(f"thread.message.{status}", message)
        self._close(step, "completed", at)


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


__all__ = ["EXPIRES_AFTER", "OUTPUTS_LIMIT", "ApiError", "Engine"]
