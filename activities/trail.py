"""Events for the audit trail, as activities report them, and the one way to write them.

An event's key holds a digest of what it says: told again it is the same row, told otherwise (by a
worker with other tools, say) it is one more, and nothing is hidden.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from temporalio.exceptions import ApplicationError

from ledger import Ledger, LedgerError
from ledger.chain import Event, Kind, canonical, said
from ledger.contents import digest_of
from ledger.limits import MAX_BODY

LEDGER_DOWN = "LedgerUnavailable"
"""The type of an activity's error while the ledger doesn't answer; tried again, nothing is lost."""

_MAX_PLAIN = 200


async def write(ledger: Ledger, run_id: str, *events: Event) -> None:
    """Write events at the end of a run's trail, all or none; the same again does no harm.

    Raises:
        ApplicationError: the ledger doesn't answer; retryable, of type `LEDGER_DOWN`.
    """
    with waiting_for_ledger():
        await ledger.audit.append(run_id, events)


@contextmanager
def waiting_for_ledger() -> Iterator[None]:
    """Turn a ledger's error into one that Temporal tries again until it doesn't come any more."""
    try:
        yield
    except LedgerError as error:
        raise ApplicationError(str(error), type=LEDGER_DOWN) from None


def run_created(
    *,
    attempt: int,
    upstream_run: str,
    upstream: str,
    thread_id: str,
    assistant_id: str | None,
    model: str | None,
    request_digest: str | None,
) -> Event:
    """An upstream run was made for a run, or one that was made before was found.

    Args:
        attempt: ours, from 1: how many upstream runs there have been.
        upstream_run: the upstream's id of it.
        upstream: the URL of the service.
        thread_id: the upstream's.
        assistant_id: the upstream's.
        model: as the upstream names it.
        request_digest: of what was asked for.
    """
    return _event(
        Kind.RUN,
        f"created:{attempt}:{upstream_run}",
        model=model,
        facts={
            "what": "created", "attempt": attempt, "upstream_run": upstream_run,
            "upstream": upstream, "thread": thread_id, "assistant": assistant_id,
            "request": request_digest,
        },
    )  # fmt: skip


def run_ended(*, status: str, upstream_run: str | None, model: str | None = None) -> Event:
    """A run has ended.

    Args:
        status: one of the protocol's, or what Temporal says of a run that it ended itself.
        upstream_run: its last one.
        model: as the upstream names it.
    """
    facts = {"what": "ended", "status": status, "upstream_run": upstream_run}
    return _event(Kind.RUN, "ended", model=model, facts=facts)


def call(
    *,
    call_id: str,
    tool: str,
    arguments: str,
    attempt: int,
    round: int | None = None,
    model: str | None = None,
) -> Event:
    """The model has asked for a tool.

    Args:
        call_id: the upstream's.
        tool: its name, as the model gave it.
        arguments: as the model gave them.
        attempt: of our run, from 1.
        round: of calls in it.
        model: as the upstream names it.
    """
    return _event(
        Kind.CALL,
        f"call:{attempt}:{call_id}",
        model=model,
        facts={"call": call_id, "tool": tool, "attempt": attempt, "round": round},
        contents={"arguments": arguments},
    )


def classification(
    *,
    call_id: str,
    tool: str,
    attempt: int,
    by: str,
    policy: str | None = None,
    reason: str | None = None,
    tool_schema: str | None = None,
    shown: str | None = None,
    model: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Event:
    """It was decided who answers a call.

    Args:
        call_id: the upstream's.
        tool: its name.
        attempt: of our run, from 1.
        by: `caller`, `worker` or `people`.
        policy: of the tool.
        reason: the policy's own words, which may repeat arguments.
        tool_schema: digest of the tool's schema.
        shown: digest of what an approver is shown.
        model: as the upstream names it.
        facts: more, as JSON; digests, names and instants only.
    """
    return _event(
        Kind.CLASSIFICATION,
        f"classification:{attempt}:{call_id}",
        model=model,
        policy=policy,
        tool_schema=tool_schema,
        shown=shown,
        facts={**(facts or {}), "call": call_id, "tool": tool, "attempt": attempt, "by": by},
        contents={"reason": reason},
    )


def decision(
    *,
    decision_id: str,
    call_id: str,
    kind: str,
    by: str,
    at: datetime,
    tool_schema: str | None,
    arguments_digest: str | None,
    shown: str | None = None,
    refused: str | None = None,
    note: str | None = None,
    arguments: str | None = None,
    output: str | None = None,
    model: str | None = None,
    policy: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Event:
    """A person has said something about a call.

    Args:
        decision_id: `dec_…`.
        call_id: the upstream's.
        kind: `approve`, `reject`, `answer`, `claim`, `release` or `revoke`.
        by: the person.
        at: when the face took it; with a zone.
        tool_schema: digest of the tool's schema on which it was made.
        arguments_digest: of the arguments on which it was made.
        shown: digest of what the person was shown.
        refused: why it doesn't count; None where it does. A fixed word.
        note: the person's.
        arguments: edited ones.
        output: given instead of running the tool.
        model: as the upstream names it.
        policy: of the tool.
        facts: more, as JSON: groups, face, key id.
    """
    return _event(
        Kind.DECISION,
        f"decision:{decision_id}",
        at=at,
        model=model,
        policy=policy,
        tool_schema=tool_schema,
        shown=shown,
        facts={
            **(facts or {}), "decision": decision_id, "call": call_id, "kind": kind, "by": by,
            "arguments": arguments_digest, "refused": refused,
        },
        contents={"note": note, "arguments": arguments, "output": output},
    )  # fmt: skip


def lapse(
    *,
    call_id: str,
    at: datetime,
    outcome: str,
    tool_schema: str | None,
    arguments_digest: str,
    groups: Sequence[str],
    facts: Mapping[str, Any] | None = None,
) -> Event:
    """Nobody has decided about a call by its deadline.

    Args:
        call_id: the upstream's.
        at: the deadline; with a zone.
        outcome: `escalate`, `reject` or `fail`.
        tool_schema: digest of the tool's schema.
        arguments_digest: of the call's arguments.
        groups: those who are asked from now on.
        facts: more, as JSON.
    """
    return _event(
        Kind.DECISION,
        f"lapse:{call_id}:{at.isoformat()}",
        at=at,
        tool_schema=tool_schema,
        facts={
            **(facts or {}), "what": "lapse", "call": call_id, "outcome": outcome,
            "arguments": arguments_digest, "groups": list(groups),
        },
    )  # fmt: skip


def execution_begun(
    *,
    call_id: str,
    tool: str,
    ordinal: int,
    execution: str,
    attempt: int,
    arguments: str,
    tool_schema: str | None = None,
    model: str | None = None,
    policy: str | None = None,
    decisions: Sequence[str] = (),
) -> Event:
    """A tool is about to run.

    Args:
        call_id: the upstream's.
        tool: its name.
        ordinal: from 0: how many equal calls came before it in the run.
        execution: the intent's `Execution.id`.
        attempt: the intent's `Execution.attempt`.
        arguments: with which it runs, edited ones where they were.
        tool_schema: digest of the tool's schema.
        model: as the upstream names it.
        policy: of the tool.
        decisions: ids of those that let it run.
    """
    return _event(
        Kind.EXECUTION,
        f"begun:{execution}:{attempt}:{call_id}",
        model=model,
        policy=policy,
        tool_schema=tool_schema,
        facts={
            **_executed("begun", call_id, tool, ordinal, execution=execution, attempt=attempt),
            "decisions": list(decisions),
        },
        contents={"arguments": arguments},
    )


def execution_finished(
    *,
    call_id: str,
    tool: str,
    ordinal: int,
    execution: str,
    attempt: int,
    outcome: str,
    output: str | None,
    tool_schema: str | None = None,
    model: str | None = None,
) -> Event:
    """A tool has run.

    Args:
        call_id: the upstream's.
        tool: its name.
        ordinal: from 0: how many equal calls came before it in the run.
        execution: the intent's `Execution.id`.
        attempt: the intent's `Execution.attempt`.
        outcome: a fixed word, or the class of what it raised.
        output: what the model is told.
        tool_schema: digest of the tool's schema.
        model: as the upstream names it.
    """
    return _event(
        Kind.EXECUTION,
        f"finished:{execution}:{attempt}:{call_id}",
        model=model,
        tool_schema=tool_schema,
        facts={
            **_executed("finished", call_id, tool, ordinal, execution=execution, attempt=attempt),
            "outcome": outcome,
        },
        contents={"output": output},
    )


def execution_uncertain(
    *,
    call_id: str,
    tool: str,
    ordinal: int,
    execution: str,
    attempt: int,
    reason: str,
    tool_schema: str | None = None,
) -> Event:
    """Nobody knows whether a tool ran.

    Args:
        call_id: the upstream's.
        tool: its name.
        ordinal: from 0: how many equal calls came before it in the run.
        execution: the intent's `Execution.id`.
        attempt: the intent's `Execution.attempt`.
        reason: a fixed word.
        tool_schema: digest of the tool's schema.
    """
    return _event(
        Kind.EXECUTION,
        f"uncertain:{execution}:{attempt}:{call_id}",
        tool_schema=tool_schema,
        facts={
            **_executed("uncertain", call_id, tool, ordinal, execution=execution, attempt=attempt),
            "reason": reason,
        },
    )


def submission(
    *, attempt: int, upstream_run: str, outputs: Mapping[str, str], outcome: str
) -> Event:
    """The outputs of a round of calls went to the upstream.

    Args:
        attempt: of our run, from 1.
        upstream_run: the upstream's id of it.
        outputs: by call id.
        outcome: `submitted`, `overtaken` or `expired`.
    """
    digests = {_plain(each): digest_of(text) for each, text in sorted(outputs.items())}
    round_key = hashlib.sha256(canonical(digests)).hexdigest()[:16]
    return _event(
        Kind.SUBMISSION,
        f"submitted:{attempt}:{upstream_run}:{round_key}",
        facts={
            "attempt": attempt, "upstream_run": upstream_run, "outcome": outcome,
            "outputs": digests,
        },
        # Named by their place: a call's id may be anything.
        contents={f"output {n}": outputs[each] for n, each in enumerate(sorted(outputs), 1)},
    )  # fmt: skip


def control(
    *,
    what: str,
    scope: str,
    by: str,
    reason: str | None,
    at: datetime,
    facts: Mapping[str, Any] | None = None,
) -> Event:
    """Somebody has stopped work or let it go on, begun a batch, or said who may ask the API.

    Args:
        what: `stop`, `resume`, `create` or `revoke`; of a batch also `pause`, `cancel`.
        scope: what it is about.
        by: the person.
        reason: theirs.
        at: when; with a zone.
        facts: more, as JSON: what a token is for.
    """
    return _event(
        Kind.CONTROL,
        f"{what}:{scope}:{at.isoformat()}",
        at=at,
        facts={**(facts or {}), "what": what, "scope": scope, "by": by},
        contents={"note": reason},
    )


def erasure(*, by: str, at: datetime, facts: Mapping[str, Any] | None = None) -> Event:
    """Somebody had a run's contents erased.

    Args:
        by: the person.
        at: when; with a zone.
        facts: more, as JSON: what was removed where.
    """
    return _event(
        Kind.ERASURE, f"erasure:{at.isoformat()}", at=at, facts={**(facts or {}), "by": by}
    )


def shown(**facts: Any) -> str:
    """Return the digest of what an approver is shown: name, arguments, reason, what was done.

    Args:
        facts: as JSON; text that a model broke is taken as it is.
    """
    return digest_of(canonical(_clean(facts)).decode())


def _executed(
    what: str, call_id: str, tool: str, ordinal: int, *, execution: str, attempt: int
) -> dict[str, Any]:
    return {
        "what": what, "call": call_id, "tool": tool, "ordinal": ordinal, "execution": execution,
        "try": attempt,
    }  # fmt: skip


def _event(
    kind: Kind,
    key: str,
    *,
    at: datetime | None = None,
    facts: Mapping[str, Any],
    contents: Mapping[str, str | None] | None = None,
    model: str | None = None,
    policy: str | None = None,
    tool_schema: str | None = None,
    shown: str | None = None,
) -> Event:
    written = {name: text for name, text in (contents or {}).items() if text is not None}
    large = {name: digest_of(text) for name, text in written.items() if _is_large(text)}
    known = {name: value for name, value in facts.items() if value is not None}
    if large:
        known["too_large_to_keep"] = large
    event = Event(
        key=_plain(key),
        kind=kind,
        at=at or datetime.now(UTC),
        version=_version(),
        model=None if not model else _plain(model),
        policy=None if not policy else _plain(policy),
        tool_schema=tool_schema or None,
        shown=shown,
        facts=_clean(known),
        contents={name: text for name, text in written.items() if name not in large},
    )
    digest = hashlib.sha256(canonical(said(event))).hexdigest()[:16]
    return Event(**{**vars(event), "key": f"{event.key}:{digest}"})


def _is_large(text: str) -> bool:
    return len(text) > MAX_BODY // 4 and len(text.encode(errors="surrogatepass")) > MAX_BODY


def _clean(value: Any) -> Any:
    """Return JSON that can be stored: ids and names are whatever an upstream made up."""
    if isinstance(value, str):
        return _plain(value)
    if isinstance(value, Mapping):
        return {_plain(name): _clean(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    return value


def _plain(text: str) -> str:
    """Return a short text that can be stored anywhere; a digest for one that can't."""
    if len(text) <= _MAX_PLAIN and text.isprintable():
        return text
    return digest_of(text)


@cache
def _version() -> str:
    try:
        return version("runlane")
    except PackageNotFoundError:
        return "0+unknown"
