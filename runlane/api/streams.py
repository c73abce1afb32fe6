"""Runs as streams of server-sent events."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.responses import Response, StreamingResponse

from ledger import LedgerError, LedgerUnavailable
from runlane.api.access import Principal
from runlane.api.access import Reader as ReaderRole
from runlane.api.facts import Facts
from runlane.api.ids import RunId, ThreadId
from runlane.api.listeners import Listener
from runlane.api.owned import find_run
from runlane.api.readers import OUTAGE_SECONDS, Reader
from runlane.api.refusals import Refusal, refusal_for
from runlane.api.services import Given, Services
from runlane.errors import LedgerUnreachable, RunlaneError
from workflows.contract import RunView

HEARTBEAT_SECONDS = 15.0
"""Without an event for so long, a comment is sent: proxies cut what is silent."""

_LEDGER_EVERY = 1.0
"""Seconds between two questions whether a token counts, while the ledger doesn't answer."""
_ASKED = "thread.run.requires_action"
_HEARTBEAT = b": waiting\n\n"
_DONE = b"event: done\ndata: [DONE]\n\n"
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""Proxies would gather what is to go out at once."""

routes = APIRouter(prefix="/v1/threads", tags=["runs"])


@routes.get(
    "/{thread_id}/runs/{run_id}/events",
    operation_id="streamRunEvents",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def stream_events(
    thread_id: ThreadId,
    run_id: RunId,
    asking: ReaderRole,
    services: Given,
    last_event_id: Annotated[
        str | None, Header(max_length=255, description="The `id` of the event that was got last.")
    ] = None,
) -> Response:
    """Stream a run's events, over all rounds, until it waits for its caller or has ended."""
    view = await find_run(services, asking, thread_id, run_id)
    return follow(services, view, asking, after=last_event_id)


def stream(
    services: Services,
    view: RunView,
    asking: Principal,
    *,
    after: str | None = None,
    answering: Sequence[str] | None = None,
) -> Response:
    """Return a stream of a run's events, until it next asks its caller or has ended.

    Args:
        services: of the API.
        view: the run as it was seen last.
        asking: whoever listens, for as long as they would be let in.
        after: the event that was got last (`Last-Event-ID`).
        answering: the calls just answered; it begins after the question for them.
    """
    frames = _frames(services, view, after, answering, follow=False)
    return _response(_while_let_in(services, asking, frames))


def follow(
    services: Services, view: RunView, asking: Principal, *, after: str | None = None
) -> Response:
    """Return a stream of a run's events over all rounds, until it waits for its caller or ends.

    Args:
        services: of the API.
        view: the run as it was seen last.
        asking: whoever listens, for as long as they would be let in.
        after: the event that was got last (`Last-Event-ID`); without it from the beginning.
    """
    frames = _frames(services, view, after, None, follow=True)
    return _response(_while_let_in(services, asking, frames))


def _response(frames: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(frames, media_type="text/event-stream", headers=_HEADERS)


async def _while_let_in(
    services: Services, asking: Principal, frames: AsyncGenerator[bytes]
) -> AsyncIterator[bytes]:
    """Pass frames on until whoever listens would be let in no more.

    It is looked at before each of them, so that after 5 s a token that was revoked hears nothing.
    """
    async with aclosing(frames):
        async for frame in frames:
            try:
                await _check(services, asking)
            except Refusal as refusal:
                yield _error(refusal.body["error"])
                return
            except LedgerError:
                yield _error(LedgerUnreachable("The ledger doesn't answer; resume later."))
                return
            yield frame


async def _check(services: Services, asking: Principal) -> None:
    until = time.monotonic() + OUTAGE_SECONDS
    while True:
        try:
            return await services.access.check(asking)
        except LedgerUnavailable:
            if time.monotonic() >= until:
                raise
            await asyncio.sleep(_LEDGER_EVERY)


async def _frames(
    services: Services,
    view: RunView,
    after: str | None,
    answering: Sequence[str] | None,
    *,
    follow: bool,
) -> AsyncGenerator[bytes]:
    run_id = view.run.id

    def facts() -> Facts:
        return Facts(services.runlane.temporal, services.upstream, run_id)

    with services.readers.reading(run_id, facts, view=view) as reader:
        look = reader.look_now()
        place = None
        while place is None:
            place = _beginning(reader, look, after, answering)
            if place is not None or reader.is_over:
                break
            if not await reader.wait(len(reader.told), look, HEARTBEAT_SECONDS):
                yield _HEARTBEAT
        place = len(reader.told) if place is None else place
        listener = Listener(reader)
        while True:
            grown = reader.texts.grown
            more = reader.told[place:]
            if not follow:
                more = more[: _first_question(reader, place) - place]
            place += len(more)
            if frames := listener.frames(more) + listener.text(place):
                yield frames
            has_asked = bool(more) and more[-1].name == _ASKED and not follow
            if has_asked or (
                place == len(reader.told) and _is_through(reader, look, follow=follow)
            ):
                break
            heard = grown if listener.hears_text(place) else None
            if not await reader.wait(place, look, HEARTBEAT_SECONDS, grown=heard):
                yield _HEARTBEAT
        yield _DONE if reader.problem is None else _error(reader.problem)


def _beginning(
    reader: Reader, look: int, after: str | None, answering: Sequence[str] | None
) -> int | None:
    """Return where a stream begins; None: that isn't known yet."""
    if after is not None:
        place = reader.place_after(after, look)
        if place is not None or not reader.has_looked(look):
            return place
    return 0 if answering is None else reader.place_after_question(answering)


def _first_question(reader: Reader, place: int) -> int:
    for index in range(place, len(reader.told)):
        if reader.told[index].name == _ASKED:
            return index + 1
    return len(reader.told)


def _is_through(reader: Reader, look: int, *, follow: bool) -> bool:
    return reader.is_over or (follow and reader.is_waiting(look))


def _error(error: RunlaneError | Mapping[str, Any]) -> bytes:
    told = refusal_for(error).body["error"] if isinstance(error, RunlaneError) else error
    return f"event: error\ndata: {json.dumps(told)}\n\n".encode()
