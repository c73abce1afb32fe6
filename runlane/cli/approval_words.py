"""How calls that wait for people are printed, and what became of decisions."""

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runlane.cli import output

if TYPE_CHECKING:
    from ledger.stops import Stop
    from runlane.faces import Decided, Told
    from runlane.waiting_calls import WaitingCall
    from workflows.contract import PendingCall

_SHOWN = 60
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_AT_THE_DEADLINE = {
    "reject": "it is rejected",
    "fail": "the run fails",
    "escalate": "the next group is asked; after the last it is rejected",
}


def table(found: "Sequence[WaitingCall]") -> None:
    """Print a list of them: a line for the call, one for what it wants."""
    now = time.time()
    rows = [
        (
            output.safe(each.call.tool_call_id),
            output.safe(each.call.name),
            spell(now - each.call.since_at) if each.call.since_at is not None else "-",
            output.shortened(who(each.call), 24),
            _count(each.call),
            _until(each.call.deadline_at, now),
        )
        for each in found
    ]
    below = [_below(each) for each in found]
    head = ("call", "tool", "waits", "who decides", "have", "deadline")
    output.table(head, rows, below=below)


def show(waiting: "WaitingCall") -> None:
    """Print one call in full."""
    call = waiting.call
    output.say_parts((output.safe(call.name), "bold"), (f"  {_standing(call)}", "yellow"))
    output.fields(_facts(waiting))
    output.say("  arguments", style="dim")
    for line in pretty(call.arguments):
        output.say(f"    {line}")
    if call.approved_arguments is not None:
        by = output.safe(", ".join(call.approved_by))
        output.say(f"  edited arguments, approved by {by}", style="dim")
        for line in pretty(call.approved_arguments):
            output.say(f"    {line}")
    if call.beside:
        output.say("  done before in this run", style="dim")
        for each in call.beside:
            when = output.moment(each.at)
            output.say(f"    {output.safe(each.name)}  {output.safe(each.outcome)} at {when}")
            for line in pretty(each.arguments):
                output.say(f"      {line}")
    for name, digest in (("arguments", call.arguments_digest), ("tool", call.tool_digest)):
        if digest:
            output.say(f"  digest of the {name}", style="dim")
            output.say(f"    {digest}")
    output.say("")
    for line in _commands(waiting):
        output.say(line)


def became(decided: "Decided | Told", stops: "Sequence[Stop]", *, has_temporal: bool) -> None:
    """Print what became of a decision.

    Args:
        decided: the decision.
        stops: those that stand, as far as it is known here.
        has_temporal: whether commands that read runs work here.
    """
    run_id, call = decided.run_id, decided.call
    if decided.state != "counted":
        output.say("Recorded, and not verified yet: no worker has done it so far.")
        if has_temporal:
            output.say(f"What becomes of it:  runlane view {output.word(run_id)}")
        return
    kind, by = decided.kind, output.safe(decided.by)
    consequence = _held_up(decided, stops) or _consequence(decided)
    output.say(f"{_DONE[kind]} by {by}; the decision is verified. {consequence}".rstrip())
    if call is not None and kind == "claim" and call.claimed_at is not None:
        output.note(f"Until {output.moment(call.claimed_at + 3600)}, or until you release it.")
    elif has_temporal and kind in ("approve", "reject", "answer"):
        output.note(f"The run:  runlane poll {output.word(run_id)}")


_DONE = {
    "approve": "Approved",
    "reject": "Rejected",
    "answer": "Answered",
    "claim": "Claimed",
    "release": "Released",
    "revoke": "Revoked",
}


def spell(seconds: float) -> str:
    """Return a duration in the two largest units that tell of it: `3 h 10 min`."""
    left = max(round(seconds), 0)
    parts: list[str] = []
    for name, size in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {name}" if count else "")
        if len(parts) == 2:
            break
    return " ".join(filter(None, parts)) or "0 s"


def who(call: "PendingCall") -> str:
    """Return who may decide a call."""
    groups = [f"group {name}" for name in call.groups]
    return output.safe(", ".join([*call.approvers, *groups])) or "anybody"


