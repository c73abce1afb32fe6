"""Waiting for a run, seen by a person: a line for each change, and on a terminal one that moves."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from runlane.cli import STARTED, output, session, stops
from runlane.errors import ExitCode, WaitTimeout

if TYPE_CHECKING:
    from runlane.waiting import Look
    from workflows.contract import RunView

_SAY_WITHIN = 1.7
"""Seconds from the command's start until a worker that hasn't answered is mentioned."""
_LEAST_SILENCE = 0.5
"""A worker has at least this long, however slowly the command itself started."""
_STATUS_WIDTH = 19

_T = TypeVar("_T")


async def follow(
    looks: AsyncIterator["Look"], *, run_id: str, task_queue: str, quiet_start: bool = False
) -> int:
    """Show a run's changes until it settles; print how it stands then; return the exit code.

    Args:
        looks: from `Runs.watch`.
        run_id: the run's.
        task_queue: where a worker would have to be.
        quiet_start: the first status has been printed already.
    """
    session.follow(run_id)
    console = output.stderr() if session.wants_json() else output.stdout()
    shown = _Shown()
    view: RunView | None = None
    timed_out: WaitTimeout | None = None
    with output.moving(console, "looking") as moving:
        try:
            async for look in with_notes(looks, task_queue):
                shown.look(look, console, silent=quiet_start and view is None)
                view = look.view or view
                if moving is not None and view is not None:
                    moving.update(_standing(view, look))
        except WaitTimeout as error:
            timed_out, view = error, error.view
    assert view is not None
    return ended(view, timed_out)


def ended(view: "RunView", timed_out: WaitTimeout | None = None) -> int:
    """Print how a wait ended, and return its exit code."""
    if session.wants_json():
        output.document(view.as_json())
    code = exit_code(view, timed_out)
    if timed_out is not None:
        output.note(timed_out.message)
    for line in closing_lines(view):
        output.say(line, to=output.stderr() if session.wants_json() else None)
    return int(code)


def exit_code(view: "RunView", timed_out: WaitTimeout | None = None) -> ExitCode:
    """Return what a waiting command's exit code says of the run."""
    if timed_out is not None:
        return ExitCode.TIMEOUT
    if view.run.status == "requires_action":
        return ExitCode.WAITING
    return ExitCode.DONE if view.run.status == "completed" else ExitCode.NOT_COMPLETED


def closing_lines(view: "RunView") -> list[str]:
    """Return what a person should know, or do, about the run as it stands."""
    lines = []
    known = view.runlane
    if view.run.status == "requires_action":
        lines += [known.needs_attention] if known.needs_attention else how_to_answer(view)
    if view.run.last_error is not None:
        lines.append(output.safe(view.run.last_error.message))
    if view.run.incomplete_details is not None and view.run.incomplete_details.reason:
        lines.append(f"Incomplete: {output.safe(view.run.incomplete_details.reason)}")
    said = view.run.last_error.message if view.run.last_error is not None else None
    if known.uncertain is not None and known.uncertain != said:
        lines.append(f"Uncertain: {output.safe(known.uncertain)}")
    lines.extend(
        f"The answer to {output.safe(answer.tool_call_id)} ({output.safe(answer.name)}) was not "
        f"used: {_OUTCOMES[answer.outcome]}."
        for answer in known.answers
        if answer.outcome in _OUTCOMES
    )
    if known.early and view.run.status in _ENDED:
        ids = ", ".join(output.safe(call_id) for call_id in known.early)
        lines.append(f"Nobody asked for the answers that came early: {ids}.")
    return lines


_ENDED = ("completed", "failed", "cancelled", "expired", "incomplete")
_OUTCOMES = {
    "unused": "the run ended without asking for it again",
    "overtaken": "the upstream run had moved on",
    "uncertain": "it was sent, and whether it arrived could not be established",
}


def how_to_answer(view: "RunView") -> list[str]:
    """Return the commands that give what a run waits for: answers, and people's decisions."""
    pending = [call for call in view.runlane.pending if call.handled_by == "caller"]
    held = [
        call
        for call in view.runlane.pending
        if call.handled_by == "people" and call.state in ("waiting", "uncertain")
    ]
    run_id = output.word(view.run.id)
    lines = []
    if pending:
        pairs = " ".join(f"{output.word(call.tool_call_id)}=OUTPUT" for call in pending)
        many = len(pending) > 1
        answers = f"{len(pending)} answers. Give them" if many else "1 answer. Give it"
        lines.append(f"Waits for {answers}:  runlane submit {run_id} {pairs}")
    if len(held) == 1:
        call_id = output.word(held[0].tool_call_id)
        lines.append(f"Waits for a person's decision:  runlane approval show {call_id}")
    elif held:
        lines.append(
            f"Waits for {len(held)} decisions of people:  runlane approval list --run {run_id}"
        )
    return lines or [f"Every answer is there; see  runlane view {run_id}"]


