"""A run's events as they come."""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import ValidationError

from runsapi.bodies import pieces
from runsapi.errors import APIResponseError, APITimeoutError
from runsapi.events import (
    AssistantStreamEvent,
    ThreadRunEvent,
    UnknownEvent,
    read_event,
    typed_event,
)
from runsapi.models import Run
from runsapi.paths import is_segment
from runsapi.sse import EventDecoder
from runsapi.transport import Transport


class EventStream:
    """The events of one request with ``stream=True``. Iterate once, or use it with ``async with``.

    It ends at the server's ``[DONE]``, or where the connection ends. Closing it doesn't cancel the
    run, and what a stream says is a hint: ``retrieve`` tells how the run stands.

    Attributes:
        done: Whether the server said that the stream is complete.
    """

    def __init__(self, transport: Transport, response: httpx.Response) -> None:
        self._transport = transport
        self._response = response
        self._events = self._iterate()
        self.done = False

    @property
    def headers(self) -> httpx.Headers:
        """The headers of the answer."""
        return self._response.headers

    @property
    def status_code(self) -> int:
        """The HTTP status of the answer."""
        return self._response.status_code

    def __aiter__(self) -> AsyncIterator[AssistantStreamEvent]:
        return self._events

    async def __anext__(self) -> AssistantStreamEvent:
        return await anext(self._events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of the connection. The run goes on."""
        await self._response.aclose()

    async def first_run(self, *, within: float) -> Run:
        """Read up to the first event that shows the run, and return that; the rest is left.

        Whatever it raises, the connection is let go.

        Args:
            within: Seconds.

        Raises:
            APIConnectionError: The stream broke before, or nothing came in time.
            APIResponseError: It ended before, or what it says can't be read.
        """
        limit = asyncio.timeout(within)
        try:
            async with limit:
                async for event in self._events:
                    run = _run_of(event)
                    if run is not None:
                        return run
        except BaseException as error:
            await self.aclose()
            if isinstance(error, TimeoutError) and limit.expired():
                text = f"No event from {self._url} in time ({within:g} s)"
                raise APITimeoutError(text, url=self._url) from None
            raise
        raise APIResponseError(
            f"The stream from {self._url} ended before it showed a run",
            status_code=self.status_code,
            url=self._url,
        )

    async def _iterate(self) -> AsyncIterator[AssistantStreamEvent]:
        try:
            if self._response.headers.get("content-type", "").startswith("application/json"):
                yield await self._only_event()
                return
            decoder = EventDecoder()
            async for chunk in pieces(self._response):
                for name, data in decoder.feed(chunk):
                    if self._is_done(data):
                        return
                    yield read_event(name, data)
            for name, data in decoder.end():
                if self._is_done(data):
                    return
                yield read_event(name, data)
        except httpx.StreamClosed:
            return
        except httpx.RequestError as error:
            raise self._transport.connection_error(error, self._url) from None
        finally:
            await self._response.aclose()

    async def _only_event(self) -> AssistantStreamEvent:
        # A server that doesn't stream has done the work all the same: losing its answer would lose
        # the only trace of the run.
        data: Any = await self._transport.json_of(self._response)
        if not isinstance(data, dict) or not isinstance(data.get("status"), str):
            raise APIResponseError(
                f"The answer from {self._url} is neither a stream nor a run",
                status_code=self.status_code,
                url=self._url,
            )
        self.done = True
        return typed_event(f"thread.run.{data['status']}", data)

    def _is_done(self, data: str) -> bool:
        # The data, not the event's name: servers disagree on the name.
        self.done = data.strip() == "[DONE]"
        return self.done

    @property
    def _url(self) -> str:
        url = self._response.request.url
        return str(url.copy_with(username="", password="", query=None, fragment=None))


def _run_of(event: AssistantStreamEvent) -> Run | None:
    if isinstance(event, ThreadRunEvent):
        run = event.data
    elif (
        isinstance(event, UnknownEvent)
        and event.event.startswith("thread.run.")
        and isinstance(event.data, dict)
        and event.data.get("object") == "thread.run"
    ):
        # In a status that nobody knows.
        try:
            run = Run.model_validate(event.data)
        except ValidationError:
            return None
    else:
        return None
    # What can't be asked for again is as good as nothing.
    return run if is_segment(run.id) else None
