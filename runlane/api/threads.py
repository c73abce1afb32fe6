"""Threads, which are the upstream's."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import ConfigDict

from runlane.api.access import Operator, Reader
from runlane.api.ids import ThreadId
from runlane.api.passing import Deleted, Metadata, Sent, Shown, ask, shown, unreadable
from runlane.api.refusals import Refusal
from runlane.api.services import Given, Services

routes = APIRouter(prefix="/v1/threads", tags=["threads"])


class ThreadUpdate(Sent):
    """The protocol's body; what it leaves out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"metadata": {"ticket": "7"}}]})

    metadata: Metadata = None
    tool_resources: dict[str, Any] | None = None


class ThreadCreate(ThreadUpdate):
    """The protocol's body for a new thread, with the first messages on it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"messages": [{"role": "user", "content": "Where is my order?"}]}]
        }
    )

    messages: list[dict[str, Any]] | None = None


async def create_thread(services: Services, thread: Mapping[str, Any] | None) -> str:
    """Create a thread upstream, and return its id.

    Raises:
        Refusal: the upstream says no, or says nothing.
    """
    made = await ask(services, "POST", "threads", body=thread or {}, once=True)
    thread_id = made.data.get("id") if isinstance(made.data, dict) else None
    if not isinstance(thread_id, str):
        raise unreadable()
    return thread_id


@routes.post("", response_model=Shown, operation_id="createThread")
async def create(asking: Operator, services: Given, body: ThreadCreate | None = None) -> Response:
    """Create a thread upstream."""
    sent = {} if body is None else body.as_sent()
    return shown(await ask(services, "POST", "threads", body=sent, once=True))


@routes.get("/{thread_id}", response_model=Shown, operation_id="getThread")
async def retrieve(thread_id: ThreadId, asking: Reader, services: Given) -> Response:
    """Return a thread of the upstream's; it has no owner here, so who knows its id may read it."""
    return shown(await ask(services, "GET", "threads", "thread_id", thread_id=thread_id))


@routes.post("/{thread_id}", response_model=Shown, operation_id="modifyThread")
async def update(
    thread_id: ThreadId, body: ThreadUpdate, asking: Operator, services: Given
) -> Response:
    """Change a thread of the upstream's."""
    changed = await ask(
        services, "POST", "threads", "thread_id", thread_id=thread_id, body=body.as_sent()
    )
    return shown(changed)


@routes.delete("/{thread_id}", response_model=Deleted, operation_id="deleteThread")
async def delete(thread_id: ThreadId, asking: Operator, services: Given) -> Response:
    """Delete a thread upstream, unless a run lives on it: cancel that first."""
    living = await services.begun.living(services.runlane.temporal, thread_id)
    if living is not None:
        raise Refusal(f"Can't delete {thread_id} while a run {living} is active.")
    return shown(await ask(services, "DELETE", "threads", "thread_id", thread_id=thread_id))
