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

    def create(
        self,
        input: CreateInput,
        params: RunCreateParams,
        *,
        before_send: Callable[[], Awaitable[None]],
        on_send: Callable[[], None],
    ) -> Awaitable[Response[Run]]:
        """Create the upstream run; the errors are those of `runsapi`."""
        send = self._runs.with_response.create
        thread_id = input.thread_id

        def plain() -> Awaitable[Response[Run]]:
            return send(thread_id, params, before_send=before_send, on_send=on_send)

        def streamed() -> Awaitable[Response[EventStream]]:
            return send(thread_id, params, stream=True, before_send=before_send, on_send=on_send)

        # A frame more would make failures larger, of which Temporal keeps few kilobytes.
        return self._first(streamed, plain) if self._streams(input) else plain()

    def submit(
        self,
        input: SubmitInput,
        *,
        before_send: Callable[[], Awaitable[None]],
        on_send: Callable[[], None],
    ) -> Awaitable[Response[Run]]:
        """Submit the outputs; the errors are those of `runsapi`."""
        send = self._runs.with_response.submit_tool_outputs
        run_id = input.target.run_id
        request: dict[str, Any] = {
            "thread_id": input.target.thread_id,
            "tool_outputs": [output.model_dump() for output in input.tool_outputs],
            "before_send": before_send,
            "on_send": on_send,
        }

        def plain() -> Awaitable[Response[Run]]:
            answer: Awaitable[Response[Run]] = send(run_id, **request)
            return answer

        def streamed() -> Awaitable[Response[EventStream]]:
            answer: Awaitable[Response[EventStream]] = send(run_id, stream=True, **request)
            return answer

        return self._first(streamed, plain) if self._streams(input) else plain()

    def _streams(self, input: CreateInput | SubmitInput) -> bool:
        return input.stream and self._texts.has_room

    async def _first(
        self,
        streamed: Callable[[], Awaitable[Response[EventStream]]],
        plain: Callable[[], Awaitable[Response[Run]]],
    ) -> Response[Run]:
        try:
            answer = await streamed()
        except APIStatusError as error:
            # It doesn't stream, and has done nothing.
            if error.status_code not in _REFUSED or error.param != "stream":
                raise
            answer = None
        if answer is None:
            return await plain()
        run = await answer.data.first_run(within=FIRST_EVENT_WITHIN)
        if self._texts.has_room:
            self._texts.follow(run.id, answer.data)
        else:
            with contextlib.suppress(Exception):
                await answer.data.aclose()
        return Response(run, answer.headers, answer.status_code)
