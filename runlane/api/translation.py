"""Run ids, ours for the upstream's and the other way round.

An upstream run is one of ours by the stamp that it was created with, and by our run's own word.
"""

import contextlib
import re
from collections import OrderedDict
from typing import TYPE_CHECKING

from activities.contract import ATTEMPT_STAMP, RUN_ID_STAMP
from ledger import LedgerError
from runlane import reading
from runlane.errors import CannotDecrypt, RunNotFound
from runlane.payload_store import PayloadStoreError
from runlane.rpc import explained
from runlane.steps import upstream_runs
from runsapi import TERMINAL, APIStatusError
from runsapi.limits import MAX_PAGE

if TYPE_CHECKING:
    from runlane.api.access import Principal
    from runlane.api.services import Services

_REMEMBERED = 10_000
_MOST_RUNS = 5_000
"""Looked through on a thread: a server that pages for ever must not hold a request for ever."""
_OURS = re.compile(r"run_[A-Za-z0-9_-]{1,60}")
"""Nothing else could be the id of a run of Runlane's."""


class RunIds:
    """Knows whose an upstream run is; what can't change any more is asked for once a process."""

    def __init__(self, *, remembered: int = _REMEMBERED) -> None:
        """Know of none.

        Args:
            remembered: upstream runs at most; those asked for least lately are forgotten.
        """
        self._remembered = remembered
        self._known: OrderedDict[tuple[str, str], str] = OrderedDict()

    def __len__(self) -> int:
        """Return how many upstream runs are known."""
        return len(self._known)

    def note(self, thread_id: str, upstream_run_id: str, run_id: str) -> None:
        """Remember which run is to be shown for an upstream run."""
        key = (thread_id, upstream_run_id)
        self._known[key] = run_id
        self._known.move_to_end(key)
        while len(self._known) > self._remembered:
            self._known.popitem(last=False)

    async def ours(self, services: "Services", thread_id: str, upstream_run_id: str) -> str:
        """Return the id of the run that an upstream run works for; its own where it is nobody's.

        Raises:
            RunsAPIError: the upstream can't be asked.
            RunlaneError: Temporal can't be asked.
        """
        known = self._known.get((thread_id, upstream_run_id))
        if known is not None:
            self._known.move_to_end((thread_id, upstream_run_id))
            return known
        try:
            run = await services.upstream.runs.retrieve(upstream_run_id, thread_id=thread_id)
        except APIStatusError as error:
            # The upstream may forget a run before its messages.
            if error.status_code == 404:
                return upstream_run_id
            raise
        stamp = (run.metadata or {}).get(RUN_ID_STAMP, "")
        if not _OURS.fullmatch(stamp):
            self.note(thread_id, upstream_run_id, upstream_run_id)
            return upstream_run_id
        return await self._confirmed(services, thread_id, upstream_run_id, stamp)

    async def upstreams(
        self, services: "Services", asking: "Principal", thread_id: str, run_id: str
    ) -> list[str] | None:
        """Return the upstream runs of a run of ours, the oldest first; None: it isn't ours.

        Of another owner's run there are none.

        Raises:
            RunsAPIError: the upstream can't be asked.
            RunlaneError: Temporal can't be asked.
        """
        if not _OURS.fullmatch(run_id):
            return None
        try:
            view = await services.runlane.runs.view(run_id, thread_id)
        except RunNotFound:
            owner = await _recorded_owner(services, thread_id, run_id)
            if owner is None:
                return None
            return await _stamped(services, thread_id, run_id) if asking.sees(owner) else []
        if not asking.sees(view.runlane.owner):
            return []
        found = upstream_runs(view)
        # Only a worker, or the run's result, tells all of them.
        if not found and not view.runlane.worker:
            found = await _stamped(services, thread_id, run_id)
        for upstream_run_id in found:
            self.note(thread_id, upstream_run_id, run_id)
        return found

    async def _confirmed(
        self, services: "Services", thread_id: str, upstream_run_id: str, stamp: str
    ) -> str:
        """Return the stamp's run where there is one here that knows of the upstream run."""
        client = services.runlane.temporal
        try:
            with explained(client):
                view = await reading.read(client, stamp, thread_id=thread_id)
        except RunNotFound:
            if await _recorded_owner(services, thread_id, stamp) is None:
                return upstream_run_id
        except (CannotDecrypt, PayloadStoreError):
            # It is there; what else it knows can't be read here.
            return stamp
        else:
            if upstream_run_id not in upstream_runs(view):
                # A run that lives may not have heard yet that it was created upstream.
                return upstream_run_id if view.run.status in TERMINAL else stamp
        self.note(thread_id, upstream_run_id, stamp)
        return stamp


async def _recorded_owner(services: "Services", thread_id: str, run_id: str) -> str | None:
    """Return whose a run is that Temporal has forgotten; None where the ledger has none."""
    record = None
    with contextlib.suppress(LedgerError):
        record = await services.ledger.runs.find(run_id)
    return None if record is None or record.thread_id != thread_id else record.owner


async def _stamped(services: "Services", thread_id: str, run_id: str) -> list[str]:
    """Return the upstream runs that carry a run's stamp, the oldest first."""
    found: list[tuple[int, str]] = []
    seen = 0
    pages = services.upstream.runs.list(thread_id, order="asc", limit=MAX_PAGE)
    async for run in pages:
        seen += 1
        metadata = run.metadata or {}
        if metadata.get(RUN_ID_STAMP) == run_id:
            attempt = metadata.get(ATTEMPT_STAMP, "")
            found.append((int(attempt) if attempt.isdecimal() else 0, run.id))
        if seen >= _MOST_RUNS:
            break
    return [upstream_run_id for _, upstream_run_id in sorted(found)]
