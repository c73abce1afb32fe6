"""Calls that wait for people: listed by the ledger alone, shown, and decided one by one.

Whoever decides is the token's person, with the token's groups; whoever made the token stands in
the decision too.
"""

import re
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse, Response

from ledger.approval import ApprovalKey, ApprovalQuery
from runlane.api.access import Decider, Power, Principal, Reader
from runlane.api.approval_bodies import (
    Answer,
    Approval,
    ApprovalPage,
    Approve,
    Decision,
    Reject,
)
from runlane.api.ids import CallId
from runlane.api.owned import find_run
from runlane.api.refusals import Refusal
from runlane.api.services import Given, Services
from runlane.api_approvals import ANY_RUN
from runlane.approvals import Approvals, Decided
from runlane.decisions import keys
from runlane.errors import InvalidRequest
from runlane.waiting_calls import WaitingCall, listed

routes = APIRouter(prefix="/v1/approvals", tags=["approvals"])

_CALL = "/{run_id}/{tool_call_id}"
_ID = re.compile(r"(.+?)\.(\d{1,9})\.(\d{1,9})\.(.+)", re.DOTALL)
_TEN_YEARS = 315_360_000

RunId = Annotated[
    str,
    Path(
        max_length=255,
        description="The call's run; `-`: the one that has such a call.",
        examples=["run_TZDCJ4EB"],
    ),
]
Name = Annotated[str | None, Query(max_length=255)]


