"""What stands in a batch's results: of a run that ended, and of an item that never had one."""

from datetime import UTC, datetime
from typing import Any

from activities.contract import canonical_json, unstamped
from ledger.batch_item import ItemOutcome, ItemState
from ledger.run_record import Usage
from runsapi import Run, RunStatus

MAX_TOKENS = 2**40
"""Of one kind that count for one run: more than any uses, and a ledger adds up millions of it."""

_KIND_LENGTH = 64


def of_run(run: Run, run_id: str, *, was_cancelled: bool = False) -> ItemOutcome:
    """Return the outcome of an item by the upstream run with which it ended.

    Args:
        run: terminal.
        run_id: ours, which takes the place of the upstream's.
        was_cancelled: the batch was, so that an end as `cancelled` is no failure.
    """
    body = run.model_dump(mode="json")
    body.update(id=run_id, metadata=unstamped(run.metadata))
    return of_body(body, was_cancelled=was_cancelled)


def of_body(
    body: dict[str, Any], *, was_cancelled: bool = False, uncertain: str | None = None
) -> ItemOutcome:
    """Return the outcome of an item by its run as JSON, by our id and without stamps."""
    status = str(body["status"])
    state, kind, error = ItemState.COMPLETED, None, None
    if uncertain is not None:
        state, kind = ItemState.UNCERTAIN, "uncertain"
        error = {"code": kind, "message": uncertain}
    elif status == RunStatus.CANCELLED and was_cancelled:
        state, kind = ItemState.CANCELLED, "batch_cancelled"
        error = {"code": kind, "message": "The batch was cancelled"}
    elif status != RunStatus.COMPLETED:
        last_error = body.get("last_error") or {}
        state, kind = ItemState.FAILED, _stored(last_error.get("code")) or _stored(status)
        error = {"code": kind, "message": last_error.get("message") or f"The run is {status}"}
    return ItemOutcome(
        state=state,
        status_code=200,
        response=canonical_json(body),
        error=None if error is None else canonical_json(error),
        error_kind=kind,
        usage=_usage(body.get("usage")),
        at=datetime.now(UTC),
    )


def given_up(
    state: ItemState, kind: str, message: str, status_code: int | None = None
) -> ItemOutcome:
    """Return the outcome of an item without a run's end: refused, given up, or not known."""
    return ItemOutcome(
        state=state,
        status_code=status_code,
        error=canonical_json({"code": kind, "message": message}),
        error_kind=kind,
        at=datetime.now(UTC),
    )


def usage_of(run: Run) -> Usage | None:
    """Return the tokens that an upstream run has used, as far as it says."""
    return _usage(None if run.usage is None else run.usage.model_dump())


def _stored(told: object) -> str:
    """Return what can be stored of an upstream's word, by which items are counted."""
    return "".join(char for char in str(told or "") if char.isprintable())[:_KIND_LENGTH]


def _usage(told: dict[str, Any] | None) -> Usage | None:
    if told is None:
        return None
    return Usage(
        prompt_tokens=_tokens(told.get("prompt_tokens")),
        completion_tokens=_tokens(told.get("completion_tokens")),
        total_tokens=_tokens(told.get("total_tokens")),
    )


def _tokens(told: int | None) -> int:
    return min(max(told or 0, 0), MAX_TOKENS)
