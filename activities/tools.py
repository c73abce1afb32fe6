"""Calls of tools that a worker has: who answers each, and running those that only read.

What a tool does is `runlane`'s; an activity is handed the tools of its process as a `Toolbox`.
"""

import asyncio
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict
from temporalio import activity

from activities.heartbeat import heartbeating


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Call(_Model):
    """A tool call, as the upstream asks for it."""

    id: str
    name: str
    arguments: str


class Handling(_Model):
    """Who answers a call."""

    by: Literal["worker", "caller"]
    """`worker`: its tool only reads and needs nobody. `caller`: whoever submits outputs."""
    output: str | None = None
    """The answer, where nothing has to run: to arguments that the model may mend."""
    timeout: float = 0.0
    """Seconds that the worker has for it, with all its tries."""


class ClassifyInput(_Model):
    """Input of `tools.classify`."""

    calls: list[Call]


class Classified(_Model):
    """Result of `tools.classify`: by call id."""

    calls: dict[str, Handling]


class CallInput(_Model):
    """Input of `tools.call`."""

    run_id: str
    """Ours."""
    call: Call


class Called(_Model):
    """Result of `tools.call`."""

    output: str | None
    """None: this worker hasn't got the tool, or it isn't the worker's to run any more."""


class Toolbox(Protocol):
    """The tools of this process."""

    def handling(self, call: Call) -> Handling:
        """Say who answers a call; may block, for a policy is anybody's code."""

    async def answer(self, run_id: str, call: Call) -> str:
        """Run a call's tool and return the output, whatever happens in it."""


class NoTools:
    """The toolbox of a worker that has no tools."""

    def handling(self, call: Call) -> Handling:
        """Leave each call to the caller."""
        return Handling(by="caller")

    async def answer(self, run_id: str, call: Call) -> str:
        """Never asked for."""
        raise LookupError(call.name)


class ToolActivities:
    """The activities of one worker's tools."""

    def __init__(self, toolbox: Toolbox | None = None) -> None:
        self._toolbox = toolbox or NoTools()

    @activity.defn(name="tools.classify")
    async def classify(self, input: ClassifyInput) -> Classified:
        """Say who answers each of a round's calls."""
        handled = [await asyncio.to_thread(self._toolbox.handling, call) for call in input.calls]
        return Classified(
            calls={call.id: each for call, each in zip(input.calls, handled, strict=True)}
        )

    @activity.defn(name="tools.call")
    async def call(self, input: CallInput) -> Called:
        """Answer one call. It may be run again elsewhere: only what reads gets here."""
        async with heartbeating():
            # Asked again, for the worker that classified it may have had other tools.
            handling = await asyncio.to_thread(self._toolbox.handling, input.call)
            if handling.by != "worker":
                return Called(output=None)
            if handling.output is not None:
                return Called(output=handling.output)
            return Called(output=await self._toolbox.answer(input.run_id, input.call))
