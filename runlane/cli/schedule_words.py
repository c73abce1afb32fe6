"""Schedules in words, and as JSON."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runlane.cli import output, session

if TYPE_CHECKING:
    from datetime import datetime

    from activities.scheduled_batch_contract import AskedBatch
    from runlane.batches.schedules import Begun
    from runlane.schedule_facts import Described, Known, Start, Triggered

SHOWN = 3
"""Times and starts that are shown of those to come and those that were."""


def tell(found: "Described", begun: "Sequence[Begun]" = (), goes: "datetime | None" = None) -> None:
    """Print a schedule.

    Args:
        found: the schedule.
        begun: of batches, its latest starts, the latest first.
        goes: of batches, when the input is gone; None: it stays.
    """
    if session.wants_json():
        output.document(_full_document(found, begun, goes))
        return
    from runlane.durations import format_duration  # noqa: PLC0415

    standing = "paused" if found.paused else "active"
    output.say_parts((output.safe(found.name), "bold"), (f"  {standing}", None))
    moments = [_moment(each) for each in found.next[:SHOWN]] or ["never"]
    pairs = [
        ("next", moments[0]),
        *(("", each) for each in moments[1:]),
        ("cron", f"{_crons(found)}  ({output.safe(found.timezone)})"),
        ("overlap", f"{found.overlap}, {found.skipped:,} skipped"),
        ("catch-up", f"{format_duration(found.catchup_window)}, {found.missed:,} missed"),
        *_asked(found),
    ]
    if found.paused and found.note:
        pairs.insert(0, ("reason", output.safe(found.note)))
    pairs += [
        ("run", f"{each.run_id}  of {_moment(each.scheduled_at)}")
        for each in reversed(found.recent[-SHOWN:])
        if each.run_id is not None
    ]
    for each in begun:
        status = "about to begin" if each.status is None else each.status.value
        pairs.append(("batch", f"{output.safe(each.name)}  {status}  {each.id}"))
    if goes is not None:
        pairs.append(("lost", "its input is not kept: give the create again, or make it anew"))
    output.fields(pairs)


def row(found: "Known") -> tuple[str, ...]:
    """Return a schedule's line in a list."""
    begins = "paused" if found.paused else _moment(found.next[0]) if found.next else "never"
    cron = _crons(found) if found.cron else "its key is missing here"
    kind = "batches" if found.of_batches else "runs"
    return (output.safe(found.name), kind, begins, cron, output.safe(found.timezone))


def document(found: "Known") -> dict[str, Any]:
    """Return a schedule as JSON. Times are Unix seconds."""
    return {
        "object": "schedule",
        "name": found.name,
        "begins": "batches" if found.of_batches else "runs",
        "cron": list(found.cron),
        "timezone": found.timezone,
        "paused": found.paused,
        "note": found.note,
        "next": [each.timestamp() for each in found.next],
        "recent": [_start(each) for each in found.recent],
    }


def trigger_document(triggered: "Triggered") -> dict[str, Any]:
    """Return what came of a trigger as JSON."""
    start = triggered.start
    named = {} if start is None or start.batch is None else {"batch": start.batch}
    return {
        "object": "schedule.trigger",
        "run_id": triggered.run_id,
        **named,
        "begun": triggered.begun,
        "skipped": triggered.skipped,
    }


def _asked(found: "Described") -> list[tuple[str, str]]:
    from workflows.scheduled_contract import ScheduledBatchInput  # noqa: PLC0415

    request = found.request
    if isinstance(request, ScheduledBatchInput):
        return _batch(request.batch)
    return [
        ("thread", output.safe(request.thread_id or "a new one each")),
        ("assistant", output.safe(str(request.params["assistant_id"]))),
        ("made by", output.safe(request.requested_by or "-")),
    ]


def _batch(asked: "AskedBatch") -> list[tuple[str, str]]:
    options = asked.options
    limits = [f"{options['lanes'] * options['window']:,} in flight"]
    for name, word in (("rpm", "requests a minute"), ("tpm", "tokens a minute")):
        if options.get(name) is not None:
            limits.append(f"{options[name]:,g} {word}")
    tries = options.get("tries", 3)
    limits.append("1 try" if tries == 1 else f"{tries:,} tries")
    if asked.token_limit is not None:
        limits.append(f"{asked.token_limit:,} tokens")
    if asked.cost_limit is not None:
        limits.append(f"cost {asked.cost_limit}")
    pairs = [
        ("input", f"{output.safe(asked.filename)}, {output.counted(asked.total, 'item')}"),
        ("limits", ", ".join(limits)),
    ]
    if asked.deadline is not None:
        at = asked.deadline
        pairs.append(("deadline", f"{at.hour:02}:{at.minute:02}  ({output.safe(at.zone)})"))
    if asked.tools is not None:
        names = [str(each.get("function", {}).get("name", "")) for each in asked.tools]
        pairs.append(("tools", output.safe(", ".join(names))))
    pairs.append(("made by", output.safe(asked.requested_by or "-")))
    return pairs


def _full_document(
    found: "Described", begun: "Sequence[Begun]", goes: "datetime | None"
) -> dict[str, Any]:
    from workflows.scheduled_contract import ScheduledBatchInput  # noqa: PLC0415

    request = found.request
    told = {
        **document(found),
        "overlap": found.overlap,
        "catchup_window": found.catchup_window.total_seconds(),
        "skipped": found.skipped,
        "missed": found.missed,
    }
    if isinstance(request, ScheduledBatchInput):
        asked = request.batch
        return {
            **told,
            "batch": asked.model_dump(mode="json", exclude={"requested_by", "owner"}),
            "input_goes_at": None if goes is None else goes.timestamp(),
            "batches": [
                {
                    "id": each.id,
                    "name": each.name,
                    "scheduled_at": each.scheduled_at.timestamp(),
                    "status": None if each.status is None else each.status.value,
                }
                for each in begun
            ],
            "requested_by": asked.requested_by,
        }
    return {
        **told,
        "thread_id": request.thread_id,
        "params": request.params,
        "options": request.options.model_dump(mode="json", exclude={"timing"}),
        "requested_by": request.requested_by,
    }


def _start(each: "Start") -> dict[str, Any]:
    named = {"run_id": each.run_id} if each.batch is None else {"batch": each.batch}
    return {**named, "scheduled_at": each.scheduled_at.timestamp()}


def _crons(found: "Known") -> str:
    return output.safe("; ".join(found.cron))


def _moment(at: "datetime") -> str:
    """Return a time as the schedule's own zone has it, with its offset."""
    return at.isoformat(" ", timespec="seconds")
