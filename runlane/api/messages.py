"""Messages, which are the upstream's: each shows the run of ours that wrote it."""

import asyncio
import contextlib
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import ConfigDict

from runlane.api import refusals
from runlane.api.access import Operator, Reader
from runlane.api.ids import MessageId, ThreadId
from runlane.api.passing import (
    Deleted,
    Metadata,
    Page,
    Sent,
    Shown,
    ask,
    document,
    query_of,
    shown,
    told,
    unreadable,
)
from runlane.api.refusals import Refusal
from runlane.api.runs import Cursor, Limit, Order
from runlane.api.services import Given, Services
from runlane.errors import RunlaneError
from runsapi import RunsAPIError
from runsapi.limits import MAX_PAGE

routes = APIRouter(prefix="/v1/threads/{thread_id}/messages", tags=["messages"])

_MESSAGES = ("threads", "thread_id", "messages")
_MESSAGE = (*_MESSAGES, "message_id")
_PAGING = frozenset({"limit", "order", "after", "before", "run_id"})
_MOST_PAGES = 50
"""Of a hundred messages each, of one upstream run."""
_AT_ONCE = 8
"""Questions to the upstream, whose is a run, for one page of messages."""
_ACTIVE = re.compile(r"while a run (\S+) is active")


class MessageUpdate(Sent):
    """The protocol's body: the message's metadata is replaced."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"metadata": {"seen": "yes"}}]})

    metadata: Metadata = None


class MessageCreate(MessageUpdate):
    """The protocol's body for a new message."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"role": "user", "content": "Where is my order?"}]}
    )

    role: Literal["user", "assistant"]
    content: str | list[dict[str, Any]]
    attachments: list[dict[str, Any]] | None = None


@routes.post("", response_model=Shown, operation_id="createMessage")
async def create_message(
    thread_id: ThreadId, body: MessageCreate, asking: Operator, services: Given
) -> Response:
    """Put a message on a thread, unless a run lives on it: even one that only waits for people."""
    living = await services.begun.living(services.runlane.temporal, thread_id)
    if living is not None:
        raise refusals.thread_locked(thread_id, living)
    try:
        made = await ask(
            services, "POST", *_MESSAGES, thread_id=thread_id, body=body.as_sent(), once=True
        )
    except Refusal as refusal:
        raise await _in_our_words(services, thread_id, refusal) from None
    return shown(made)


@routes.get("", response_model=Page, operation_id="listMessages")
async def list_messages(
    *,
    request: Request,
    thread_id: ThreadId,
    asking: Reader,
    services: Given,
    limit: Limit = 20,
    order: Order = "desc",
    after: Cursor = None,
    before: Cursor = None,
    run_id: Annotated[
        str | None, Query(max_length=255, description="Only those of this run.")
    ] = None,
) -> Response:
    """List a thread's messages; of one run: those of all its upstream runs."""
    query = query_of(request)
    runs = None
    if run_id:
        try:
            runs = await services.run_ids.upstreams(services, asking, thread_id, run_id)
        except RunsAPIError as error:
            raise told(error, services) from None
    if runs is not None and len(runs) != 1:
        others = [pair for pair in query if pair[0] not in _PAGING]
        messages = [
            message
            for each in runs
            for message in await _all_of(services, thread_id, [*others, ("run_id", each)])
        ]
        page = _page(messages, limit=limit, order=order, after=after, before=before)
        return document({**page, "data": await _with_ours(services, thread_id, page["data"])})
    if runs is not None:
        query = [pair for pair in query if pair[0] != "run_id"] + [("run_id", runs[0])]
    found = await ask(services, "GET", *_MESSAGES, thread_id=thread_id, query=query)
    if not isinstance(found.data, dict) or not isinstance(found.data.get("data"), list):
        raise unreadable()
    listed = await _with_ours(services, thread_id, found.data["data"])
    return document({**found.data, "data": listed}, found.status_code)


@routes.get("/{message_id}", response_model=Shown, operation_id="getMessage")
async def retrieve_message(
    thread_id: ThreadId, message_id: MessageId, asking: Reader, services: Given
) -> Response:
    """Return a message of a thread."""
    return await _one(services, "GET", thread_id, message_id)


