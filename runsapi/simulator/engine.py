"""The service's objects and the verbs on them, each granted or refused as the API would."""

from __future__ import annotations

import time
from collections.abc import Callable

from runsapi.simulator import errors, model
from runsapi.simulator.errors import JSON
from runsapi.simulator.lifecycle import Clock, Lifecycle
from runsapi.simulator.objects import (
    TERMINAL,
    Assistant,
    Message,
    Run,
    Thread,
    new_id,
    text_content,
)
from runsapi.simulator.scenario import Scenario

EXPIRES_AFTER = 600.0
"""Seconds from a run's creation to its expiry, as the protocol has it."""
OUTPUTS_LIMIT = 512 * 1024
"""Bytes of UTF-8 which the outputs of one submit must stay below, together."""
_INHERITED = ("model", "instructions", "tools", "temperature", "top_p", "response_format")


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
        self.clock = Clock(clock)
        self.lifecycle = Lifecycle(self.clock)
        self.threads: dict[str, Thread] = {}
        self.assistants: dict[str, Assistant] = {}
        self.runs: dict[str, Run] = {}
        self.deleted: set[str] = set()
        """Ids of threads and assistants that are gone: using one makes it no more."""
        self.touched_assistants: set[str] = set()
        """Ids of those that may have changed; emptied by whoever keeps them."""
        self.scenarios: dict[str | None, Scenario] = {}

    def register(self, scenario: Scenario) -> None:
        """Use the scenario for new runs of its assistant, in the place of an earlier one."""
        self.scenarios[scenario.assistant_id] = scenario

    def create_assistant(self, fields: JSON, id: str | None = None) -> Assistant:
        """Store an assistant."""
        assistant = Assistant(id or new_id("asst"), self.clock.wall(), fields)
        self.assistants[assistant.id] = assistant
        self.touched_assistants.add(assistant.id)
        return assistant

    def assistant(self, id: str) -> Assistant:
        """Return the assistant, made on its first use unless `strict`."""
        found = self.assistants.get(id)
        if found is None:
            if self.strict or id in self.deleted:
                raise errors.not_found("assistant", id)
            found = self.create_assistant({}, id)
        return found

    def update_assistant(self, id: str, fields: JSON) -> Assistant:
        """Change what is given of an assistant."""
        found = self.assistant(id)
        found.fields.update(fields)
        self.touched_assistants.add(id)
        return found

    def delete_assistant(self, id: str) -> None:
        """Forget an assistant; its runs go on."""
        self.assistant(id)
        del self.assistants[id]
        self.deleted.add(id)
        self.touched_assistants.add(id)

    def create_thread(self, fields: JSON, id: str | None = None) -> Thread:
        """Store a thread with the messages given."""
        thread = Thread(
            id or new_id("thread"),
            self.clock.wall(),
            fields.get("metadata") or {},
            fields.get("tool_resources") or {},
        )
        self.threads[thread.id] = thread
        self.lifecycle.touched.add(thread.id)
        for message in fields.get("messages") or []:
            self._add(thread, message)
        return thread

    def thread(self, id: str) -> Thread:
        """Return the thread, made on its first use unless `strict`, with its run brought to now."""
        found = self.threads.get(id)
        if found is None:
            if self.strict or id in self.deleted:
                raise errors.not_found("thread", id)
            found = self.create_thread({}, id)
        # Whoever asks for it may be about to change it.
        self.lifecycle.touched.add(id)
        if found.active is not None:
            self.lifecycle.advance(found.active)
        return found

    def update_thread(self, id: str, fields: JSON) -> Thread:
        """Change what is given of a thread."""
        found = self.thread(id)
        for name in ("metadata", "tool_resources"):
            if name in fields:
                setattr(found, name, fields[name] or {})
        return found

    def delete_thread(self, id: str) -> None:
        """Forget a thread with its messages and runs."""
        for run_id in self.thread(id).runs:
            self.runs.pop(run_id, None)
        del self.threads[id]
        self.deleted.add(id)

    def run(self, thread_id: str, run_id: str) -> Run:
        """Return the thread's run, brought to now."""
        run = self.thread(thread_id).runs.get(run_id)
        if run is None:
            raise errors.not_found("run", run_id)
        return run

    def message(self, thread_id: str, id: str) -> Message:
        """Return a thread's message."""
        for message in self.thread(thread_id).messages:
            if message.id == id:
                return message
        raise errors.not_found("message", id)

    def delete_message(self, thread_id: str, id: str) -> None:
        """Take a message off its thread."""
        self.thread(thread_id).messages.remove(self.message(thread_id, id))

    def add_message(self, thread_id: str, fields: JSON) -> Message:
        """Add a message unless a run locks the thread."""
        thread = self.thread(thread_id)
        if thread.active is not None:
            raise errors.thread_locked(thread.id, thread.active.id)
        return self._add(thread, fields)

    def _add(self, thread: Thread, fields: JSON) -> Message:
        message = Message(
            id=new_id("msg"),
            thread_id=thread.id,
            created_at=self.clock.wall(),
            role=fields["role"],
            content=_content(fields["content"]),
            attachments=fields.get("attachments") or [],
            metadata=fields.get("metadata") or {},
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
        now = self.clock.now()
        lasts = self.expires_after if scenario.expires_after is None else scenario.expires_after
        run = Run(
            id=new_id("run"),
            thread=thread,
            assistant_id=assistant_id,
            created=now,
            created_at=self.clock.wall(now),
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
        self.lifecycle.requeue(run, self.clock.now(), answers)

    def cancel(self, run: Run) -> None:
        """Begin to cancel, or refuse because there is nothing left to cancel."""
        if run.ended or run.status == "cancelling":
            raise errors.cannot_cancel(run.status)
        self.lifecycle.enter(run, "cancelling", self.clock.now())

    def force(self, run: Run, status: str) -> None:
        """Put the run into a status at once; one that is not terminal stays there."""
        now = self.clock.now()
        if status in TERMINAL:
            self.lifecycle.end(run, status, now)
            return
        run.thread.active = run
        run.usage = None
        run.times = {name: at for name, at in run.times.items() if name == "started"}
        if status == "requires_action":
            self.lifecycle.ask(run, now)
        else:
            self.lifecycle.enter(run, status, now)
            run.forced = True

    def look(self, run: Run) -> None:
        """Count a retrieve of the run."""
        self.lifecycle.look(run)


def _content(content: str | list[JSON]) -> list[JSON]:
    if isinstance(content, str):
        return text_content(content)
    # Asked for as plain text, shown with its (absent) annotations.
    return [
        text_content(part["text"])[0]
        if part.get("type") == "text" and isinstance(part.get("text"), str)
        else part
        for part in content
    ]
