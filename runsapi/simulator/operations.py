"""What each request of the protocol does: one function an operation, and the table of routes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from runsapi.simulator import errors
from runsapi.simulator.checks import check_body, limit_of, order_of
from runsapi.simulator.engine import Engine
from runsapi.simulator.errors import JSON
from runsapi.simulator.objects import Assistant, Message, Run, Step

Listener = deque[tuple[str, str]]


@dataclass(frozen=True)
class Call:
    """A request as it was understood."""

    operation: str
    thread_id: str
    run_id: str
    item_id: str
    query: dict[str, str]
    body: JSON


@dataclass
class Reply:
    """The answer: an object, or the events of a run."""

    body: JSON = field(default_factory=dict)
    run: Run | None = None
    listener: Listener | None = None
    """Set where the answer is a stream."""


Operation = Callable[[Engine, Call], Reply]


def create_assistant(engine: Engine, call: Call) -> Reply:
    check_body(call.operation, call.body)
    return Reply(engine.create_assistant(call.body).wire())


def list_assistants(engine: Engine, call: Call) -> Reply:
    return Reply(_page("assistant", engine.assistants.values(), call.query))


def retrieve_assistant(engine: Engine, call: Call) -> Reply:
    return Reply(engine.assistant(call.item_id).wire())


def update_assistant(engine: Engine, call: Call) -> Reply:
    engine.assistant(call.item_id)
    check_body(call.operation, call.body)
    return Reply(engine.update_assistant(call.item_id, call.body).wire())


def delete_assistant(engine: Engine, call: Call) -> Reply:
    engine.delete_assistant(call.item_id)
    return _gone("assistant", call.item_id)


def create_thread(engine: Engine, call: Call) -> Reply:
    check_body(call.operation, call.body)
    return Reply(engine.create_thread(call.body).wire())


def retrieve_thread(engine: Engine, call: Call) -> Reply:
    return Reply(engine.thread(call.thread_id).wire())


def update_thread(engine: Engine, call: Call) -> Reply:
    engine.thread(call.thread_id)
    check_body(call.operation, call.body)
    return Reply(engine.update_thread(call.thread_id, call.body).wire())


def delete_thread(engine: Engine, call: Call) -> Reply:
    engine.delete_thread(call.thread_id)
    return _gone("thread", call.thread_id)


def create_message(engine: Engine, call: Call) -> Reply:
    check_body(call.operation, call.body)
    return Reply(engine.add_message(call.thread_id, call.body).wire())


def list_messages(engine: Engine, call: Call) -> Reply:
    messages = engine.thread(call.thread_id).messages
    if run_id := call.query.get("run_id"):
        messages = [message for message in messages if message.run_id == run_id]
    return Reply(_page("message", messages, call.query))


def retrieve_message(engine: Engine, call: Call) -> Reply:
    return Reply(engine.message(call.thread_id, call.item_id).wire())


def update_message(engine: Engine, call: Call) -> Reply:
    message = engine.message(call.thread_id, call.item_id)
    check_body(call.operation, call.body)
    if "metadata" in call.body:
        message.metadata = dict(call.body["metadata"] or {})
    return Reply(message.wire())


def delete_message(engine: Engine, call: Call) -> Reply:
    engine.delete_message(call.thread_id, call.item_id)
    return _gone("thread.message", call.item_id)


def create_run(engine: Engine, call: Call) -> Reply:
    check_body(call.operation, call.body)
    run = engine.create_run(call.thread_id, _without_stream(call.body))
    listener = _listen(run, call.body)
    run.emit("thread.run.created")
    run.emit("thread.run.queued")
    return Reply(run.wire(), run, listener)


def create_thread_and_run(engine: Engine, call: Call) -> Reply:
    check_body(call.operation, call.body)
    # Before the thread is made: a refused request leaves nothing behind.
    engine.assistant(call.body["assistant_id"])
    thread = engine.create_thread(call.body.get("thread") or {})
    fields = {k: v for k, v in call.body.items() if k not in ("thread", "tool_resources", "stream")}
    run = engine.create_run(thread.id, fields)
    listener = _listen(run, call.body)
    run.emit("thread.created", thread.wire())
    run.emit("thread.run.created")
    run.emit("thread.run.queued")
    return Reply(run.wire(), run, listener)


def list_runs(engine: Engine, call: Call) -> Reply:
    runs = engine.thread(call.thread_id).runs.values()
    return Reply(_page("run", runs, call.query))


def retrieve_run(engine: Engine, call: Call) -> Reply:
    run = engine.run(call.thread_id, call.run_id)
    engine.look(run)
    return Reply(run.wire(), run)


def update_run(engine: Engine, call: Call) -> Reply:
    run = engine.run(call.thread_id, call.run_id)
    check_body(call.operation, call.body)
    if "metadata" in call.body:
        run.metadata = dict(call.body["metadata"] or {})
    return Reply(run.wire(), run)


def cancel_run(engine: Engine, call: Call) -> Reply:
    run = engine.run(call.thread_id, call.run_id)
    check_body(call.operation, call.body)
    engine.cancel(run)
    return Reply(run.wire(), run)


def submit_tool_outputs(engine: Engine, call: Call) -> Reply:
    run = engine.run(call.thread_id, call.run_id)
    check_body(call.operation, call.body)
    listener = _listen(run, call.body)
    try:
        engine.submit(run, call.body)
    except errors.ApiError:
        if listener is not None:
            forget(run, listener)
        raise
    return Reply(run.wire(), run, listener)


def list_steps(engine: Engine, call: Call) -> Reply:
    return Reply(_page("step", engine.run(call.thread_id, call.run_id).steps, call.query))


def retrieve_step(engine: Engine, call: Call) -> Reply:
    for step in engine.run(call.thread_id, call.run_id).steps:
        if step.id == call.item_id:
            return Reply(step.wire())
    raise errors.not_found("step", call.item_id)


def forget(run: Run, listener: Listener) -> None:
    """End a stream's part in a run. By identity: two empty listeners are equal."""
    run.listeners[:] = [other for other in run.listeners if other is not listener]


