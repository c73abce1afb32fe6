"""Calls of tools that a worker has: who answers each, and running those that may run."""

import asyncio

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import trail
from activities.asking import waiting
from activities.decision import NoKeys, Verifier
from activities.heartbeat import heartbeating
from activities.tool_runs import ToolRun
from activities.tools import (
    Beside,
    Busy,
    Call,
    Called,
    CallInput,
    Classified,
    ClassifyInput,
    Facts,
    Handling,
    Ran,
    Toolbox,
)
from ledger import Ledger
from ledger.chain import Event
from ledger.intent import Intent, State

BUSY = "WorkerBusy"
"""The type of an activity's error while this worker can run no tool; another one may."""
_FAILED = "ToolsFailed"


class NoTools:
    """The toolbox of a worker that has no tools."""

    async def handling(self, call: Call, asked_at: float) -> Handling:
        """Leave each call to the caller."""
        return Handling(by="caller")

    def tries(self, name: str) -> int:
        """Never asked for."""
        raise LookupError(name)

    async def run(self, call: Call, facts: Facts) -> Ran:
        """Never asked for."""
        raise LookupError(call.name)


class ToolActivities:
    """The activities of one worker's tools."""

    def __init__(
        self, ledger: Ledger, toolbox: Toolbox | None = None, verifier: Verifier | None = None
    ) -> None:
        """Take what they work with.

        Args:
            ledger: where intents and the audit trail stand.
            toolbox: of this process; none leaves each call to the caller.
            verifier: of decisions; without one none counts.
        """
        self._ledger = ledger
        self._toolbox = toolbox or NoTools()
        self._verifier = verifier or NoKeys()

    @activity.defn(name="tools.classify")
    async def classify(self, input: ClassifyInput) -> Classified:
        """Say who answers each of a round's calls."""
        async with heartbeating():
            try:
                return await self._classified(input)
            except Exception as error:
                raise _told(error) from None

    @activity.defn(name="tools.call")
    async def call(self, input: CallInput) -> Called:
        """Answer one call of a tool that may run."""
        # With every key from the beginning: it is changed in one thread and sent from another.
        progress: dict[str, object] = {
            "tool_call_id": input.call.id,
            "progress": None,
            "failure": None,
            "begun": 0,
        }
        async with heartbeating(progress):
            try:
                run = ToolRun(self._ledger, self._toolbox, self._verifier, input, progress)
                return await run.answer()
            except Exception as error:
                raise _told(error) from None

    async def _classified(self, input: ClassifyInput) -> Classified:
        handled = await asyncio.gather(
            *(self._toolbox.handling(call, input.asked_at) for call in input.calls)
        )
        before = await self._before(input, handled)
        classified = {
            call.id: _beside(call, handling, before)
            for call, handling in zip(input.calls, handled, strict=True)
        }
        events = [
            event for call in input.calls for event in _events(input, call, classified[call.id])
        ]
        asked = [
            waiting(
                call,
                rule,
                run_id=_run_id(),
                owner=input.owner,
                attempt=input.attempt,
                round=input.round,
                since=input.asked_at,
            )
            for call in input.calls
            if classified[call.id].by == "people" and (rule := classified[call.id].rule) is not None
        ]
        with trail.waiting_for_ledger():
            await self._ledger.approvals.record(_run_id(), asked, events)
        return Classified(calls=classified)

    async def _before(self, input: ClassifyInput, handled: list[Handling]) -> list[Intent]:
        """Return what was begun in this run and not in the present upstream run's time."""
        if all(each.rule is None or each.rule.read_only for each in handled):
            return []
        with trail.waiting_for_ledger():
            intents = await self._ledger.intents.of_run(_run_id())
        return [
            intent
            for intent in intents
            if intent.state is not State.VOID
            and (intent.key.tool, intent.key.arguments_digest, intent.key.ordinal)
            not in input.begun
        ]


def _run_id() -> str:
    # Not what the input says: anybody may start a workflow that says what he likes.
    return activity.info().workflow_id or ""


def _beside(call: Call, handling: Handling, before: list[Intent]) -> Handling:
    """Leave to people what a tool is asked for otherwise than it has already run."""
    rule = handling.rule
    if rule is None or rule.read_only or handling.output is not None:
        return handling
    done = [each for each in before if each.key.tool == call.name]
    if not done or any(each.key.arguments_digest == rule.arguments_digest for each in done):
        return handling
    reason = rule.reason or f"{call.name} ran before in this run, with other arguments"
    beside = [
        Beside(
            name=each.key.tool,
            arguments=each.arguments or "",
            outcome=each.outcome or each.state.value,
            at=each.begun_at.timestamp(),
        )
        for each in done
    ]
    told = rule.model_copy(update={"reason": reason})
    return handling.model_copy(update={"by": "people", "rule": told, "beside": beside})


def _events(input: ClassifyInput, call: Call, handling: Handling) -> list[Event]:
    rule = handling.rule
    return [
        trail.call(
            call_id=call.id,
            tool=call.name,
            arguments=call.arguments,
            attempt=input.attempt,
            round=input.round,
            model=input.model,
        ),
        trail.classification(
            call_id=call.id,
            tool=call.name,
            attempt=input.attempt,
            by=handling.by,
            policy=None if rule is None else rule.policy,
            reason=None if rule is None else rule.reason,
            tool_schema=None if rule is None else rule.tool_digest,
            model=input.model,
        ),
    ]


def _told(error: Exception) -> Exception:
    """Return an error as Temporal and the log may have it: what it says may repeat arguments."""
    if isinstance(error, ApplicationError):
        return error
    if isinstance(error, Busy):
        return ApplicationError(str(error), type=BUSY)
    return ApplicationError(f"It failed: {type(error).__name__}", type=_FAILED)
