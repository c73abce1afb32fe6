"""A script at play on one run, and what must be true of the run in the end."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any

import httpx
from temporalio.service import RPCError, RPCStatusCode

from runlane.errors import NoWorker
from runlane.messages import NothingNew, RunClosed, send
from tests.lab import Lab, LabRun
from tests.outsider import Outsider
from tests.scripts import Deed, Script
from workflows.contract import (
    CANCEL_UPDATE,
    PENDING_MEMO,
    SUBMIT_TOOL_OUTPUTS_UPDATE,
    UPDATE_METADATA_UPDATE,
    Acknowledged,
    AnswerOutcome,
    CancelRequest,
    MetadataUpdate,
    PendingCall,
    Receipts,
    RunView,
    Timing,
    ToolOutputMessage,
    ToolOutputs,
    content_digest,
)
from workflows.run import RunWorkflow

TIMING = Timing(poll_floor=0.1, look_floor=0.5, blocked_floor=0.2, settle_for=1.0)
_LOOK_EVERY = 0.25
"""Seconds between two looks at a run; each costs the server, and many runs are at play."""
_JOURNAL_EVERY = 3.0
_STUCK = 120.0
"""Seconds after its script is over from which on a run counts as one that never ends."""

_FAULTS = (
    ("runs.submit_tool_outputs", "server_error"),
    ("runs.submit_tool_outputs", "reset"),
    ("runs.retrieve", "rate_limit"),
    ("runs.retrieve", "not_found"),
)
_HOLDS = ("hold_before", "hold_after")
_ENDS = ("completed", "failed", "cancelled", "incomplete")
_TERMINAL = ("completed", "failed", "cancelled", "expired", "incomplete")
_STATUS = "RunlaneStatus"
_OTHERS = "another's"
"""The output by which somebody answers the upstream past Runlane."""


class PropertyBroken(AssertionError):
    """The property doesn't hold: not the laboratory failed, but Runlane."""


@contextlib.contextmanager
def _property() -> Iterator[None]:
    try:
        yield
    except AssertionError as error:
        raise PropertyBroken(str(error)) from error


