"""A run as the API shows it: the protocol's object, to which every SDK listens.

A call that people decide, or that a worker answers, is no business of the caller's: while only such
calls wait, the run is at work. The key `runlane` says it in full, for who asks with
`include[]=runlane`.
"""

import time
from typing import Any

from activities.polling import curve
from runsapi import INTERMEDIATE, RunStatus
from workflows.contract import RunView, Timing

INCLUDE = "runlane"
"""In `include[]`: the key `runlane` beside the protocol's own."""
POLL_AFTER = "openai-poll-after-ms"

_TIMING = Timing()


def status_of(view: RunView) -> str:
    """Return the status that a caller of the protocol is to see."""
    status = view.run.status
    if status == RunStatus.REQUIRES_ACTION and _only_others(view):
        return RunStatus.IN_PROGRESS.value
    return str(status)


def shown(view: RunView, *, include_runlane: bool = False) -> dict[str, Any]:
    """Return the run's JSON."""
    document = view.run.model_dump(mode="json")
    document["status"] = status_of(view)
    if document["status"] != RunStatus.REQUIRES_ACTION:
        document["required_action"] = None
    if include_runlane:
        document["runlane"] = view.runlane.model_dump(mode="json")
    return document


def headers(view: RunView) -> dict[str, str]:
    """Return the headers of a run's answer: when to look again, by the curve of our own polls."""
    if status_of(view) not in INTERMEDIATE:
        return {}
    began = max(
        (answer.answered_at or 0.0 for answer in view.runlane.answers),
        default=float(view.run.created_at),
    )
    leg_age = time.time() - max(began, float(view.run.created_at))
    wait = curve(leg_age, floor=_TIMING.poll_floor, ceiling=_TIMING.poll_ceiling)
    return {POLL_AFTER: str(round(wait * 1000))}


def _only_others(view: RunView) -> bool:
    pending = view.runlane.pending
    return bool(pending) and all(call.handled_by != "caller" for call in pending)
