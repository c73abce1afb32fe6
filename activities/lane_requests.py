"""What a lane asks of the upstream: one request a method, in its turn and within the limits.

Each one raises what its failure means for the item: see `lane_failures`.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from temporalio.exceptions import ApplicationError

from activities import item_messages, stamps
from activities.contract import CreateInput, Upstream
from activities.lane_failures import (
    Outcome,
    PauseBatch,
    Trouble,
    is_taken,
    of_error,
    of_failure,
    too_late,
)
from activities.lane_journal import Journal
from activities.paces import Pace
from runsapi import Assistants, Run, RunCreateParams, RunsAPIError
from runsapi.answers import Response


class Leave(Exception):
    """The lane comes back: the item is left as it stands, for the lane's next turn."""


@dataclass
class Mood:
    """What all items of a lane must know."""

    leaving: asyncio.Event
    """Set: come back as soon as nothing is on its way."""
    cancelling: asyncio.Event
    """Set: cancel what has begun."""
    answered_at: float = 0.0
    """When the upstream last answered anything, by this process's clock."""
    settled: int = 0


class Requests:
    """The requests of one lane.

    Args:
        upstream: where runs are executed.
        journal: asked before anything is sent that changes something.
        pace: gives it its turns among all requests of the batch.
        mood: shared with the lane.
    """

    def __init__(self, upstream: Assistants, journal: Journal, pace: Pace, mood: Mood) -> None:
        self._upstream = upstream
        self._runs = upstream.runs
        self._journal = journal
        self._pace = pace
        self._mood = mood

    @property
    def upstream(self) -> Upstream:
        """The service, as runs record it."""
        return Upstream(name=self._upstream.name, url=self._upstream.url)

    async def make_thread(self, run_id: str, body: dict[str, Any]) -> str:
        """Create a thread, and return its id.

        An answer that is lost leaves an empty one behind, and no run on it.
        """
        await self._may_send(run_id, await self._turn())
        try:
            answer = await self._upstream.request("POST", "/threads", body=body)
        except RunsAPIError as error:
            raise await self._meaning(error, creating=True) from None
        self._answered()
        thread_id = answer.data.get("id") if isinstance(answer.data, dict) else None
        if not isinstance(thread_id, str) or not thread_id:
            raise Trouble("unavailable", "The upstream made a thread without an id")
        return thread_id

    async def create(self, wanted: CreateInput) -> Response[Run] | Run:
        """Create a run; where the thread has it already, return the one that it has."""
        params = RunCreateParams.model_validate(wanted.params)
        turn = await self._turn()
        try:
            response: Response[Run] = await self._runs.with_response.create(
                wanted.thread_id,
                params,
                before_send=lambda: self._may_send(wanted.run_id, turn),
            )
        except RunsAPIError as error:
            if not is_taken(error):
                raise await self._meaning(error, creating=True) from None
            self._answered()
            await self._turn()
            try:
                return await stamps.find_after_refusal(self._runs, wanted, error)
            except ApplicationError as failure:
                await self._tell_hold()
                raise of_failure(failure) from None
        self._answered()
        return response

    async def find(self, wanted: CreateInput) -> Run | None:
        """Look for the run that an earlier create may have brought about."""
        await self._turn()
        try:
            found = await stamps.find(self._runs, wanted)
        except ApplicationError as failure:
            await self._tell_hold()
            raise of_failure(failure) from None
        self._answered()
        return found

    async def retrieve(self, run_id: str, thread_id: str) -> Response[Run]:
        """Look at a run."""
        await self._turn()
        try:
            response: Response[Run] = await self._runs.with_response.retrieve(
                run_id, thread_id=thread_id, background=True
            )
        except RunsAPIError as error:
            raise await self._meaning(error, creating=False) from None
        self._answered()
        if response.data.id != run_id:
            raise Trouble("unavailable", f"The upstream answered for {run_id} with another run")
        return response

    async def messages(self, thread_id: str, query: item_messages.Query) -> Any:
        """Return a page of a thread's messages as JSON."""
        await self._turn()
        try:
            page = await item_messages.page_of(self._upstream, thread_id, query)
        except RunsAPIError as error:
            raise await self._meaning(error, creating=False) from None
        self._answered()
        return page

    async def cancel(self, run_id: str, thread_id: str) -> None:
        """Ask for a run's end; whatever the answer is, looking at it tells the truth."""
        await self._turn()
        try:
            await self._runs.cancel(run_id, thread_id=thread_id)
        except RunsAPIError:
            await self._tell_hold()
            return
        self._answered()

    async def _turn(self) -> float:
        """Wait until the pace lets one more request go, unless the lane comes back."""
        if self._mood.leaving.is_set():
            raise Leave
        return await self._pace.turn()

    async def _may_send(self, run_id: str, turn: float) -> None:
        """Look right before something is sent: it may have waited for its turn for minutes."""
        while True:
            if self._mood.cancelling.is_set():
                raise too_late()
            stop = await self._journal.may_send(run_id)
            if stop is not None:
                raise PauseBatch("stopped", f"Stopped by {stop.by} ({stop}): {stop.reason}")
            if self._mood.leaving.is_set():
                raise Leave
            if self._pace.is_fresh(turn):
                return
            turn = await self._turn()

    def _answered(self) -> None:
        self._mood.answered_at = time.monotonic()

    async def _meaning(self, error: RunsAPIError, *, creating: bool) -> Outcome:
        await self._tell_hold()
        meaning = of_error(error, creating=creating)
        if not isinstance(meaning, Trouble) or not meaning.is_outage:
            self._answered()
        return meaning

    async def _tell_hold(self) -> None:
        """Tell the other processes if the upstream wants to be left alone."""
        held = self._upstream.turns.held
        if held > 0:
            await self._journal.hold(held)