class Play:
    """One script at play: what was delivered, and what must be true of it in the end."""

    def __init__(self, script: Script, lab: Lab, run: LabRun) -> None:
        self._script = script
        self._lab = lab
        self._run = run
        self._serial = 0
        self._held: list[str] = []
        self._interfered = False
        self._expired = False
        self._stopped = script.ending == "abandoned"
        self.offered: dict[str, list[str]] = {}
        """By call id all outputs that may have arrived, in the order in which they were sent."""
        self.certain: set[str] = set()
        """Calls for which an answer did arrive."""
        self.accepted: dict[str, list[str]] = {}
        """By call id the outputs that a receipt calls accepted, or kept."""

    async def perform(self) -> None:
        """Play the script to the run's end, and hold what must be true."""
        result = asyncio.create_task(self._run.handle.result())
        try:
            while not result.done() and not await self._lab.accepted("runs.create"):
                await asyncio.sleep(_LOOK_EVERY)
            opening = () if self._script.opening is None else (self._script.opening,)
            for deed in (*opening, *self._script.deeds):
                if result.done():
                    break
                await getattr(self, f"do_{deed.kind}")(deed)
            await self._end(result)
            view = await result
            journal = await journal_of(self._lab)
            with _property():
                self._hold(view, journal)
        except BaseException:
            await self._release_all()
            with contextlib.suppress(RPCError):
                await self._run.handle.terminate()
            raise
        finally:
            result.cancel()

    # Deeds

    async def do_answer(self, deed: Deed) -> None:
        pending = await self._pending()
        if pending:
            await self._deliver(pending[deed.pick % len(pending)], deed.how)

    async def do_all(self, deed: Deed) -> None:
        """Answer every call, all at once."""
        pending = await self._pending()
        await asyncio.gather(*(self._deliver(call_id, deed.how) for call_id in pending))

    async def do_again(self, deed: Deed) -> None:
        if self.offered:
            call_id = list(self.offered)[deed.pick % len(self.offered)]
            output = self.offered[call_id][0] if deed.pick % 2 else None
            await self._deliver(call_id, deed.how, output)

    async def do_early(self, deed: Deed) -> None:
        """Answer what the upstream asks for already, whether or not the run has seen it."""
        _, calls = await self._living()
        await asyncio.gather(*(self._deliver(c, deed.how) for c in calls[: deed.pick + 1]))

    async def do_unknown(self, deed: Deed) -> None:
        await self._deliver(f"call_nobody_{deed.pick}", deed.how)

    async def do_expire(self, deed: Deed) -> None:
        if deed.pick:
            await self._pending()
        run_id, _ = await self._living()
        if run_id is not None:
            self._expired = True
            await self._lab.force(run_id, "expired")
            if deed.pick == 3:
                await asyncio.sleep(TIMING.look_floor + 0.2)

    async def do_finish(self, deed: Deed) -> None:
        run_id, _ = await self._living()
        if run_id is not None:
            self._interfered = True
            await self._lab.force(run_id, _ENDS[deed.pick % len(_ENDS)])

    async def do_overtake(self, deed: Deed) -> None:
        """Answer the upstream past Runlane."""
        run_id, calls = await self._living()
        if run_id is not None and calls:
            self._interfered = True
            await self._release_all()
            await asyncio.to_thread(self._submit_past_runlane, run_id, calls)

    async def do_lose(self, deed: Deed) -> None:
        operation = "runs.create" if deed.pick == 0 else "runs.submit_tool_outputs"
        await self._lab.fault(operation, "lost_answer")

    async def do_fail(self, deed: Deed) -> None:
        operation, kind = _FAULTS[deed.pick % len(_FAULTS)]
        await self._lab.fault(operation, kind, times=1 + deed.pick % 2)

    async def do_hold(self, deed: Deed) -> None:
        """Hold the next submit, before or after the upstream takes it; the next deeds meet it."""
        kind = _HOLDS[deed.pick % len(_HOLDS)]
        self._held.append(await self._lab.fault("runs.submit_tool_outputs", kind))

    async def do_release(self, deed: Deed) -> None:
        if self._held:
            await self._lab.release(self._held.pop(), answer=deed.pick % 2 == 0)

    async def do_late(self, deed: Deed) -> None:
        """Answer all, and let the upstream expire at the very submit."""
        fault = await self._lab.fault("runs.submit_tool_outputs", "hold_before")
        self._held.append(fault)
        await self.do_all(deed)
        for _ in range(8):
            state = await asyncio.to_thread(self._lab.simulator.fault_state, fault)
            if state["waiting"]:
                break
            await asyncio.sleep(_LOOK_EVERY)
        run_id, _ = await self._living()
        if run_id is not None:
            self._expired = True
            await self._lab.force(run_id, "expired")
        await self._release_all()

    async def do_nudge(self, deed: Deed) -> None:
        with _unless_ended():
            await self._run.handle.signal(RunWorkflow.nudge)

    async def do_label(self, deed: Deed) -> None:
        update = MetadataUpdate(metadata={"label": self._output()})
        with _unless_ended():
            await self._send(UPDATE_METADATA_UPDATE, update, Acknowledged)

    async def _end(self, result: asyncio.Task[RunView]) -> None:
        """Let everything be mended, and give every answer, unless the run is to end otherwise."""
        if self._script.ending == "cancelled":
            self._stopped = True
            with _unless_ended():
                await self._send(CANCEL_UPDATE, CancelRequest(), Acknowledged)
        elif self._script.ending == "cancelled by Temporal":
            self._stopped = True
            with _unless_ended():
                await self._run.handle.cancel()
        await self._release_all()
        began = seen_at = time.monotonic()
        while not result.done():
            with _property():
                assert time.monotonic() < began + _STUCK, "it doesn't end"
            if time.monotonic() > seen_at + _JOURNAL_EVERY:
                # Who submits again and again doesn't end either; this says so sooner.
                journal = await journal_of(self._lab)
                with _property():
                    _taken(journal)
                seen_at = time.monotonic()
            if self._script.ending == "answered":
                for call_id in await self._waiting():
                    await self._deliver(call_id, "update")
            await asyncio.wait([result], timeout=_LOOK_EVERY)

    # What they need

    def _output(self) -> str:
        self._serial += 1
        return f"output {self._serial}"

    async def _deliver(self, call_id: str, how: str, output: str | None = None) -> None:
        """Give a call an answer: once, or two messages at the same moment."""
        first = output or self._output()
        second = first if how == "twice" else self._output()
        ways: dict[str, list[Coroutine[Any, Any, None]]] = {
            "update": [self._update(call_id, first)],
            "signal": [self._signal(call_id, first)],
            "twice": [self._update(call_id, first), self._signal(call_id, second)],
            "rivals": [self._update(call_id, first), self._update(call_id, second)],
            "mixed": [self._signal(call_id, first), self._update(call_id, second)],
        }
        chosen = ways.pop(how)
        for coroutines in ways.values():
            for coroutine in coroutines:
                coroutine.close()
        await asyncio.gather(*chosen)

    async def _signal(self, call_id: str, output: str) -> None:
        with _unless_ended():
            self.offered.setdefault(call_id, []).append(output)
            await self._run.signal((call_id, output))
            self.certain.add(call_id)

    async def _update(self, call_id: str, output: str) -> None:
        self.offered.setdefault(call_id, []).append(output)
        message = ToolOutputs(tool_outputs=[ToolOutputMessage(tool_call_id=call_id, output=output)])
        try:
            receipts = await self._send(SUBMIT_TOOL_OUTPUTS_UPDATE, message, Receipts)
        except NothingNew as refused:
            receipts = refused.receipts
        except (RunClosed, NoWorker):
            return
        if receipts.is_new():
            self.certain.add(call_id)
            self.accepted.setdefault(call_id, []).append(output)

    async def _send(self, name: str, message: object, answer: type[Any]) -> Any:
        queue = self._lab.task_queue
        return await send(self._lab.client, self._run.id, name, message, answer, task_queue=queue)

    async def _pending(self) -> list[str]:
        """Return the calls that wait, once there are any."""
        for _ in range(4):
            calls = await self._waiting()
            if calls:
                return calls
            await asyncio.sleep(_LOOK_EVERY)
        return []

    async def _waiting(self) -> list[str]:
        described = await self._run.handle.describe()
        statuses = [p.value for p in described.typed_search_attributes if p.key.name == _STATUS]
        if statuses != ["requires_action"]:
            return []
        calls: list[PendingCall] = await described.memo_value(
            PENDING_MEMO, [], type_hint=list[PendingCall]
        )
        return [call.tool_call_id for call in calls]

    async def _living(self) -> tuple[str | None, list[str]]:
        """Return the upstream run that lives on our thread, and the calls that it waits for."""
        thread = await asyncio.to_thread(self._lab.simulator.thread, self._lab.thread_id)
        for run in thread["runs"]:
            if run["status"] not in _TERMINAL:
                action = run["required_action"] or {}
                calls = action.get("submit_tool_outputs", {}).get("tool_calls", [])
                return run["id"], [call["id"] for call in calls]
        return None, []

    def _submit_past_runlane(self, run_id: str, calls: list[str]) -> None:
        outsider = Outsider(self._lab)
        # Runlane's own submit may be first, and a fault that was meant for that may hit this.
        refused = (AssertionError, httpx.TransportError)
        with contextlib.closing(outsider), contextlib.suppress(*refused):
            outsider.submit(run_id, dict.fromkeys(calls, _OTHERS))

    async def _release_all(self) -> None:
        while self._held:
            await self._lab.release(self._held.pop())

    # What must be true

    def _hold(self, result: RunView, journal: list[dict[str, Any]]) -> None:
        taken = _taken(journal)
        self._hold_no_answer_lost(result, taken)
        self._hold_outcomes(result, taken)
        creates = [e for e in journal if e["operation"] == "runs.create" and e["accepted"]]

        assert result.run.status in _TERMINAL
        assert len(creates) == result.runlane.attempt, "an upstream run nobody knows of"
        if not self._interfered and not self._stopped:
            # Three re-creations in vain are an end too.
            ends = ("completed", "expired") if self._expired else ("completed",)
            assert result.run.status in ends, "it ended as it should not"
        if not self._interfered and not self._stopped and not self._expired:
            assert {a.outcome for a in result.runlane.answers} <= {AnswerOutcome.SUBMITTED}
            assert len(taken) == len(result.runlane.answers)

    def _hold_no_answer_lost(self, result: RunView, taken: dict[str, str]) -> None:
        """Each accepted answer stands under its call's id; the upstream got that and no other."""
        stands = {call: a.output_digest for a in result.runlane.answers for call in a.call_ids}
        rejected = {r.tool_call_id for r in result.runlane.rejected}
        for call_id in self.certain:
            known = call_id in stands or call_id in rejected or call_id in result.runlane.early
            assert known, f"the answer to {call_id} is lost"
        for call_id, outputs in self.accepted.items():
            assert len(outputs) == 1, f"{call_id} has two first answers"
            # What came early gives way to an answer that an earlier upstream run got already.
            if call_id in stands and call_id not in rejected:
                assert stands[call_id] == content_digest(outputs[0]), f"{call_id} was overwritten"
        for call_id, output in taken.items():
            assert stands.get(call_id) == content_digest(output), f"{call_id} got another's answer"

    def _hold_outcomes(self, result: RunView, taken: dict[str, str]) -> None:
        """What an outcome says of an answer is what the upstream's journal says."""
        digests = {content_digest(output) for output in taken.values()}
        for answer in result.runlane.answers:
            assert answer.outcome != AnswerOutcome.WAITING
            if answer.outcome == AnswerOutcome.SUBMITTED:
                assert answer.output_digest in digests, f"{answer} never arrived"
            elif answer.output_digest in digests:
                may = (AnswerOutcome.UNCERTAIN, AnswerOutcome.UNUSED)
                assert answer.outcome in may, f"{answer} arrived"
            if answer.outcome == AnswerOutcome.UNCERTAIN:
                assert self._stopped
            if answer.outcome == AnswerOutcome.OVERTAKEN:
                assert self._interfered


