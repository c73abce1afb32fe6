"""A decision as a face makes it: checked, with an id, in the one form that is compared."""

import json
import secrets
import time
from collections.abc import Sequence

from activities.decision import Decision, DecisionKind, InvalidDecision, check, same_person
from runlane.errors import InvalidRequest
from workflows.contract import canonical_json


def make(
    kind: DecisionKind,
    *,
    run_id: str,
    tool_call_id: str,
    arguments_digest: str,
    tool_digest: str,
    by: str,
    groups: Sequence[str] = (),
    note: str | None = None,
    arguments: str | None = None,
    output: str | None = None,
    for_rest_of_run: bool = False,
    face: str = "",
    token: str | None = None,
    token_made_by: str | None = None,
    shown: str | None = None,
) -> Decision:
    """Return a decision that is yet to be signed.

    Args:
        kind: what the person says.
        run_id: ours.
        tool_call_id: as `runlane.pending` names the call.
        arguments_digest: likewise, of what the person was shown.
        tool_digest: likewise.
        by: the person.
        groups: the person's, for which the face vouches.
        note: why; at most 2,000 characters, needed to reject.
        arguments: with an approval: others to run with, as a JSON object.
        output: with an answer: the call's output.
        for_rest_of_run: with an approval: later calls of the tool too.
        face: `cli`, `python` or `api`.
        token: the name of the token by which the face knew the person.
        token_made_by: whoever made it; not kept where that is the person.
        shown: digest of what the face showed.

    Raises:
        InvalidRequest: a field is malformed; the message names it and its limit.
    """
    if token_made_by is not None and same_person(token_made_by, by):
        # Workers of an older Runlane don't know the field, and so not such a signature.
        token_made_by = None
    decision = Decision(
        id=f"dec_{secrets.token_hex(16)}",
        kind=kind,
        run_id=run_id,
        tool_call_id=tool_call_id,
        arguments_digest=arguments_digest,
        tool_digest=tool_digest,
        by=by,
        groups=list(groups),
        at=round(time.time(), 3),
        note=note or None,
        arguments=None if arguments is None else _canonical(arguments),
        output=output,
        for_rest_of_run=for_rest_of_run,
        face=face,
        token=token,
        token_made_by=token_made_by,
        shown=shown,
    )
    try:
        check(decision)
    except InvalidDecision as error:
        raise InvalidRequest(f"{error}.", param=error.field) from None
    return decision


def _canonical(arguments: str) -> str:
    """Return edited arguments in one form: people who approve the same must be seen to."""
    try:
        read = json.loads(arguments, object_pairs_hook=_unambiguous, parse_constant=_refuse)
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        text = "arguments must be a JSON object that names nothing twice."
        raise InvalidRequest(text, param="arguments")
    return canonical_json(read)


def _unambiguous(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name twice")
    return dict(pairs)


def _refuse(constant: str) -> None:
    raise ValueError(constant)
