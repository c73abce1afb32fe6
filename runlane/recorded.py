"""Lists of runs of any age, out of the ledger: also of those that Temporal has forgotten.

Of a run that hasn't ended the ledger knows only its start; what Temporal knows of it is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from temporalio.client import Client

from ledger import Ledger
from ledger.errors import RunNotKnown
from ledger.run_record import RunQuery, RunRecord
from runlane.client_ledger import ClientLedger
from runlane.errors import InvalidRequest, RunNotFound
from runlane.listing import ListQuery, RunList, RunPage, quoted
from runlane.rpc import explained
from runlane.stops import Stops
from runlane.visibility import listed_view
from runsapi import TERMINAL, Run, RunStatus
from workflows.contract import RunlaneView, RunView

_ENDED_AT = {
    RunStatus.COMPLETED: "completed_at",
    RunStatus.CANCELLED: "cancelled_at",
    RunStatus.FAILED: "failed_at",
}


@dataclass(frozen=True)
class RecordedPage(RunPage):
    """One page of runs of any age."""

    _ledger: ClientLedger = field(kw_only=True)

    async def _fetch(self, query: ListQuery) -> RunPage:
        return await fetch_page(self._client, self._ledger, query)


class RecordedList(RunList):
    """A list that was asked for: `await` it for one page, or iterate over all runs."""

    def __init__(
        self, client: Client, ledger: ClientLedger, query: ListQuery, stops: Stops | None = None
    ) -> None:
        """Check the query; nothing is fetched yet.

        Raises:
            InvalidRequest: a parameter is out of its range, or only Temporal knows it.
        """
        super().__init__(client, query, stops)
        if query.blocked:
            text = "blocked and all_ages don't go together: only runs that live can be blocked."
            raise InvalidRequest(text, param="blocked")
        if query.status is not None and query.status not in TERMINAL:
            ends = ", ".join(status for status in RunStatus if status in TERMINAL)
            text = f"With all_ages, status must be one that a run ends with: {ends}."
            raise InvalidRequest(text, param="status")
        self._ledger = ledger

    async def _fetch(self) -> RunPage:
        return await fetch_page(self._client, self._ledger, self._query)


async def fetch_page(client: Client, ledger: ClientLedger, query: ListQuery) -> RunPage:
    """Fetch one page.

    Raises:
        RunNotFound: the ledger has no run as `after` or `before` names it.
        LedgerUnreachable: the ledger doesn't answer.
        TemporalUnreachable: Temporal can't be asked for runs that haven't ended.
    """
    async with ledger.opened() as opened:
        records, has_more = await _records(opened, query)
    living = await _living(client, [each.run_id for each in records if each.ended_at is None])
    views = [living.get(each.run_id) or _view(each) for each in records]
    return RecordedPage(
        data=[view.run for view in views],
        views=views,
        has_more=has_more,
        _client=client,
        _query=query,
        _ledger=ledger,
    )


async def _records(ledger: Ledger, query: ListQuery) -> tuple[Sequence[RunRecord], bool]:
    asked = RunQuery(
        owner=query.owner,
        thread_id=query.thread_id,
        status=query.status,
        limit=query.limit,
        order=query.order,
        after=query.after,
        before=query.before,
    )
    try:
        page = await ledger.runs.list(asked)
    except RunNotKnown as error:
        raise RunNotFound(str(error)) from None
    return page.data, page.has_more


async def _living(client: Client, run_ids: Sequence[str]) -> dict[str, RunView]:
    if not run_ids:
        return {}
    ids = ", ".join(quoted(each) for each in run_ids)
    query = f"WorkflowId IN ({ids}) AND ExecutionStatus != 'ContinuedAsNew'"
    with explained(client):
        rows = [row async for row in client.list_workflows(query)]
    # Of a run that was begun anew (a Reset) the latest execution counts.
    rows.sort(key=lambda row: row.start_time)
    return {row.id: await listed_view(row) for row in rows}


def _view(record: RunRecord) -> RunView:
    fields: dict[str, Any] = {
        "id": record.run_id,
        "status": record.status,
        "thread_id": record.thread_id or "",
        "assistant_id": record.assistant_id or "",
        "created_at": int(record.created_at.timestamp()),
    }
    if record.usage is not None:
        fields["usage"] = vars(record.usage)
    ended, uncertain = record.ended_at, None
    if ended is None:
        uncertain = "Temporal doesn't know it any more, and the ledger has seen no end."
    elif record.status in _ENDED_AT:
        fields[_ENDED_AT[RunStatus(record.status)]] = int(ended.timestamp())
    known_at = (ended or record.updated_at).timestamp()
    return RunView(
        run=Run.model_validate(fields),
        runlane=RunlaneView(owner=record.owner, known_at=known_at, uncertain=uncertain),
    )
