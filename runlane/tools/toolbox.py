"""The registered tools as a worker's activities use them."""

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Literal

from activities.contract import canonical_arguments
from activities.tools import Busy, Call, Facts, Handling, Ran, Rule
from runlane.tools.answer import failed, timed_out
from runlane.tools.arguments import InvalidArguments
from runlane.tools.context import ToolContext
from runlane.tools.loop import LoopBlocked, ToolLoop
from runlane.tools.policy import Policy
from runlane.tools.threads import NoThread, in_thread
from workflows.contract import content_digest

if TYPE_CHECKING:
    from runlane.tools.registry import Registry
    from runlane.tools.tool import Tool

LONGEST_PAUSE = 30.0
"""Seconds between two tries at a tool that fails."""
_POLICY_WITHIN = 20.0
"""Seconds that a tool's checks and its policy have for one call."""

_logger = logging.getLogger(__name__)


class RegisteredTools:
    """Says who answers the calls of registered tools, and runs them."""

    def __init__(self, registry: "Registry", *, notifies: bool = False) -> None:
        """Take the tools of this process.

        Args:
            registry: the tools.
            notifies: whether this process has webhooks.
        """
        self._registry = registry
        self._notifies = notifies
        self._loop = ToolLoop()

    @property
    def names(self) -> list[str]:
        """The tools' names, sorted."""
        return [tool.name for tool in self._registry]

    async def handling(self, call: Call, asked_at: float) -> Handling:
        """Say who answers a call. Where that can't be told, a person must."""
        if call.name not in self._registry:
            return Handling(by="caller")
        tool = self._registry[call.name]
        limit = asyncio.timeout(_POLICY_WITHIN)
        try:
            async with limit:
                handling = await in_thread(partial(self._judged, tool, call, asked_at))
        except NoThread as error:
            raise Busy(str(error)) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            handling = self._people(tool, call, asked_at, "its policy failed: CancelledError")
        except BaseException as error:
            # What a policy or a validator raises is anybody's, and its words may repeat arguments.
            name = "it took too long" if limit.expired() else type(error).__name__
            handling = self._people(tool, call, asked_at, f"its policy failed: {name}")
        return handling

    def tries(self, name: str) -> int:
        """Return how often a tool may be tried where it fails."""
        return self._registry[name].options.retries + 1

    async def run(self, call: Call, facts: Facts) -> Ran:
        """Run a call's tool once."""
        context = ToolContext(
            run_id=facts.run_id,
            call_id=call.id,
            idempotency_key=facts.idempotency_key,
            approver=facts.approver,
            reporter=facts.report,
        )
        tool = self._registry[call.name]
        invoke = partial(self._registry.invoke, call.name, call.arguments, context)
        try:
            if tool.body.kind == "function":
                within = tool.options.timeout.total_seconds()
                answer = await self._loop.run(invoke, within)
            else:
                answer = await invoke()
        except NoThread as error:
            raise Busy(str(error)) from None
        except LoopBlocked:
            _logger.error(
                "Tool %s gave no answer: it, or another async tool, blocks the event loop",
                call.name,
                extra={"action": "loop_blocked", "run_id": facts.run_id, "call_id": call.id},
            )
            answer = timed_out(call.name)
        except (KeyboardInterrupt, GeneratorExit) as error:
            # Raised in the tools' own threads, so nobody's but the tool's.
            answer = failed(call.name, error, context)
        return Ran(output=answer.output, kind=answer.kind.value, error=answer.error)

    def _judged(self, tool: "Tool", call: Call, asked_at: float) -> Handling:
        rule = self._rule(tool, call, asked_at)
        try:
            arguments = tool.read(call.arguments)
        except InvalidArguments as error:
            return Handling(by="worker", output=str(error), rule=rule)
        policy, reason = tool.classify(arguments)
        rule = rule.model_copy(update={"policy": policy.value, "reason": reason})
        by: Literal["worker", "people"] = "worker" if policy is Policy.AUTO else "people"
        return Handling(by=by, timeout=_seconds(tool), rule=rule)

    def _people(self, tool: "Tool", call: Call, asked_at: float, reason: str) -> Handling:
        rule = self._rule(tool, call, asked_at).model_copy(update={"reason": reason})
        return Handling(by="people", timeout=_seconds(tool), rule=rule)

    def _rule(self, tool: "Tool", call: Call, asked_at: float) -> Rule:
        options = tool.options
        return Rule(
            tool_digest=tool.digest,
            arguments_digest=content_digest(canonical_arguments(call.arguments)),
            read_only=options.read_only,
            at_most_once=options.at_most_once,
            approvers=list(options.approvers),
            groups=list(options.groups),
            approvals=options.approvals,
            requester_may_approve=options.lets_requester_approve,
            deadlines=options.deadlines_of(asked_at),
            outcome=options.outcome.value,
            remind_at=options.reminders_of(asked_at),
            notify=self._notifies,
        )


def _seconds(tool: "Tool") -> float:
    tries = tool.options.retries + 1
    return tries * tool.options.timeout.total_seconds() + (tries - 1) * LONGEST_PAUSE
