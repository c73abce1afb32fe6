"""Calls that wait for people, as they are shown; and what one can tell of them before deciding."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from activities import trail
from activities.decision import DecisionKind, DecisionStatus
from ledger.approval import Approval
from runlane.errors import InvalidRequest
from runlane.tools.arguments import InvalidArguments
from runlane.tools.json_schemas import JsonSchema
from runsapi import TERMINAL
from workflows.contract import Approvals, PendingCall, RunView

_ENDS = {
    DecisionKind.APPROVE: "approved",
    DecisionKind.REJECT: "rejected",
    DecisionKind.ANSWER: "answered",
}


@dataclass(frozen=True)
class WaitingCall:
    """A call that waits for people, or did."""

    run_id: str
    call: PendingCall
    view: RunView | None = None
    """The run, where it was asked; a list asks none."""

    def as_json(self) -> Mapping[str, Any]:
        """Return it as `--json` prints it."""
        call = self.call.model_dump(mode="json")
        return {"object": "approval", "run_id": self.run_id, **call}


def shown_digest(call: PendingCall) -> str:
    """Return the digest of what a person sees of a call before deciding."""
    return trail.shown(
        tool=call.name,
        tool_digest=call.tool_digest,
        arguments=call.arguments,
        reason=call.reason,
        beside=[each.model_dump(mode="json") for each in call.beside],
    )


def listed(row: Approval) -> WaitingCall:
    """Return a row of the ledger as a list shows it."""
    call = PendingCall(
        tool_call_id=row.key.call_id,
        name=row.tool,
        arguments=row.arguments or "",
        arguments_digest=row.arguments_digest,
        attempt=row.key.attempt,
        round=row.key.round,
        since_at=row.since.timestamp(),
        handled_by="people",
        tool_digest=row.tool_digest,
        reason=row.reason,
        groups=list(row.groups),
        approvers=list(row.approvers),
        approvals=Approvals(have=row.have, need=row.need),
        claimed_by=row.claimed_by,
        deadline_at=None if row.deadline is None else row.deadline.timestamp(),
    )
    return WaitingCall(row.key.run_id, call)


def find(view: RunView, tool_call_id: str) -> PendingCall | None:
    """Return a call that waits in a run that hasn't ended."""
    if view.run.status in TERMINAL:
        return None
    calls = (call for call in view.runlane.pending if call.tool_call_id == tool_call_id)
    return next(calls, None)


def why_not(view: RunView, tool_call_id: str) -> tuple[DecisionStatus, str]:
    """Say why no person can decide a call of this id: the word of a receipt, and a sentence."""
    run_id, known = view.run.id, view.runlane
    if any(call.tool_call_id == tool_call_id for call in known.pending):
        text = f"Call {tool_call_id} of {run_id} waits for its caller:  runlane submit {run_id}"
        return DecisionStatus.NOT_WAITING, text
    decided = [
        each
        for each in known.decisions
        if each.tool_call_id == tool_call_id and each.state == "counted" and each.kind in _ENDS
    ]
    if decided:
        by = " and ".join(dict.fromkeys(each.by for each in decided))
        text = f"Call {tool_call_id} of {run_id} was {_ENDS[decided[-1].kind]} by {by}."
        return DecisionStatus.ALREADY_DECIDED, text
    for answer in known.answers:
        if tool_call_id in (answer.tool_call_id, *answer.call_ids):
            by = f" by {answer.by}" if answer.by else ""
            text = f"Call {tool_call_id} of {run_id} has been answered{by}."
            return DecisionStatus.TOO_LATE, text
    if view.run.status in TERMINAL:
        text = f"{run_id} is {view.run.status}; nothing in it waits for people."
        return DecisionStatus.TOO_LATE, text
    return DecisionStatus.UNKNOWN, f"{run_id} has no call {tool_call_id} that waits for people."


def checked_arguments(
    waiting: WaitingCall, arguments: Mapping[str, Any] | str | None
) -> str | None:
    """Return edited arguments as JSON, once they fit what the model was told of the function.

    Raises:
        InvalidRequest: they don't; the message names the fields.
    """
    if arguments is None:
        return None
    try:
        text = arguments if isinstance(arguments, str) else json.dumps(dict(arguments))
    except (TypeError, ValueError):
        raise InvalidRequest("arguments can't be written as JSON.", param="arguments") from None
    schema = _schema(waiting)
    if schema is None:
        return text
    try:
        JsonSchema.checked(schema).read(waiting.call.name, text)
    except InvalidArguments as error:
        # Its first line is for a model.
        problems = [line.removeprefix("- ") for line in str(error).splitlines()[1:]]
        told = "; ".join(problems)
        text = f"Nothing was sent: the arguments don't fit {waiting.call.name}: {told}."
        raise InvalidRequest(text, param="arguments") from None
    except ValueError:
        # The schema itself can't be used here; the worker, which has the tool, checks them.
        return text
    return text


def _schema(waiting: WaitingCall) -> Mapping[str, Any] | None:
    for tool in waiting.view.run.tools if waiting.view is not None else ():
        told = tool.model_dump(mode="json")
        function = told.get("function") or {}
        if told.get("type") == "function" and function.get("name") == waiting.call.name:
            parameters = function.get("parameters")
            return parameters if isinstance(parameters, dict) else None
    return None
