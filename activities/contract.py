"""What workflows hand to the activities and get from them. Pinned: histories hold these."""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from runsapi import Run

RUN_ID_STAMP = "runlane_run_id"
ATTEMPT_STAMP = "runlane_attempt"
STAMPS = (RUN_ID_STAMP, ATTEMPT_STAMP)
"""The metadata by which an upstream run is known as ours."""

LONGEST_LAG = 60.0
"""Seconds in which calls whose outputs are in may still be shown as open, by a replica that lags;
after that they are asked anew."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Upstream(_Model):
    """The service on which a run lives, as recorded in the run."""

    name: str
    url: str


class Target(_Model):
    """An upstream run."""

    upstream: Upstream
    thread_id: str
    run_id: str
    attempt: int = 0
    """Ours; 0 where whoever asked didn't say."""


class Asked(_Model):
    """What the ledger keeps of the request for a run."""

    created_at: float
    """Unix seconds: of two runs of one id it tells which one this is."""
    digest: str
    owner: str = ""
    has_key: bool = False
    """The run's id belongs to an idempotency key."""


class CreateInput(_Model):
    """Input of `runs.create`."""

    run_id: str
    """Ours."""
    attempt: int
    thread_id: str
    params: dict[str, Any]
    upstream: Upstream | None = None
    """Where the run lives already; none before its first create."""
    age: float
    """Seconds since our run began: an upstream run older than that is not ours."""
    older_by: float = 0.0
    """Seconds by which it may be older all the same: with an idempotency key, Temporal may have
    lost the run that made it."""
    look_first: bool = False
    """Look for the stamp before the first request too: this execution may be a Reset."""
    execution: str = ""
    """Which execution of the workflow asked for this. In another one the activity was begun before
    a Reset, which counts its attempts anew."""
    find_only: bool = False
    """Only look, don't create: the run is being stopped."""
    settle_for: float = 0.0
    """With `find_only`: seconds to keep looking, for a request that may still be on its way."""
    asked: Asked | None = None
    """None: the run is older than the ledger."""
    stream: bool = False
    """Ask for the run's events, and gather the text of its messages from them."""


class Created(_Model):
    """Result of `runs.create`; `run` is none when `find_only` found nothing."""

    run: Run | None
    upstream: Upstream
    poll_after_ms: int | None = None
    simulated: bool = False
    adopted: bool = False


class RetrieveInput(_Model):
    """Input of `runs.retrieve`."""

    target: Target
    attach_for: float = 0.0
    """Seconds to stay and poll; 0 looks once, at once."""
    leg_age: float = 0.0
    poll_interval_ms: int | None = None
    poll_after_ms: int | None = None
    """From the upstream's latest answer."""
    floor: float = 0.5
    ceiling: float = 900.0
    timer_from: float = 10.0
    """An interval this long or longer is not waited out here."""
    ending: bool = False
    """The run is being stopped."""
    beyond_action: bool = False
    """Go on through an action that outputs can't answer: the workflow has seen it already."""
    answered: list[str] = []
    """Calls whose outputs are in: to see them asked for still is no news."""
    asked: dict[str, str] = {}
    """The digests of those calls: one that asks otherwise is news. Without it ids are enough."""
    status: str | None = None
    """What the run's history says: only another one is worth a heartbeat of its own."""


class Observed(_Model):
    """The upstream run as an activity saw it last."""

    run: Run
    poll_after_ms: int | None = None
    polls: int = 0


class Output(_Model):
    """The output for one tool call. The protocol's own parameter would take no unknown field."""

    tool_call_id: str
    output: str


class SubmitInput(_Model):
    """Input of `runs.submit_tool_outputs`."""

    target: Target
    tool_outputs: list[Output]
    look_first: bool = False
    asked: dict[str, str] = {}
    """The digests of the calls that these outputs answer, by id."""
    stream: bool = False
    """As in `CreateInput`."""


class Submitted(_Model):
    """Result of `runs.submit_tool_outputs`."""

    run: Run
    outcome: Literal["submitted", "overtaken", "expired"]
    poll_after_ms: int | None = None


class CancelInput(_Model):
    """Input of `runs.cancel`."""

    target: Target


class UpdateInput(_Model):
    """Input of `runs.update`; `metadata` holds the stamps too."""

    target: Target
    metadata: dict[str, str]
    try_for: float = 90.0
    """Seconds after which no further try begins: the run waits meanwhile, and can do without."""


def derive_run_id(owner: str, idempotency_key: str) -> str:
    """Return the run id that belongs to an owner's idempotency key; the same one for ever."""
    digest = hashlib.sha256(f"{owner}\0{idempotency_key}".encode()).digest()
    return "run_" + base64.b32encode(digest[:15]).decode()


def stamped(run_id: str, attempt: int, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the caller's metadata with the stamps by which an upstream run is found again."""
    return {**metadata, RUN_ID_STAMP: run_id, ATTEMPT_STAMP: str(attempt)}


def unstamped(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Return metadata as the caller knows it."""
    return {key: value for key, value in (metadata or {}).items() if key not in STAMPS}


def answerable(run: Run) -> bool:
    """Tell whether tool outputs can answer what the run requires.

    An MCP approval, a hosted function or an empty list can't be answered so: an output for them
    would be refused, and an empty submit never made. Nor can calls that no id tells apart.
    """
    action = run.required_action
    ids = {call.id for call in run.tool_calls}
    return (
        action is not None
        and action.type == "submit_tool_outputs"
        and bool(run.tool_calls)
        and all(call.type == "function" and call.function is not None for call in run.tool_calls)
        and "" not in ids
        and len(ids) == len(run.tool_calls)
    )


def call_digest(name: str, arguments: str) -> str:
    """Return what tells a call from another one under the same id."""
    text = f"{name}\0{arguments}".encode(errors="surrogatepass")
    return hashlib.sha256(text).hexdigest()


def asked_of(run: Run) -> dict[str, str]:
    """Return the open calls' digests by id."""
    return {
        call.id: call_digest(call.function.name, call.function.arguments) for call in run.tool_calls
    }


def canonical_json(value: object) -> str:
    """Return `value` as JSON with sorted keys and no spaces, so that equal values look equal."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_arguments(arguments: str) -> str:
    """Return a call's arguments, as a model wrote them, as canonical JSON.

    Those that are no JSON, or can be read in two ways, are equal only to the letter.
    """
    try:
        return canonical_json(json.loads(arguments, object_pairs_hook=_unambiguous))
    except (ValueError, RecursionError):
        return arguments


def _unambiguous(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return value
