"""Server-sent events of a run, from the engine's events to frames on the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

from runsapi.simulator.engine import Engine
from runsapi.simulator.errors import server_error
from runsapi.simulator.objects import Run
from runsapi.simulator.operations import Listener, forget

ERROR = "event: error\ndata: " + json.dumps(server_error().body["error"]) + "\n\n"
DONE = "event: done\ndata: [DONE]\n\n"
_LONGEST_NAP = 0.05
"""Seconds. Submits, cancels and forced states come from other requests and wake nobody."""


class StreamCut(Exception):
    """The stream is to break off here."""


async def frames(
    engine: Engine, run: Run, listener: Listener, cut: Callable[[int], bool]
) -> AsyncIterator[str]:
    """Yield the frames of one stream, which ends when the run ends or asks for tools.

    `cut` is asked, with the number of frames sent, whether to raise `StreamCut`.
    """
    sent = 0
    try:
        while True:
            engine.lifecycle.advance(run)
            while listener and not cut(sent):
                event, text = listener.popleft()
                yield f"event: {event}\ndata: {text}\n\n"
                sent += 1
                if event == "thread.message.delta" and run.round.words_per_second is None:
                    await asyncio.sleep(run.scenario.word_seconds)
            if cut(sent):
                raise StreamCut
            if run.ended or run.status == "requires_action":
                yield DONE
                return
            due = engine.lifecycle.due(run)
            wait = _LONGEST_NAP if due is None else due[0] - engine.clock.now()
            await asyncio.sleep(max(0.0, min(wait, _LONGEST_NAP)))
    finally:
        # A reader that went away must not stop the run, nor be fed for ever.
        forget(run, listener)
