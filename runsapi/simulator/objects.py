"""Threads, messages, runs and steps as the simulator keeps them, and their form on the wire.

Instants are seconds of the engine's monotonic clock, except those named `…_at`, which are whole
seconds since 1970 as the protocol shows them.
"""

from __future__ import annotations

import json
import secrets
import string
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from runsapi.simulator.errors import JSON
from runsapi.simulator.scenario import Round, Scenario

TERMINAL = frozenset({"completed", "failed", "incomplete", "expired", "cancelled"})

_ALPHABET = string.ascii_letters + string.digits


def new_id(prefix: str) -> str:
    """Return an id such as `run_` and 24 random letters and digits."""
    return prefix + "_" + "".join(secrets.choice(_ALPHABET) for _ in range(24))


@dataclass
class Assistant:
    """A stored assistant, or one made on the first use of its id."""

    id: str
    created_at: int
    fields: JSON

    def wire(self) -> JSON:
        """Return the protocol's `assistant` object."""
        return {
            "id": self.id,
            "object": "assistant",
            "created_at": self.created_at,
            "name": self.fields.get("name"),
            "description": self.fields.get("description"),
            "model": self.fields.get("model") or "simulator-1",
            "instructions": self.fields.get("instructions"),
            "tools": self.fields.get("tools") or [],
            "tool_resources": self.fields.get("tool_resources") or {},
            "metadata": self.fields.get("metadata") or {},
            "temperature": self.fields.get("temperature"),
            "top_p": self.fields.get("top_p"),
            "response_format": self.fields.get("response_format") or "auto",
        }


@dataclass
class Message:
    """A message of a thread."""

    id: str
    thread_id: str
    created_at: int
    role: str
    content: list[JSON]
    attachments: list[JSON]
    metadata: dict[str, str]
    assistant_id: str | None = None
    run_id: str | None = None
    status: str = "completed"

    def wire(self) -> JSON:
        """Return the protocol's `thread.message` object."""
        done = self.status == "completed"
        incomplete = self.status == "incomplete"
        return {
            "id": self.id,
            "object": "thread.message",
            "created_at": self.created_at,
            "thread_id": self.thread_id,
            "status": self.status,
            "incomplete_details": {"reason": "max_tokens"} if incomplete else None,
            "completed_at": self.created_at if done else None,
            "incomplete_at": self.created_at if incomplete else None,
            "role": self.role,
            "content": self.content,
            "assistant_id": self.assistant_id,
            "run_id": self.run_id,
            "attachments": self.attachments,
            "metadata": self.metadata,
        }


@dataclass
class Step:
    """A step of a run: a message written, or the tool calls of one round."""

    id: str
    run: Run
    created_at: int
    details: JSON
    status: str = "in_progress"
    ended_at: int | None = None

    def wire(self) -> JSON:
        """Return the protocol's `thread.run.step` object."""
        ended = {name: self.ended_at if self.status == name else None for name in _STEP_ENDS}
        failed = self.status == "failed"
        return {
            "id": self.id,
            "object": "thread.run.step",
            "created_at": self.created_at,
            "assistant_id": self.run.assistant_id,
            "thread_id": self.run.thread_id,
            "run_id": self.run.id,
            "type": self.details["type"],
            "status": self.status,
            "step_details": self.details,
            "last_error": self.run.last_error if failed else None,
            "expired_at": ended["expired"],
            "cancelled_at": ended["cancelled"],
            "failed_at": ended["failed"],
            "completed_at": ended["completed"],
            "metadata": None,
            "usage": None if self.status == "in_progress" else _counts(10, 5),
        }


_STEP_ENDS = ("expired", "cancelled", "failed", "completed")