def _gone(kind: str, id: str) -> Reply:
    return Reply({"id": id, "object": f"{kind}.deleted", "deleted": True})


def _listen(run: Run, body: JSON) -> Listener | None:
    if not body.get("stream"):
        return None
    listener: Listener = deque()
    run.listeners.append(listener)
    return listener


def _without_stream(body: JSON) -> JSON:
    return {name: value for name, value in body.items() if name != "stream"}


def _page(
    kind: str, items: Iterable[Assistant | Message | Run | Step], query: dict[str, str]
) -> JSON:
    limit = limit_of(query)
    # In the order they were made, not by `created_at`: seconds are too coarse to be stable.
    found: Sequence[Assistant | Message | Run | Step] = list(items)
    if order_of(query) == "desc":
        found = found[::-1]
    ids = [item.id for item in found]
    for cursor in ("after", "before"):
        if query.get(cursor) and query[cursor] not in ids:
            raise errors.not_found(kind, query[cursor])
    start = ids.index(query["after"]) + 1 if query.get("after") else 0
    end = ids.index(query["before"]) if query.get("before") else len(found)
    part = found[start:end]
    # `before` alone asks for the page that ends right before the cursor.
    backwards = bool(query.get("before")) and not query.get("after")
    page = part[-limit:] if backwards else part[:limit]
    return {
        "object": "list",
        "data": [item.wire() for item in page],
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
        "has_more": len(part) > len(page),
    }


_RUNS = "/threads/{thread_id}/runs"
_RUN = _RUNS + "/{run_id}"

OPERATIONS: list[tuple[str, str, str, Operation]] = [
    ("POST", "/assistants", "assistants.create", create_assistant),
    ("GET", "/assistants", "assistants.list", list_assistants),
    ("GET", "/assistants/{item_id}", "assistants.retrieve", retrieve_assistant),
    ("POST", "/assistants/{item_id}", "assistants.update", update_assistant),
    ("DELETE", "/assistants/{item_id}", "assistants.delete", delete_assistant),
    ("POST", "/threads", "threads.create", create_thread),
    # Before `/threads/{thread_id}`, which would match it too.
    ("POST", "/threads/runs", "threads.create_and_run", create_thread_and_run),
    ("GET", "/threads/{thread_id}", "threads.retrieve", retrieve_thread),
    ("POST", "/threads/{thread_id}", "threads.update", update_thread),
    ("DELETE", "/threads/{thread_id}", "threads.delete", delete_thread),
    ("POST", "/threads/{thread_id}/messages", "messages.create", create_message),
    ("GET", "/threads/{thread_id}/messages", "messages.list", list_messages),
    ("GET", "/threads/{thread_id}/messages/{item_id}", "messages.retrieve", retrieve_message),
    ("POST", "/threads/{thread_id}/messages/{item_id}", "messages.update", update_message),
    ("DELETE", "/threads/{thread_id}/messages/{item_id}", "messages.delete", delete_message),
    ("POST", _RUNS, "runs.create", create_run),
    ("GET", _RUNS, "runs.list", list_runs),
    ("GET", _RUN, "runs.retrieve", retrieve_run),
    ("POST", _RUN, "runs.update", update_run),
    ("POST", _RUN + "/cancel", "runs.cancel", cancel_run),
    (
        "POST",
        _RUN + "/submit_tool_outputs",
        "runs.submit_tool_outputs",
        submit_tool_outputs,
    ),
    ("GET", _RUN + "/steps", "steps.list", list_steps),
    ("GET", _RUN + "/steps/{item_id}", "steps.retrieve", retrieve_step),
]
