"""A connection to the API, and what a caller must do within a time, so as not to lose it.

The server limits the time of an idle connection that has asked before, and no more: one that never
asks, or never ends what it asks, would stay for ever, and so would one that doesn't read.
"""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 30.0
"""In which the head of a request must come, and what is left of a body that was refused."""
STALLED_SECONDS = 60.0
"""After which one that reads nothing, while 64 kB and what the system keeps wait for it, is cut."""


class Connection(H11Protocol):
    """HTTP/1.1, as uvicorn speaks it, with an end to all waiting for a caller."""

    _unfinished: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request."""
        super().connection_made(transport)
        self._unfinished = self.loop.call_later(HEAD_SECONDS, self._cut)

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Go on to the next request, which may be there already."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """Wait until the caller has read."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALLED_SECONDS, self._cut)

    def resume_writing(self) -> None:
        """The caller has read."""
        super().resume_writing()
        self._let_read()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._let_finish()
        self._let_read()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Let the time run while something is unfinished; another part of it gives no more time."""
        theirs = self.conn.their_state
        # Between two requests uvicorn's own timer runs, until the first byte.
        in_head = theirs is h11.IDLE and (
            self.timeout_keep_alive_task is None or bool(self.conn.trailing_data[0])
        )
        # A body that the app waits for has the request's own limit.
        refused = theirs is h11.SEND_BODY and self.conn.our_state in (h11.DONE, h11.MUST_CLOSE)
        if not (in_head or refused):
            self._let_finish()
        elif self._unfinished is None:
            self._unfinished = self.loop.call_later(HEAD_SECONDS, self._cut)

    def _cut(self) -> None:
        # What is still to be written would else be waited for.
        self.transport.abort()

    def _let_finish(self) -> None:
        if self._unfinished is not None:
            self._unfinished.cancel()
            self._unfinished = None

    def _let_read(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
