"""Runs as streams of server-sent events."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import Response, StreamingResponse

from runlane.api.access import Reader as ReaderRole
from runlane.api.facts import Facts
from runlane.api.ids import RunId, ThreadId
from runlane.api.listeners import Listener
from runlane.api.owned import find_run
from runlane.api.readers import Reader
from runlane.api.services import Given, Services
from runlane.errors import RunlaneError
from workflows.contract import RunView

HEARTBEAT_SECONDS = 15.0
"""Without an event for so long, a comment is sent: proxies cut what is silent."""

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
    return follow(services, view, after=last_event_id)


def stream(
    services: Services,
    view: RunView,
    *,
    after: str | None = None,
    answering: Sequence[str] | None = None,
) -> Response:
    """Return a stream of a run's events, until it next asks its caller or has ended.

    Args:
        services: of the API.
        view: the run as it was seen last.
        after: the event that was got last (`Last-Event-ID`).
        answering: the calls just answered; it begins after the question for them.
    """
    return _response(_frames(services, view, after, answering, follow=False))


def follow(services: Services, view: RunView, *, after: str | None = None) -> Response:
    """Return a stream of a run's events over all rounds, until it waits for its caller or ends.

    Args:
        services: of the API.
        view: the run as it was seen last.
        after: the event that was got last (`Last-Event-ID`); without it from the beginning.
    """
    return _response(_frames(services, view, after, None, follow=True))


def _response(frames: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(frames, media_type="text/event-stream", headers=_HEADERS)


async def _frames(
    services: Services,
    view: RunView,
    after: str | None,
    answering: Sequence[str] | None,
    *,
    follow: bool,
) -> AsyncIterator[bytes]:
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


def _error(error: RunlaneError) -> bytes:
    told = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return f"event: error\ndata: {json.dumps(told)}\n\n".encode()
