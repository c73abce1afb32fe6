"""The kill switch as people and programs use it: what is not to begin until it is resumed.

A stop stands in the ledger, where every worker looks right before it creates an upstream run,
submits outputs or runs a tool. What has begun goes on, and so do waiting, deciding and cancelling.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from temporalio.client import Client

from activities import trail
from ledger import Ledger
from ledger.stops import Scope, Stop
from runlane import reading
from runlane.client_ledger import ClientLedger
from runlane.errors import (
    InvalidRequest,
    LedgerUnreachable,
    LedgerUnusable,
    NotFound,
    RunEnded,
    RunlaneError,
)
from runlane.person import person
from runlane.rpc import explained
from runlane.settings import Settings, SettingsError
from runlane.temporal import connect
from runsapi import TERMINAL
from workflows.contract import RunView, StoppedView

MAX_REASON = 255
"""Characters."""

_PATIENCE = 2.0
"""Seconds that a view waits to learn of stops."""
_TOOL = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class NotStopped(NotFound):
    """There is no such stop."""

    code = "not_stopped"


@dataclass(frozen=True)
class Ordered:
    """What became of a stop that was ordered."""

    stop: Stop
    """The one that stands."""
    is_new: bool
    """False: it stood already, and stands as it was."""
    unused: str | None = None
    """Said where no worker has made the ledger in which it stands: perhaps theirs is another."""


@dataclass(frozen=True)
class Seen:
    """The stops that views and lists know of: what was asked for is there without them, too."""

    standing: Sequence[Stop] = ()
    problem: str | None = None
    """Why they can't be told."""


class Stops:
    """Ordering stops, listing them, and resuming."""

    def __init__(
        self, settings: Settings, client: Client | None = None, ledger: Ledger | None = None
    ) -> None:
        """Share a connection, or make one where one is needed.

        Args:
            settings: say where the ledger lies, and who orders.
            client: without it Temporal is asked only about runs, and where the ledger lies.
            ledger: held open by the caller; without it one is opened for each call.
        """
        self._settings = settings
        self._client = client
        self._held = ledger

    async def stop(
        self,
        *,
        all: bool = False,
        tool: str | None = None,
        run_id: str | None = None,
        reason: str,
        by: str | None = None,
    ) -> Ordered:
        """Let nothing begin any more: of everything, of a tool's runs, or of one run.

        Args:
            all: everything.
            tool: the name of a tool that is not to run.
            run_id: the run that is not to create, submit or run a tool.
            reason: shown wherever it holds something up; at most 255 characters.
            by: who orders it; default: as `runlane.person` says.

        Raises:
            InvalidRequest: not one of the three is named, or something given can't be used.
            RunNotFound: there is no such run.
            RunEnded: the run has ended; there is nothing to stop.
            LedgerUnreachable: the ledger doesn't answer. Whether the stop stands is not known.
        """
        scope, target = _scope(all, tool, run_id)
        if not 1 <= len(reason.strip()) <= MAX_REASON or not reason.isprintable():
            text = f"reason must be a line of 1 to {MAX_REASON} characters."
            raise InvalidRequest(text, param="reason")
        if scope is Scope.RUN:
            await self._check_run(target)
        wanted = Stop(
            scope=scope,
            target=target,
            by=by or person(self._settings),
            reason=reason.strip(),
            since=datetime.now(UTC),
        )
        event = trail.control(
            what="stop", scope=str(wanted), by=wanted.by, reason=wanted.reason, at=wanted.since
        )
        place = await self._ledger()
        unused = None
        try:
            await place.check_there()
        except LedgerUnusable as error:
            # It may be meant for workers that are yet to start.
            unused = error.message
        async with place.opened() as ledger:
            stands = await ledger.stops.stop(wanted, [event])
        return Ordered(stands, is_new=stands == wanted, unused=unused)

    async def resume(
        self,
        *,
        all: bool = False,
        tool: str | None = None,
        run_id: str | None = None,
        by: str | None = None,
    ) -> Stop:
        """End a stop and return it. Workers see it within 5 s; other stops stand.

        Raises:
            InvalidRequest: not one of the three is named.
            NotStopped: there is no such stop; the message names those that stand.
            LedgerUnreachable: the ledger doesn't answer. Whether the stop stands is not known.
        """
        scope, target = _scope(all, tool, run_id)
        at = datetime.now(UTC)
        named = Stop(
            scope=scope, target=target, by=by or person(self._settings), reason="-", since=at
        )
        event = trail.control(what="resume", scope=str(named), by=named.by, reason=None, at=at)
        async with (await self._ledger()).opened() as ledger:
            ended = await ledger.stops.resume(scope, target, [event])
            standing = [] if ended else await ledger.stops.standing()
        if ended is None:
            others = ", ".join(map(str, standing)) or "nothing"
            raise NotStopped(f"There is no stop of {named}. Stopped: {others}.")
        return ended

    async def list(self) -> Sequence[Stop]:
        """Return the stops that stand, the oldest first.

        Raises:
            LedgerUnreachable: the ledger doesn't answer.
        """
        async with (await self._ledger()).opened() as ledger:
            return await ledger.stops.standing()

    async def seen(self) -> Seen:
        """Return the stops that can be seen from here: none where nobody says where the ledger is.

        They can't be told where it gives no answer within 2 s, or can't be used.
        """
        try:
            return Seen(await self._seen())
        except (RunlaneError, SettingsError) as error:
            return Seen(problem=str(error))

    async def _seen(self) -> Sequence[Stop]:
        ledger = ClientLedger(self._settings, self._client, self._held)
        limit = asyncio.timeout(_PATIENCE)
        try:
            async with limit:
                if not await ledger.is_there():
                    return []
                async with ledger.opened() as opened:
                    return await opened.stops.standing()
        except TimeoutError:
            if not limit.expired():
                raise
            raise LedgerUnreachable(f"The ledger gave no answer in {_PATIENCE:g} s.") from None

    async def _ledger(self) -> ClientLedger:
        here = self._settings.data_dir is not None or self._settings.read_database_url() is not None
        here = here or self._held is not None
        return ClientLedger(self._settings, None if here else await self._connected(), self._held)

    async def _connected(self) -> Client:
        if self._client is None:
            self._client = await connect(self._settings)
        return self._client

    async def _check_run(self, run_id: str) -> None:
        client = await self._connected()
        with explained(client):
            description = await reading.describe(client, run_id)
        if reading.is_closed(description):
            text = f"{run_id} has ended; there is nothing to stop."
            raise RunEnded(text, param="run_id")


