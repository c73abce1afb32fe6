"""The registered tools as a worker's activities use them."""

import asyncio
import logging
from typing import TYPE_CHECKING

from activities.tools import Call, Handling
from runlane.tools.answer import AnswerKind
from runlane.tools.arguments import InvalidArguments
from runlane.tools.context import ToolContext
from runlane.tools.policy import Policy
from workflows.contract import content_digest

if TYPE_CHECKING:
    from runlane.tools.registry import Registry
    from runlane.tools.tool import Tool

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0

_logger = logging.getLogger(__name__)


class RegisteredTools:
    """Answers the calls of those tools that only read and need nobody; leaves all others."""

    def __init__(self, registry: "Registry") -> None:
        """Take the tools of this process."""
        self._registry = registry

    def handling(self, call: Call) -> Handling:
        """Say who answers a call: the worker, or whoever submits outputs."""
        if call.name not in self._registry:
            return Handling(by="caller")
        tool = self._registry[call.name]
        try:
            arguments = tool.read(call.arguments)
        except InvalidArguments as error:
            return Handling(by="worker", output=str(error))
        verdict = tool.classify(arguments)
        if not tool.options.read_only or verdict.policy is not Policy.AUTO:
            return Handling(by="caller")
        return Handling(by="worker", timeout=_seconds(tool))

    async def answer(self, run_id: str, call: Call) -> str:
        """Run a call's tool, again after a failure as often as its options say."""
        tool = self._registry[call.name]
        context = ToolContext(
            run_id=run_id,
            call_id=call.id,
            idempotency_key=content_digest(f"{run_id}\0{call.id}").removeprefix("sha256:"),
        )
        pause = _FIRST_PAUSE
        for _ in range(tool.options.retries):
            answer = await self._registry.invoke(call.name, call.arguments, context)
            if answer.kind in (AnswerKind.RETURNED, AnswerKind.INVALID_ARGUMENTS):
                return answer.output
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        return (await self._registry.invoke(call.name, call.arguments, context)).output


def _seconds(tool: "Tool") -> float:
    tries = tool.options.retries + 1
    return tries * tool.options.timeout.total_seconds() + (tries - 1) * _LONGEST_PAUSE