@dataclass
class Run:
    """A run, with its place in its scenario."""

    id: str
    thread: Thread
    assistant_id: str
    created: float
    created_at: int
    fields: JSON
    metadata: dict[str, str]
    scenario: Scenario
    rounds: list[Round]
    expires: float | None
    expires_at: int | None
    entered: float = 0.0
    """When the present status was entered."""
    wrote: float = 0.0
    """When the last word of the message that is being written came."""
    writing: JSON | None = None
    """That message: its `id`, its `words`, and how many of them are `told`."""
    status: str = "queued"
    at: int = 0
    """Which round."""
    looks: int = 0
    """Retrieves counted in this leg, where a leg goes by retrieves."""
    forced: bool = False
    """A status set by hand stays until the run expires or is set again."""
    required_action: JSON | None = None
    last_error: JSON | None = None
    incomplete_details: JSON | None = None
    times: dict[str, int] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    outputs: list[tuple[str, str]] = field(default_factory=list)
    """Name of the tool and its output, in the order asked."""
    usage: JSON | None = None
    listeners: list[deque[tuple[str, str]]] = field(default_factory=list)

    @property
    def thread_id(self) -> str:
        """The id of its thread."""
        return self.thread.id

    @property
    def ended(self) -> bool:
        """Whether the status is one of the five that nothing follows."""
        return self.status in TERMINAL

    @property
    def round(self) -> Round:
        """The leg the run is in."""
        return self.rounds[self.at % len(self.rounds)]

    def emit(self, event: str, data: Step | Message | JSON | None = None) -> None:
        """Tell the streams; without `data` it is the run as it stands."""
        if not self.listeners:
            return
        body = self.wire() if data is None else data if isinstance(data, dict) else data.wire()
        # Text at once: the objects go on changing while a slow reader catches up.
        text = json.dumps(body, ensure_ascii=False)
        for listener in self.listeners:
            listener.append((event, text))

    def wire(self) -> JSON:
        """Return the protocol's `thread.run` object."""
        given = self.fields
        return {
            "id": self.id,
            "object": "thread.run",
            "created_at": self.created_at,
            "assistant_id": self.assistant_id,
            "thread_id": self.thread_id,
            "status": self.status,
            "started_at": self.times.get("started"),
            "expires_at": None if self.ended else self.expires_at,
            "cancelled_at": self.times.get("cancelled"),
            "failed_at": self.times.get("failed"),
            "completed_at": self.times.get("completed"),
            "required_action": self.required_action,
            "last_error": self.last_error,
            "incomplete_details": self.incomplete_details,
            "model": given.get("model"),
            "instructions": given.get("instructions"),
            "tools": given.get("tools") or [],
            "metadata": self.metadata,
            "usage": self.usage,
            "temperature": given.get("temperature"),
            "top_p": given.get("top_p"),
            "max_prompt_tokens": given.get("max_prompt_tokens"),
            "max_completion_tokens": given.get("max_completion_tokens"),
            "truncation_strategy": given.get("truncation_strategy")
            or {"type": "auto", "last_messages": None},
            "tool_choice": given.get("tool_choice") or "auto",
            "parallel_tool_calls": given.get("parallel_tool_calls") is not False,
            "response_format": given.get("response_format") or "auto",
        }


@dataclass
class Thread:
    """A thread, its messages and its runs in the order they came."""

    id: str
    created_at: int
    metadata: dict[str, str]
    tool_resources: JSON
    messages: list[Message] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    active: Run | None = None
    """The run that locks the thread, as far as was seen when it was last looked at."""

    def wire(self) -> JSON:
        """Return the protocol's `thread` object."""
        return {
            "id": self.id,
            "object": "thread",
            "created_at": self.created_at,
            "metadata": self.metadata,
            "tool_resources": self.tool_resources,
        }


def text_content(text: str) -> list[JSON]:
    """Return a message's content with one text part."""
    return [{"type": "text", "text": {"value": text, "annotations": []}}]


def _counts(prompt: int, completion: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def usage_of(run: Run) -> JSON:
    """Return the token counts which the run's scenario gives."""
    return _counts(run.scenario.usage.prompt_tokens, run.scenario.usage.completion_tokens)