def pretty(arguments: str) -> list[str]:
    """Return arguments as lines of indented JSON; those that are none, as they are."""
    try:
        text = json.dumps(json.loads(arguments), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = arguments
    return [output.safe(line) for line in text.splitlines()] or [""]


def _below(waiting: "WaitingCall") -> str:
    call = waiting.call
    claimed = f"; {output.safe(call.claimed_by)} looks after it" if call.claimed_by else ""
    reason = f": {output.shortened(call.reason, _SHOWN)}" if call.reason else ""
    arguments = output.shortened(call.arguments, _SHOWN) or "arguments erased"
    return f"{arguments}{reason}{claimed}. {output.safe(waiting.run_id)}"


def _standing(call: "PendingCall") -> str:
    if call.state == "uncertain":
        return "may have run: a person must say"
    if call.checking:
        return "waits; a decision is being verified"
    return {
        "waiting": "waits for a decision",
        "approved": "is approved; it runs when the upstream asks for it again",
        "running": "is approved, and runs",
    }[call.state]


def _facts(waiting: "WaitingCall") -> list[tuple[str, str]]:
    call, now = waiting.call, time.time()
    facts = [
        ("call", output.safe(call.tool_call_id)),
        ("run", output.safe(waiting.run_id)),
    ]
    if call.reason:
        facts.append(("why", output.safe(" ".join(call.reason.split()))))
    facts.append(("who decides", who(call)))
    approved = f", by {output.safe(', '.join(call.approved_by))}" if call.approved_by else ""
    facts.append(("approvals", f"{_count(call, ' of ')}{approved}"))
    if call.since_at is not None:
        facts.append(
            ("waits", f"since {output.moment(call.since_at)}: {spell(now - call.since_at)}")
        )
    if call.deadline_at is not None:
        words = f"{output.moment(call.deadline_at)}, {_until(call.deadline_at, now)}"
        facts.append(("deadline", words))
        if call.outcome in _AT_THE_DEADLINE:
            facts.append(("then", _AT_THE_DEADLINE[call.outcome]))
    if call.claimed_by:
        since = "" if call.claimed_at is None else f" since {output.moment(call.claimed_at)}"
        facts.append(("claimed", f"by {output.safe(call.claimed_by)}{since}"))
    return facts


def _commands(waiting: "WaitingCall") -> list[str]:
    call = waiting.call
    call_id = output.word(call.tool_call_id)
    at = "runlane approval"
    if call.state == "uncertain":
        return [
            f"It ran:      {at} answer {call_id} --output TEXT",
            f"It did not:  {at} approve {call_id}   (then it runs now)",
            f"Neither:     {at} reject {call_id} --reason TEXT",
        ]
    if call.state != "waiting":
        return []
    same = "" if call.approved_arguments is None else " --arguments FILE   (with the edited ones)"
    return [
        f"{at} approve {call_id}{same}",
        f"{at} reject {call_id} --reason TEXT",
    ]


def _held_up(decided: "Decided | Told", stops: "Sequence[Stop]") -> str:
    call = decided.call
    if call is None or call.state != "running":
        return ""
    mine = ("", decided.run_id, call.name)
    held = [f"{stop}, stopped by {stop.by}" for stop in stops if stop.target in mine]
    return f"It runs when that is resumed: {output.safe('; '.join(held))}." if held else ""


def _consequence(decided: "Decided | Told") -> str:
    call, kind = decided.call, decided.kind
    if kind == "reject":
        return "It doesn't run, and the model is told."
    if kind == "answer":
        return "The model gets your output; the tool doesn't run."
    if kind != "approve":
        return ""
    if call is None:
        return "The call has its answer."
    if call.state == "waiting" and call.approvals is not None:
        left = call.approvals.need - call.approvals.have
        more = "one more person must" if left == 1 else f"{left} more people must"
        return f"{call.approvals.have} of {call.approvals.need} have approved; {more}."
    return {
        "approved": "It runs when the upstream asks for it again.",
        "running": "It may run now.",
        "uncertain": "",
        "waiting": "",
    }[call.state]


def _count(call: "PendingCall", of: str = "/") -> str:
    return "-" if call.approvals is None else f"{call.approvals.have}{of}{call.approvals.need}"


def _until(deadline_at: float | None, now: float) -> str:
    if deadline_at is None:
        return "-"
    left = deadline_at - now
    return f"in {spell(left)}" if left > 0 else f"{spell(-left)} ago"