def remarks(view: "RunView") -> list[str]:
    """Return what hinders a run, in a few words each."""
    known = view.runlane
    found = stops.remark(view)
    if known.parked:
        found.append("parked: the upstream run expired, the calls still wait")
    if known.blocked is not None:
        found.append(f"blocked: {output.safe(known.blocked.message)}")
    if known.needs_attention is not None:
        found.append(output.safe(known.needs_attention))
    if known.cancel_requested and view.run.status not in ("cancelling", "cancelled"):
        found.append("cancel requested")
    if known.retrying is not None and known.stopped is None:
        found.append(f"trying again: {output.shortened(known.retrying, 160)}")
    return found


class _Shown:
    """What has been printed, so that only changes are."""

    def __init__(self) -> None:
        self._last: object = None

    def look(self, look: "Look", console: Any, *, silent: bool) -> None:
        if look.view is None:
            return
        now = (look.view.run.status, remarks(look.view), _calls(look.view))
        if now == self._last:
            return
        self._last = now
        if not silent:
            _print_change(look, console)


async def with_notes(looks: AsyncIterator["Look"], task_queue: str) -> AsyncIterator["Look"]:
    """Yield looks; say on standard error when nobody answers, and when somebody does again."""
    silence = _Silence(task_queue)
    outage = False
    following: Look | None = await silence.watch(anext(looks))
    while following is not None:
        look = following
        if look.view is None and not outage:
            problem = "" if look.problem is None else look.problem.message
            output.note(f"Temporal doesn't answer; trying again. {problem}")
        outage = look.view is None
        if look.view is not None:
            silence.heard(look.view.runlane.worker)
        yield look
        following = await anext(looks, None)


async def unless_silent(work: Awaitable[_T], task_queue: str) -> _T:
    """Await work for which a worker is needed; say on standard error when none answers soon."""
    return await _Silence(task_queue).watch(work)


class _Silence:
    """Whether a worker was missed, so that it is said once."""

    def __init__(self, task_queue: str) -> None:
        self._task_queue = task_queue
        self._missed = False

    async def watch(self, work: Awaitable[_T]) -> _T:
        """Await work; before it has given up, say that nobody answers."""
        task = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait({task}, timeout=_silence_seconds())
            if not done:
                self._miss()
            return await task
        finally:
            task.cancel()

    def heard(self, worker: bool | None) -> None:  # noqa: FBT001 - as the view has it
        if worker is False:
            self._miss()
        elif self._missed and worker:
            self._missed = False
            output.note("A worker answers.")

    def _miss(self) -> None:
        if self._missed:
            return
        self._missed = True
        output.note(
            f"No worker has answered on queue {output.safe(self._task_queue)} yet. If none runs, "
            "start one:  runlane worker"
        )


def _silence_seconds() -> float:
    return max(_SAY_WITHIN - (time.monotonic() - STARTED), _LEAST_SILENCE)


def _print_change(look: "Look", console: Any) -> None:
    view = look.view
    assert view is not None
    status = output.safe(str(view.run.status))
    calls = _calls(view)
    padded = f"{status:<{_STATUS_WIDTH}}" if calls else status
    parts: list[tuple[str, str | None]] = [
        (f"{look.seconds:5.1f} s  ", "dim"),
        (padded, output.style_of(status)),
    ]
    if calls:
        parts.append((calls[0], None))
    output.say_parts(*parts, to=console)
    indent = " " * (9 + _STATUS_WIDTH)
    for call in calls[1:]:
        output.say(f"{indent}{call}", to=console)
    for remark in remarks(view):
        output.say_parts((f"         {remark}", "yellow"), to=console)


def _calls(view: "RunView") -> list[str]:
    if view.run.status != "requires_action":
        return []
    return [output.call_text(call) for call in view.runlane.pending]


def _standing(view: "RunView", look: "Look") -> str:
    known = view.runlane
    parts = [output.safe(str(view.run.status)), f"{look.seconds:.0f} s"]
    if known.polls:
        parts.append("1 poll" if known.polls == 1 else f"{known.polls} polls")
    if known.upstream_run_id is not None:
        parts.append(f"upstream {output.safe(known.upstream_run_id)}")
    if known.attempt > 1:
        parts.append(f"attempt {known.attempt}")
    # The console knows no markup here, but a status line does.
    return " · ".join(parts).replace("[", "(").replace("]", ")")
