"""The two requests after which an upstream run works: with or without its stream of events.

With it, the run is what the first event shows, and the rest is read beside everything else. What
breaks before that event is a lost answer like any other.
"""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from activities.contract import CreateInput, SubmitInput
from activities.texts import Texts
from runsapi import APIStatusError, Response, Run, RunCreateParams
from runsapi.runs import Runs
from runsapi.streaming import EventStream

FIRST_EVENT_WITHIN = 20.0
"""Seconds from the answer's beginning: a proxy that gathers streams would keep it till the end."""

_REFUSED = (400, 422)


class UpstreamRuns:
    """Makes these requests on one upstream."""

    def __init__(self, runs: Runs, texts: Texts) -> None:
        """Send nothing yet.

        Args:
            runs: of the upstream.
            texts: gather what the streams tell.
        """
        self._runs = runs
        self._texts = texts

    async def create(
        self,
        input: CreateInput,
        params: RunCreateParams,
        *,
        before_send: Callable[[], Awaitable[None]],
        on_send: Callable[[], None],
    ) -> Response[Run]:
        """Create the upstream run; the errors are those of `runsapi`."""

        async def plain() -> Response[Run]:
            return await self._runs.with_response.create(
                input.thread_id, params, before_send=before_send, on_send=on_send
            )

        async def streamed() -> Response[EventStream]:
            return await self._runs.with_response.create(
                input.thread_id, params, stream=True, before_send=before_send, on_send=on_send
            )

        return await self._first(streamed, plain, stream=input.stream)

    async def submit(
        self,
        input: SubmitInput,
        *,
        before_send: Callable[[], Awaitable[None]],
        on_send: Callable[[], None],
    ) -> Response[Run]:
        """Submit the outputs; the errors are those of `runsapi`."""
        request: dict[str, Any] = {
            "thread_id": input.target.thread_id,
            "tool_outputs": [output.model_dump() for output in input.tool_outputs],
            "before_send": before_send,
            "on_send": on_send,
        }

        async def plain() -> Response[Run]:
            answer: Response[Run] = await self._runs.with_response.submit_tool_outputs(
                input.target.run_id, **request
            )
            return answer

        async def streamed() -> Response[EventStream]:
            return await self._runs.with_response.submit_tool_outputs(
                input.target.run_id, stream=True, **request
            )

        return await self._first(streamed, plain, stream=input.stream)

    async def _first(
        self,
        streamed: Callable[[], Awaitable[Response[EventStream]]],
        plain: Callable[[], Awaitable[Response[Run]]],
        *,
        stream: bool,
    ) -> Response[Run]:
        if not stream or not self._texts.has_room:
            return await plain()
        try:
            answer = await streamed()
        except APIStatusError as error:
            # It doesn't stream, and has done nothing.
            if error.status_code in _REFUSED and error.param == "stream":
                return await plain()
            raise
        run = await answer.data.first_run(within=FIRST_EVENT_WITHIN)
        if self._texts.has_room:
            self._texts.follow(run.id, answer.data)
        else:
            with contextlib.suppress(Exception):
                await answer.data.aclose()
        return Response(run, answer.headers, answer.status_code)
