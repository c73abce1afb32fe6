"""What a stream is told of a run: its view, and the steps and messages upstream, read as needed."""

import asyncio
import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from temporalio.client import Client

from activities.texts import Written
from runlane import reading
from runlane.api.presenting import status_of
from runlane.api.run_events import MadeStep, Pause, Story, message_of, story
from runlane.errors import UpstreamUnreachable
from runlane.rpc import explained
from runsapi import APIStatusError, Assistants, RunsAPIError, RunStatus, RunStep
from runsapi.limits import MAX_PAGE
from runsapi.paths import path
from workflows.contract import RunView

_PATIENCE = timedelta(seconds=2)
_STEPS_WITHIN = 1.0
"""Seconds for which a step that must come is waited for: some upstreams show them late."""
_LATE_STEPS_EVERY = 0.2
_STEPS_LONGEST = 30.0
_STEPS_SHARE_OF_AGE = 0.1
"""While the upstream works, its steps are looked at this often: by the time since they changed."""

_logger = logging.getLogger("runlane.api")


class Facts:
    """One run, read again and again; what can't have changed isn't read again.

    Attributes:
        written: what is written of a message as of the last look, as far as a worker tells.
    """

    def __init__(self, client: Client, upstream: Assistants, run_id: str) -> None:
        """Read nothing yet.

        Args:
            client: of the run's Temporal.
            upstream: where its steps and messages are.
            run_id: ours.
        """
        self._client, self._upstream, self._run_id = client, upstream, run_id
        self.written: Written | None = None
        self._mark: tuple[object, ...] | None = None
        self._view: RunView | None = None
        self._steps: list[MadeStep] = []
        self._past: dict[int, list[MadeStep]] = {}
        """The steps of attempts that are over."""
        self._looked_at = self._changed_at = 0.0
        self._is_untold = False
        """The view is one of which nothing was told yet: steps or messages can't be had."""
        self._late_since: float | None = None
        """Since when a step isn't there that the view speaks of."""
        self._messages: dict[str, Mapping[str, Any] | None] = {}

    async def look(self) -> Story | None:
        """Return the story as far as it is known now; None: nothing can have changed.

        Raises:
            RunNotFound: Temporal has no such run, or no longer.
            Unreachable: Temporal or the upstream can't be asked.
            RunlaneError: they can't be read.
        """
        now = asyncio.get_running_loop().time()
        await self._read_view()
        view = self._view
        if view is None or not (self._is_untold or self._steps_are_due(view, now)):
            return None
        if (
            not await self._read_steps(view, now)
            and not self._is_untold
            and self._late_since is None
        ):
            return None
        while True:
            late = self._late_since
            settled = late is not None and now - late >= _STEPS_WITHIN
            told = story(view, self._steps, self._messages, settled=settled)
            if told.missing is None:
                break
            self._messages[told.missing] = await self._message(view, told.missing)
        self._is_untold = False
        # Whoever polls hears already that the run has ended, or asks.
        still = (RunStatus.QUEUED, RunStatus.IN_PROGRESS, RunStatus.CANCELLING)
        if told.pause is not Pause.WORKING or status_of(view) in still:
            self._late_since = None
        elif self._late_since is None:
            self._late_since = now
        return told

    async def _read_view(self) -> None:
        """Read the view where something has happened."""
        with explained(self._client):
            description = await reading.describe(self._client, self._run_id)
            polled = await reading.polled(description)
            self.written = polled.written
            # What differs whenever the run may have changed.
            mark = (
                description.run_id,
                description.status,
                description.history_length,
                polled.status,
            )
            if mark == self._mark:
                return
            view = await reading.read(self._client, self._run_id, patience=_PATIENCE)
        # Without a worker too little is known: what is told must never be taken back.
        if view.runlane.worker is False or view.runlane.known_at is not None:
            return
        self._mark, self._view = mark, view
        self._is_untold = True

    def _steps_are_due(self, view: RunView, now: float) -> bool:
        since = now - self._looked_at
        if self._late_since is not None:
            return since >= _LATE_STEPS_EVERY
        wait = max(_STEPS_WITHIN, (now - self._changed_at) * _STEPS_SHARE_OF_AGE)
        if self._has_unknown_text():
            wait = _STEPS_WITHIN
        at_work = view.run.status == RunStatus.IN_PROGRESS
        return at_work and since >= min(wait, _STEPS_LONGEST)

    def _has_unknown_text(self) -> bool:
        """Tell whether text is written of a message of which no step is known yet."""
        if self.written is None:
            return False
        known = {message_of(made.step) for made in self._steps}
        return self.written.message_id not in known

    async def _read_steps(self, view: RunView, now: float) -> bool:
        """Read the steps; tell whether they have changed."""
        found: list[MadeStep] = []
        for each in view.runlane.attempts:
            if each.attempt in self._past:
                found += self._past[each.attempt]
                continue
            steps = await self._steps_of(view.run.thread_id, each.upstream_run_id)
            made = [MadeStep(each.attempt, step) for step in steps]
            if each.attempt < view.runlane.attempt:
                self._past[each.attempt] = made
            found += made
        self._looked_at = now
        if found == self._steps:
            return False
        self._steps, self._changed_at = found, now
        return True

    async def _steps_of(self, thread_id: str, upstream_run_id: str) -> list[RunStep]:
        pages = self._upstream.runs.steps.list(
            upstream_run_id, thread_id=thread_id, order="asc", limit=MAX_PAGE, background=True
        )
        try:
            return [step.model_copy(update={"run_id": self._run_id}) async for step in pages]
        except APIStatusError as error:
            # An upstream may forget a run before we do.
            if error.status_code == 404:
                return []
            raise self._unreachable(error) from error
        except RunsAPIError as error:
            raise self._unreachable(error) from error

    async def _message(self, view: RunView, message_id: str) -> Mapping[str, Any] | None:
        target = path(
            *("threads", "thread_id", "messages", "message_id"),
            thread_id=view.run.thread_id,
            message_id=message_id,
        )
        try:
            answer = await self._upstream.request("GET", target)
        except APIStatusError as error:
            if error.status_code == 404:
                return None
            raise self._unreachable(error) from error
        except RunsAPIError as error:
            raise self._unreachable(error) from error
        found = answer.data
        return found if isinstance(found, dict) and found.get("id") == message_id else None

    def _unreachable(self, error: RunsAPIError) -> UpstreamUnreachable:
        # A caller isn't told where it is, nor what it said.
        _logger.warning("A stream can't read from %s: %s", self._upstream.url, error)
        return UpstreamUnreachable("The upstream doesn't show what the run did; resume later.")
