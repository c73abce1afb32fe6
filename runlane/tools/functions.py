"""Tools that are Python functions: `@runlane.tool`."""

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import time, timedelta
from typing import Any, Literal, ParamSpec, TypeVar, overload

from runlane.errors import InvalidTool
from runlane.tools.calendar import Calendar
from runlane.tools.context import ToolContext
from runlane.tools.options import ToolOptions
from runlane.tools.policy import Policy, PolicyFunction
from runlane.tools.signature import Signature, signature_of
from runlane.tools.threads import in_thread
from runlane.tools.tool import Tool

_ATTRIBUTE = "__runlane_tool__"

_P = ParamSpec("_P")
_R = TypeVar("_R")


@overload
def tool(function: Callable[_P, _R], /) -> Callable[_P, _R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    policy: Policy | Literal["auto", "approve"] | PolicyFunction | None = None,
    read_only: bool = False,
    approvers: Iterable[str] | None = None,
    groups: Iterable[str] | None = None,
    approvals: int = 1,
    requester_may_approve: bool | None = None,
    deadline: timedelta | float | str | time | None = None,
    outcome: Literal["reject", "fail", "escalate"] | None = None,
    calendar: Calendar | None = None,
    reminders: Iterable[timedelta | float | str] | None = None,
    timeout: timedelta | float | str | None = None,
    retries: int = 0,
    at_most_once: bool = False,
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]: ...


def tool(function: Any = None, /, **given: Any) -> Any:
    """Declare a function to be a tool. The function itself stays as it is, and can be called.

    Its parameters' types become the JSON schema that a model gets. What the docstring says of it,
    and of each parameter under `Args:`, goes along. A parameter of type `ToolContext` doesn't.

    Args:
        function: sync or async; a sync one runs in a thread.
        **given: the options.

            name: default: the function's.
            description: default: the docstring without its sections.
            policy: `auto`, `approve`, or a function that takes the arguments by name and returns
                one of these, or one and the reason. Default: nobody classified the tool, and its
                calls need approval.
            read_only: it changes nothing outside.
            approvers: the people who may approve.
            groups: their groups, in the order in which they are asked.
            approvals: how many people must approve; default 1.
            deadline: for the approval: a `timedelta`, seconds, `"4h"`, or a time of day with zone,
                `"17:00 Europe/Berlin"`.
            outcome: when it passes: `reject` (default), `fail`, or `escalate` to the next group.
            calendar: the business hours that deadline and reminders count.
            reminders: how long after it was asked for a call that still waits is called to mind:
                durations such as `"1h"`.
            timeout: of one attempt; default 60 s, at most 24 h.
            retries: attempts after one that failed; default 0.
            at_most_once: it must never begin twice.

    Raises:
        InvalidTool: an option or a parameter can't be used; the message names it and its limit.
    """
    if function is None:
        return functools.partial(_declared, given=given)
    if given or not callable(function):
        raise TypeError("write @tool, or @tool(option=…)")
    return _declared(function, given={})


def tool_of(function: object) -> Tool | None:
    """Return the tool that a function was declared to be.

    Raises:
        InvalidTool: it is wrapped around such a function, and would be left out.
    """
    found = None
    # Not every object may be asked for an attribute in peace: modules hold proxies of all kinds.
    with contextlib.suppress(Exception):
        found = getattr(function, _ATTRIBUTE, None)
    if not isinstance(found, Tool):
        return None
    if isinstance(found.body, Function) and found.body.function is not function:
        text = f"Tool {found.name}: put @runlane.tool above its other decorators, or they are left "
        raise InvalidTool(f"{text}out.", param="function")
    return found


def _declared(function: Any, *, given: dict[str, Any]) -> Any:
    if not inspect.isfunction(function):
        raise InvalidTool(f"{function!r} is no function; @tool takes functions.", param="function")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        text = f"Tool {function.__name__}: it yields; a tool returns what the model is to get."
        raise InvalidTool(text, param="function")
    options = {key: value for key, value in given.items() if value is not None}
    name = options.pop("name", function.__name__)
    description = options.pop("description", None)
    for option, value in (("name", name), ("description", description)):
        if value is not None and not isinstance(value, str):
            text = f"Tool {function.__name__}: {option} must be a string."
            raise InvalidTool(text, param=option)
    signature = signature_of(name, function)
    declared = Tool(
        name=name,
        description=signature.description if description is None else description,
        parameters=signature.parameters,
        options=ToolOptions.read(name, options),
        body=Function(function, signature),
    )
    setattr(function, _ATTRIBUTE, declared)
    return function


@dataclass(frozen=True)
class Function:
    """A function as what a tool does."""

    function: Callable[..., Any]
    signature: Signature
    kind = "function"

    @property
    def source(self) -> str:
        """The function's module and name."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    def missing_variables(self) -> list[str]:
        """Return none: what a function reads is its own affair."""
        return []

    def read(self, tool: str, text: str) -> dict[str, Any]:
        """Check a call's arguments against the function's parameters."""
        return self.signature.read(tool, text)

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> object:
        """Call the function; a sync one in a thread, which goes on where the wait is given up."""
        if inspect.iscoroutinefunction(self.function):
            return await self.function(**self._with_context(arguments, context))
        loop = asyncio.get_running_loop()
        given = self._with_context(arguments, _from_thread(context, loop))
        value = await in_thread(functools.partial(self.function, **given))
        # A decorator may have made a sync function of an async one.
        return await value if inspect.isawaitable(value) else value

    def _with_context(self, arguments: Mapping[str, Any], context: ToolContext) -> dict[str, Any]:
        name = self.signature.context
        return {**arguments} if name is None else {**arguments, name: context}


def _from_thread(context: ToolContext, loop: asyncio.AbstractEventLoop) -> ToolContext:
    def report(progress: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended; the thread goes on
            loop.call_soon_threadsafe(context.report, progress)

    return replace(context, reporter=report)