@routes.get("", response_model=ApprovalPage, operation_id="listApprovals")
async def list_approvals(
    *,
    asking: Reader,
    services: Given,
    tool: Name = None,
    group: Annotated[
        str | None, Query(max_length=255, description="Only where it is this group's turn.")
    ] = None,
    run_id: Name = None,
    older_than: Annotated[
        float | None, Query(ge=0, le=_TEN_YEARS, description="Seconds that it has waited.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(max_length=1_000, description="`last_id`.")] = None,
) -> Response:
    """List the calls that wait for people, the longest first. No run is asked."""
    since = None if older_than is None else datetime.now(UTC) - timedelta(seconds=older_than)
    query = ApprovalQuery(
        owner=_scope(asking),
        tool=tool,
        group=group,
        run_id=run_id,
        since_until=since,
        limit=limit,
        after=None if after is None else _key(after),
        contents=True,
    )
    page = await services.ledger.approvals.list(query)
    data = [_shown(listed(row)) for row in page.data]
    return JSONResponse(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": page.has_more,
        }
    )


@routes.get(_CALL, response_model=Approval, operation_id="getApproval")
async def retrieve_approval(
    run_id: RunId, tool_call_id: CallId, asking: Reader, services: Given
) -> Response:
    """Return all that one should know of a call before deciding it, as its run knows it now."""
    approvals = _approvals(services, asking)
    run_id = await _run(approvals, asking, run_id, tool_call_id)
    if _scope(asking) is not None:
        # First: what is said of a call that doesn't wait says something of its run.
        await find_run(services, asking, None, run_id)
    return JSONResponse(_shown(await approvals.retrieve(tool_call_id, run_id=run_id)))


@routes.post(f"{_CALL}/approve", response_model=Decision, operation_id="approveCall")
async def approve(
    run_id: RunId,
    tool_call_id: CallId,
    asking: Decider,
    services: Given,
    body: Approve | None = None,
) -> Response:
    """Let a call run, with its own arguments or with edited ones."""
    said = body or Approve()
    return await _answer(
        _approvals(services, asking).approve(
            tool_call_id,
            run_id=_named(run_id),
            arguments=said.arguments,
            note=said.note,
            for_rest_of_run=said.for_rest_of_run,
            by=asking.person,
            groups=asking.groups,
        )
    )


@routes.post(f"{_CALL}/reject", response_model=Decision, operation_id="rejectCall")
async def reject(
    run_id: RunId, tool_call_id: CallId, asking: Decider, services: Given, body: Reject
) -> Response:
    """Refuse a call. It doesn't run, and the model is told the reason."""
    return await _answer(
        _approvals(services, asking).reject(
            tool_call_id,
            run_id=_named(run_id),
            reason=body.reason,
            by=asking.person,
            groups=asking.groups,
        )
    )


@routes.post(f"{_CALL}/answer", response_model=Decision, operation_id="answerCall")
async def answer(
    run_id: RunId, tool_call_id: CallId, asking: Decider, services: Given, body: Answer
) -> Response:
    """Give a call's output in the tool's place."""
    return await _answer(
        _approvals(services, asking).answer(
            tool_call_id,
            run_id=_named(run_id),
            output=body.output,
            note=body.note,
            by=asking.person,
            groups=asking.groups,
        )
    )


@routes.post(f"{_CALL}/claim", response_model=Decision, operation_id="claimCall")
async def claim(run_id: RunId, tool_call_id: CallId, asking: Decider, services: Given) -> Response:
    """Look after a call for an hour, so that nobody else decides it."""
    approvals = _approvals(services, asking)
    by, groups = asking.person, asking.groups
    return await _answer(approvals.claim(tool_call_id, run_id=_named(run_id), by=by, groups=groups))


@routes.post(f"{_CALL}/release", response_model=Decision, operation_id="releaseCall")
async def release(
    run_id: RunId, tool_call_id: CallId, asking: Decider, services: Given
) -> Response:
    """Look after a call no more."""
    approvals = _approvals(services, asking)
    by, groups = asking.person, asking.groups
    return await _answer(
        approvals.release(tool_call_id, run_id=_named(run_id), by=by, groups=groups)
    )


@routes.post(f"{_CALL}/revoke", response_model=Decision, operation_id="revokeCall")
async def revoke(run_id: RunId, tool_call_id: CallId, asking: Decider, services: Given) -> Response:
    """Take back what was approved for the rest of the run on a call."""
    approvals = _approvals(services, asking)
    by, groups = asking.person, asking.groups
    return await _answer(
        approvals.revoke(tool_call_id, run_id=_named(run_id), by=by, groups=groups)
    )


def _approvals(services: Services, asking: Principal) -> Approvals:
    client = services.runlane
    return Approvals(
        client.temporal,
        client.settings,
        face="api",
        token=asking.token,
        token_made_by=asking.made_by,
        ledger=services.ledger,
    )


def _named(run_id: str) -> str | None:
    return None if run_id == ANY_RUN else run_id


async def _run(approvals: Approvals, asking: Principal, run_id: str, tool_call_id: str) -> str:
    named = _named(run_id)
    return named or await approvals.run_of(tool_call_id, owner=_scope(asking))


def _scope(asking: Principal) -> str | None:
    """Return the owner whose calls somebody sees; None, everybody's, where they may decide them."""
    return None if asking.may(Power.DECIDE) else asking.scope


def _shown(waiting: WaitingCall) -> dict[str, object]:
    call = waiting.call
    place = f"{waiting.run_id}.{call.attempt}.{call.round}.{call.tool_call_id}"
    return {"id": place, **waiting.as_json()}


def _key(place: str) -> ApprovalKey:
    found = _ID.fullmatch(place)
    if found is None:
        raise InvalidRequest("after must be the last_id of a page before.", param="after")
    run_id, attempt, round_, call_id = found.groups()
    return ApprovalKey(run_id=run_id, attempt=int(attempt), round=int(round_), call_id=call_id)


async def _answer(deciding: Awaitable[Decided]) -> Response:
    try:
        return JSONResponse(dict((await deciding).as_json()))
    except InvalidRequest as error:
        if error.code != keys.NO_KEY:
            raise
        # Nothing is wrong with what was asked.
        raise Refusal(
            error.message, status=500, type="configuration_error", code=error.code
        ) from None