@routes.post("/{message_id}", response_model=Shown, operation_id="modifyMessage")
async def update_message(
    thread_id: ThreadId,
    message_id: MessageId,
    body: MessageUpdate,
    asking: Operator,
    services: Given,
) -> Response:
    """Change a message's metadata."""
    return await _one(services, "POST", thread_id, message_id, body=body.as_sent())


@routes.delete("/{message_id}", response_model=Deleted, operation_id="deleteMessage")
async def delete_message(
    thread_id: ThreadId, message_id: MessageId, asking: Operator, services: Given
) -> Response:
    """Delete a message upstream."""
    gone = await ask(services, "DELETE", *_MESSAGE, thread_id=thread_id, message_id=message_id)
    return shown(gone)


async def _one(
    services: Services,
    method: str,
    thread_id: str,
    message_id: str,
    *,
    body: dict[str, Any] | None = None,
) -> Response:
    found = await ask(
        services, method, *_MESSAGE, thread_id=thread_id, message_id=message_id, body=body
    )
    [message] = await _with_ours(services, thread_id, [found.data])
    return document(message, found.status_code)


async def _with_ours(services: Services, thread_id: str, messages: Sequence[Any]) -> list[Any]:
    """Return the messages with the ids of our runs in the place of the upstream's."""
    asked = {each["run_id"] for each in messages if _has_run(each)}
    turns = asyncio.Semaphore(_AT_ONCE)

    async def ours(upstream_run_id: str) -> tuple[str, str]:
        async with turns:
            run_id = await services.run_ids.ours(services, thread_id, upstream_run_id)
        return upstream_run_id, run_id

    try:
        known = dict(await asyncio.gather(*map(ours, asked)))
    except RunsAPIError as error:
        raise told(error, services) from None
    return [
        {**each, "run_id": known[each["run_id"]]} if _has_run(each) else each for each in messages
    ]


def _has_run(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and bool(message.get("run_id"))
        and isinstance(message["run_id"], str)
    )


async def _all_of(
    services: Services, thread_id: str, query: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Return the messages that a query names, the oldest first."""
    found: dict[str, dict[str, Any]] = {}
    cursor: list[tuple[str, str]] = []
    for _ in range(_MOST_PAGES):
        paging = [("limit", str(MAX_PAGE)), ("order", "asc"), *cursor]
        answer = await ask(
            services, "GET", *_MESSAGES, thread_id=thread_id, query=[*query, *paging]
        )
        page = answer.data if isinstance(answer.data, dict) else {}
        listed = page.get("data")
        if not isinstance(listed, list) or not all(_has_id(each) for each in listed):
            raise unreadable()
        fresh = {each["id"]: each for each in listed if each["id"] not in found}
        found.update(fresh)
        # A page that brings nothing new would bring nothing new for ever.
        if not fresh or page.get("has_more") is False:
            break
        cursor = [("after", listed[-1]["id"])]
    return list(found.values())


def _has_id(message: Any) -> bool:
    return isinstance(message, dict) and isinstance(message.get("id"), str)


def _page(
    messages: list[dict[str, Any]],
    *,
    limit: int,
    order: str,
    after: str | None,
    before: str | None,
) -> dict[str, Any]:
    """Return a page of messages that come oldest first, as the protocol cuts it."""
    if order == "desc":
        messages = messages[::-1]
    begin = _index(messages, after) + 1 if after else 0
    end = _index(messages, before) if before else len(messages)
    part = messages[begin:end]
    # `before` alone asks for the page that ends right before the cursor.
    data = part[-limit:] if before and not after else part[:limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(part) > len(data),
    }


def _index(messages: Sequence[dict[str, Any]], id: str) -> int:
    for index, message in enumerate(messages):
        if message["id"] == id:
            return index
    raise refusals.not_found("message", id)


async def _in_our_words(services: Services, thread_id: str, refusal: Refusal) -> Refusal:
    """Return a refusal because of an upstream run, with the run of ours that it works for.

    Clients read the id out of the text, and wait for that run or cancel it.
    """
    active = _ACTIVE.search(str(refusal))
    if active is not None:
        with contextlib.suppress(RunsAPIError, RunlaneError):
            run_id = await services.run_ids.ours(services, thread_id, active[1])
            return refusals.thread_locked(thread_id, run_id)
    return refusal