async def journal_of(lab: Lab) -> list[dict[str, Any]]:
    """Return the requests that the upstream received for the lab's thread, the oldest first."""
    report = await asyncio.to_thread(lambda: lab.simulator.requests(thread_id=lab.thread_id))
    entries: list[dict[str, Any]] = report["data"]
    return entries


def _taken(journal: list[dict[str, Any]]) -> dict[str, str]:
    """Return the outputs that the upstream took from us, by call; hold that none came twice."""
    taken: dict[str, str] = {}
    used: Counter[tuple[str, str]] = Counter()
    for entry in journal:
        if entry["operation"] != "runs.submit_tool_outputs":
            continue
        for pair in entry["body"]["tool_outputs"]:
            call_id, output = pair["tool_call_id"], pair["output"]
            if output == _OTHERS:
                continue
            # Not even refused: an upstream more lenient than ours would take it.
            assert call_id not in taken, f"{call_id} was submitted after it had been taken"
            if entry["accepted"]:
                taken[call_id] = output
                used[entry["run_id"], output] += 1
    twice = [output for (_, output), count in used.items() if count > 1]
    assert not twice, f"answers to one call went to two: {twice}"
    return taken


@contextlib.contextmanager
def _unless_ended() -> Iterator[None]:
    """Let a message to a run that has ended meanwhile be refused."""
    try:
        yield
    except (RunClosed, NoWorker):
        pass
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
