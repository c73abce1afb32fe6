"""The tools of one process, by name."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from runlane.errors import InvalidTool, ToolNotFound
from runlane.tools import answer
from runlane.tools.added import added
from runlane.tools.answer import AnswerKind, ToolAnswer
from runlane.tools.arguments import InvalidArguments
from runlane.tools.context import ToolContext
from runlane.tools.functions import tool_of
from runlane.tools.threads import NoThread
from runlane.tools.tool import Tool


class Registry:
    """Tools under their names. `Registry.of` takes functions; `load` takes what is configured."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        """Take tools.

        Raises:
            InvalidTool: two of them have one name.
        """
        self._tools: dict[str, Tool] = {}
        for each in tools:
            self._add(each)

    @classmethod
    def of(cls, *functions: Callable[..., Any]) -> "Registry":
        """Take functions that `@runlane.tool` declared.

        Raises:
            InvalidTool: one isn't a tool, or two have one name.
        """
        found = []
        for function in functions:
            declared = tool_of(function)
            if declared is None:
                raise InvalidTool(f"{function!r} is no tool: put @runlane.tool above it.")
            found.append(declared)
        return cls(found)

    def __iter__(self) -> Iterator[Tool]:
        """Iterate over the tools, by name."""
        return iter(self._tools[name] for name in sorted(self._tools))

    def __len__(self) -> int:
        """Return how many tools there are."""
        return len(self._tools)

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a tool of this name."""
        return name in self._tools

    def __getitem__(self, name: str) -> Tool:
        """Return a tool.

        Raises:
            ToolNotFound: there is none of this name.
        """
        try:
            return self._tools[name]
        except KeyError:
            known = ", ".join(sorted(self._tools)) or "none"
            text = f"No tool is called {name!r}; registered are: {known}."
            raise ToolNotFound(text, param="name") from None

    def definitions(self) -> list[dict[str, Any]]:
        """Return the tools as a run's `tools` take them, by name."""
        return [each.definition for each in self]

    def added_to(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return a create body with these tools after its own `tools`.

        Raises:
            InvalidRequest: there is no tool, a name comes twice, or there are too many.
        """
        return added(params, self.definitions())

    async def invoke(self, name: str, arguments: str, context: ToolContext) -> ToolAnswer:
        """Run a tool once, and return an answer whatever happens in it.

        Neither its policy nor its retries are looked at: that is the caller's.

        Args:
            name: of the tool.
            arguments: as the model wrote them, JSON.
            context: of the call.

        Raises:
            ToolNotFound: there is none of this name.
            NoThread: so many tools hang in this process that it runs no more; nothing ran.
        """
        tool = self[name]
        limit = asyncio.timeout(tool.options.timeout.total_seconds())
        try:
            checked = tool.read(arguments)
            async with limit:
                value = await tool.body.run(checked, context)
            return answer.returned(value)
        except InvalidArguments as error:
            return ToolAnswer(str(error), AnswerKind.INVALID_ARGUMENTS)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled us: something of the tool's own was cancelled.
            return answer.failed(name, error, context)
        except (KeyboardInterrupt, GeneratorExit, NoThread):
            raise
        except BaseException as error:
            # Extensions raise errors that are no `Exception`, and they too are the tool's own.
            if limit.expired():
                return answer.timed_out(name)
            return answer.failed(name, error, context)

    def _add(self, tool: Tool) -> None:
        other = self._tools.setdefault(tool.name, tool)
        if other is not tool:
            where = f"{other.body.source} and {tool.body.source}"
            raise InvalidTool(f"Two tools are called {tool.name}: {where}.", param="name")
