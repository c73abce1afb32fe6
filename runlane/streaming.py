"""A run's events, made of what becomes known of it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self

from runlane.waiting import Look
from runsapi import AssistantStreamEvent, Run
from runsapi.events import typed_event


class RunStream:
    """Follows a run: `async for event in stream`. Leaving it doesn't stop the run.

    The events are the protocol's, of the run as a whole: `thread.run.created`, then one for each
    new status; the last says that the run requires an action or has ended.

    Attributes:
        current_run: the run as last seen; None before the first event.
    """

    def __init__(
        self,
        begin: Callable[[], Awaitable[Run]],
        watch: Callable[[str], AsyncIterator[Look]],
        *,
        created: bool,
    ) -> None:
        """Describe a stream; nothing is sent before it is read.

        Args:
            begin: creates, answers or finds the run.
            watch: yields looks at the run with that id.
            created: whether the run is a new one.
        """
        self.current_run: Run | None = None
        self._begin = begin
        self._watch = watch
        self._created = created
        self._events = self._iterate()

    def __aiter__(self) -> AsyncIterator[AssistantStreamEvent]:
        """Return the events."""
        return self._events

    async def __anext__(self) -> AssistantStreamEvent:
        """Return the next event."""
        return await anext(self._events)

    async def __aenter__(self) -> Self:
        """Return the stream; it begins with the first event."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop following; the run goes on."""

    async def until_done(self) -> None:
        """Read the stream to its end."""
        async for _ in self._events:
            pass

    async def get_final_run(self) -> Run:
        """Return the run as the stream left it: ended, or waiting for answers."""
        await self.until_done()
        assert self.current_run is not None
        return self.current_run

    async def _iterate(self) -> AsyncIterator[AssistantStreamEvent]:
        run = await self._begin()
        self.current_run = run
        if self._created:
            yield _event("created", run)
            yield _event(str(run.status), run)
        shown = str(run.status) if self._created else None
        async for look in self._watch(run.id):
            if look.view is None:
                continue
            self.current_run = run = look.view.run
            if str(run.status) != shown:
                shown = str(run.status)
                yield _event(shown, run)


def _event(word: str, run: Run) -> AssistantStreamEvent:
    return typed_event(f"thread.run.{word}", run.model_dump(mode="json"))