def document(stop: Stop) -> dict[str, Any]:
    """Return a stop as documents have it."""
    return {
        "object": "stop",
        "scope": str(stop.scope),
        "target": stop.target or None,
        "by": stop.by,
        "reason": stop.reason,
        "since_at": stop.since.timestamp(),
    }


def marked(views: Sequence[RunView], stops: Sequence[Stop]) -> list[RunView]:
    """Return views with the stop that holds each run up, where it hasn't ended.

    Stops of tools aren't a run's: one that waits for such a tool says so itself.
    """
    return [_marked(view, stops) for view in views]


def _marked(view: RunView, stops: Sequence[Stop]) -> RunView:
    if view.run.status in TERMINAL:
        return view
    mine = [each for each in stops if each.target == view.run.id or each.scope is Scope.ALL]
    mine = [each for each in mine if each.scope is not Scope.TOOL]
    if not mine:
        return view
    first = min(mine, key=lambda stop: list(Scope).index(stop.scope))
    known = view.runlane.model_copy(update={"stopped": view_of(first)})
    return view.model_copy(update={"runlane": known})


def view_of(stop: Stop) -> StoppedView:
    """Return a stop as it is shown."""
    return StoppedView(
        scope=str(stop.scope),
        target=stop.target or None,
        by=stop.by,
        reason=stop.reason,
        since_at=stop.since.timestamp(),
    )


def _scope(all: bool, tool: str | None, run_id: str | None) -> tuple[Scope, str]:  # noqa: FBT001 - private
    if [all, tool is not None, run_id is not None].count(True) != 1:
        raise InvalidRequest("Say one of: all, a tool, a run.", param="all")
    if all:
        return Scope.ALL, ""
    if tool is not None:
        if not _TOOL.fullmatch(tool):
            text = "tool must have 1 to 64 characters out of a-z, A-Z, 0-9, _ and -."
            raise InvalidRequest(text, param="tool")
        return Scope.TOOL, tool
    assert run_id is not None
    if not 1 <= len(run_id) <= MAX_REASON or not run_id.isprintable():
        raise InvalidRequest("run_id is not the id of a run.", param="run_id")
    return Scope.RUN, run_id
