"""One reader for each run that this process streams, however many listen.

It looks at the run on a short curve and keeps the events; whoever listens holds a place in that
list and nothing else, so a slow one holds up nobody and costs no queue.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from runlane.api import run_events
from runlane.api.facts import Facts
from runlane.api.live_texts import LiveTexts
from runlane.api.run_events import Event, Pause, Story
from runlane.errors import NotFound, RunlaneError
from workflows.contract import RunView

LOOKS_AT_A_TIME = 8
LOOKS_PER_SECOND = 80.0
"""Over all readers of a process: a thousand look at their runs every 12 s or so."""
OUTAGE_SECONDS = 60.0
"""After so long without Temporal or the upstream a stream ends; whoever listens resumes it."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_SHARE_OF_AGE = 0.1
_TEXT_PAUSE = 0.25
"""After text there is no more within a second."""

_logger = logging.getLogger("runlane.api")


class Told(NamedTuple):
    """An event as it goes out."""

    id: str
    name: str
    frame: bytes
    call_ids: tuple[str, ...] = ()
    """Of a question: the calls that it asks for."""
    message_id: str = ""
    """Of what a message's own events tell."""
    make: Callable[[], dict[str, Any]] | None = None
    """Returns the data, where a listener may know part of it: of a message's text."""


class Reader:
    """Reads one run for as long as anybody listens.

    Attributes:
        told: the events so far.
        texts: of messages, while they are written.
        problem: why there will be no more, where that isn't the run's end.
    """

    def __init__(self, facts: Facts, room: asyncio.Semaphore, load: Callable[[], int]) -> None:
        """Read nothing before `run`.

        Args:
            facts: of the run.
            room: held while looking.
            load: how many readers there are.
        """
        self.told: list[Told] = []
        self.texts = LiveTexts()
        self.problem: RunlaneError | None = None
        self._facts, self._room, self._load = facts, room, load
        self._places: dict[str, int] = {}
        self._pause = Pause.WORKING
        self._begun = self._done = 0
        self._news = asyncio.Event()
        self._wanted = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether there will be no more events: the run has ended, or can't be read."""
        return self._pause is Pause.ENDED or self.problem is not None

    def is_waiting(self, look: int) -> bool:
        """Tell whether the run waited for its caller as of that look, or a later one."""
        return self._pause is Pause.ASKING and self.has_looked(look)

    def has_looked(self, look: int) -> bool:
        """Tell whether that look, or a later one, is done."""
        return self._done >= look

    def look_now(self) -> int:
        """Look at once; return the number of the look that sees all that is so now."""
        self._wanted.set()
        return self._begun + 1

    def place_after(self, event_id: str, look: int) -> int | None:
        """Return the place in `told` after an event; None: there is none such as of that look."""
        place = self._places.get(event_id)
        if place is None and self.has_looked(look):
            place = self._places.get(run_events.before(event_id) or "")
        return None if place is None else place + 1

    def place_after_question(self, call_ids: Sequence[str]) -> int | None:
        """Return the place in `told` after the latest question for one of these calls."""
        for place in range(len(self.told) - 1, -1, -1):
            if set(self.told[place].call_ids) & set(call_ids):
                return place + 1
        return None

    def begin(self, view: RunView) -> None:
        """Tell how a run begins, from what its creation has returned."""
        self._take(run_events.story(view, [], {}).events[:2])

    async def wait(self, seen: int, look: int, seconds: float, *, grown: int | None = None) -> bool:
        """Wait for more than `seen` events, for a look under way, or until there'll be no more.

        Args:
            seen: how many events are known.
            look: as `look_now` returned it.
            seconds: for how long at most.
            grown: wait for text, too: as `texts.grown` was.

        Returns:
            Whether that came within the time.
        """
        try:
            async with asyncio.timeout(seconds):
                waits = not self.has_looked(look)
                while len(self.told) <= seen and not self.is_over:
                    if waits and self.has_looked(look):
                        break
                    if grown is not None and self.texts.grown != grown:
                        break
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Look until the run's end, or until it can't be read any more."""
        changed_at, outage, least = time.monotonic(), None, _FIRST_PAUSE
        while not self.is_over:
            self._wanted.clear()
            try:
                async with self._room:
                    self._begun += 1
                    story = await self._facts.look()
                outage = None
                self._done = self._begun
                if self._told_more(story):
                    changed_at, least = time.monotonic(), _FIRST_PAUSE
                if self.texts.take(self._facts.written):
                    changed_at, least = time.monotonic(), _TEXT_PAUSE
            except NotFound as error:
                self.problem = error
            except RunlaneError as error:
                outage = outage or time.monotonic()
                if time.monotonic() - outage >= OUTAGE_SECONDS:
                    self.problem = error
            except Exception:
                # Whoever listens must not wait for ever for a reader that is gone.
                _logger.exception("a stream's reader failed")
                self.problem = RunlaneError("The server had an error.", code="server_error")
            self._tell()
            await self._rest(time.monotonic() - changed_at, least)

    async def _rest(self, age: float, least: float) -> None:
        pause = min(max(age * _SHARE_OF_AGE, least), _LONGEST_PAUSE)
        try:
            async with asyncio.timeout(max(pause, self._load() / LOOKS_PER_SECOND)):
                if not self.is_over:
                    await self._wanted.wait()
        except TimeoutError:
            pass

    def _told_more(self, story: Story | None) -> bool:
        if story is None:
            return False
        before = len(self.told)
        self._take(story.events)
        self._pause = story.pause
        return len(self.told) > before

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.id not in self._places:
                self._places[event.id] = len(self.told)
                self.told.append(_told(event))

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class Readers:
    """The readers of a process."""

    def __init__(self) -> None:
        """Read nothing yet."""
        self._readers: dict[str, Reader] = {}
        self._listeners: dict[str, int] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(LOOKS_AT_A_TIME)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._readers)

    @contextmanager
    def reading(
        self, run_id: str, facts: Callable[[], Facts], *, view: RunView | None = None
    ) -> Iterator[Reader]:
        """Listen to a run's reader, which reads until the last listener has left.

        Args:
            run_id: ours.
            facts: makes those of the run, for the first listener.
            view: what is known already: it tells how the run begins.
        """
        reader = self._readers.get(run_id)
        if reader is None or reader.is_over:
            reader = Reader(facts(), self._room, lambda: len(self._readers))
            if view is not None:
                reader.begin(view)
            self._readers[run_id] = reader
            self._listeners[run_id] = 0
            self._tasks[run_id] = asyncio.create_task(reader.run())
        self._listeners[run_id] += 1
        try:
            yield reader
        finally:
            self._leave(run_id, reader)

    def _leave(self, run_id: str, reader: Reader) -> None:
        # One that is over may have been replaced, and has ended by itself.
        if self._readers.get(run_id) is not reader:
            return
        self._listeners[run_id] -= 1
        if not self._listeners[run_id]:
            self._tasks.pop(run_id).cancel()
            del self._readers[run_id], self._listeners[run_id]


def framed(name: str, data: dict[str, Any], *, event_id: str | None = None) -> bytes:
    """Return an event as it goes over the wire; without an id it moves nobody's place."""
    # In ASCII: there are readers that take other separators of lines for an event's end.
    text = json.dumps(data, separators=(",", ":"))
    place = "" if event_id is None else f"id: {event_id}\n"
    return f"{place}event: {name}\ndata: {text}\n\n".encode()


def _told(event: Event) -> Told:
    data = event.data
    frame = framed(event.name, data, event_id=event.id)
    action = data.get("required_action") or {}
    calls = action.get("submit_tool_outputs", {}).get("tool_calls", [])
    is_question = event.name == "thread.run.requires_action"
    return Told(
        event.id,
        event.name,
        frame,
        tuple(call["id"] for call in calls) if is_question else (),
        event.message_id,
        event.make if event.name == "thread.message.delta" else None,
    )
