"""What others see of a run without asking it: search attributes, memo and notices.

Every change of the first two is an event in the history, so all attributes go in one upsert, and
nothing is written that a reader can tell from the status.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

with workflow.unsafe.imports_passed_through():
    import workflows.asks as asks
    from runsapi import RunStatus
    from workflows.contract import PENDING_MEMO, REQUEST_MEMO, RunRequest
    from workflows.state import RunState
    from workflows.view import pending_memo, shown_status

STATUS = SearchAttributeKey.for_keyword("RunlaneStatus")
THREAD = SearchAttributeKey.for_keyword("RunlaneThread")
ASSISTANT = SearchAttributeKey.for_keyword("RunlaneAssistant")
CREATED = SearchAttributeKey.for_datetime("RunlaneCreated")
BLOCKED = SearchAttributeKey.for_keyword("RunlaneBlocked")
OWNER = SearchAttributeKey.for_keyword("RunlaneOwner")


class Shown:
    """What was written last.

    Args:
        state: As the attributes show it already: at the start, or after a continue-as-new.
        tell: Sends what notices are due.
    """

    def __init__(self, state: RunState, tell: Callable[[], None]) -> None:
        self._tell = tell
        asks.note(state)
        self._status, self._blocked = _status(state), _blocked(state)
        self._pending = pending_memo(state)

    def update(self, state: RunState) -> None:
        """Write what has changed, and remember that the caller is asked."""
        asks.note(state)
        status, blocked = _status(state), _blocked(state)
        changes: list[Any] = []
        if status != self._status:
            changes.append(STATUS.value_set(status))
        if blocked != self._blocked:
            changes.append(BLOCKED.value_set(blocked) if blocked else BLOCKED.value_unset())
        if changes:
            workflow.upsert_search_attributes(changes)
        self._status, self._blocked = status, blocked
        pending = pending_memo(state)
        if pending and pending != self._pending:
            # Never cleared, for that would be an event: readers ask the status first.
            workflow.upsert_memo({PENDING_MEMO: pending})
            self._pending = pending
        self._tell()


def memo(request: RunRequest, state: RunState) -> dict[str, Any]:
    """Return the memo for a continue-as-new, at which an upserted one is lost."""
    return {
        REQUEST_MEMO: request.memo(state.metadata),
        PENDING_MEMO: pending_memo(state),
    }


def first_attributes(request: RunRequest) -> TypedSearchAttributes:
    """Return the search attributes with which a run starts."""
    pairs: list[SearchAttributePair[Any]] = [
        SearchAttributePair(STATUS, str(RunStatus.QUEUED)),
        SearchAttributePair(THREAD, request.thread_id),
        SearchAttributePair(ASSISTANT, request.params["assistant_id"]),
        SearchAttributePair(CREATED, created_attribute(request.created_at)),
    ]
    if request.owner:
        pairs.append(SearchAttributePair(OWNER, request.owner))
    return TypedSearchAttributes(pairs)


def created_attribute(seconds: float) -> datetime:
    """Return a creation time as the search attribute holds it.

    SQLite keeps milliseconds and others microseconds; a finer time would compare differently from
    server to server, and pages would lose or repeat runs.
    """
    return datetime.fromtimestamp(round(seconds, 3), UTC)


def _status(state: RunState) -> str:
    return shown_status(state).value


def _blocked(state: RunState) -> str:
    return state.blocked.kind.value if state.blocked else ""
