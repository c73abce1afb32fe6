"""Registered tools beside those that a create body brings."""

from collections.abc import Mapping, Sequence
from typing import Any

from runlane.errors import InvalidRequest
from runsapi.limits import MAX_TOOLS


def added(params: Mapping[str, Any], definitions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a create body with registered tools after its own `tools`.

    Args:
        params: the body; its `tools` are a list, if there are any.
        definitions: the tools, as a run takes them.

    Raises:
        InvalidRequest: there is no tool, a name comes twice, or there are too many.
    """
    if not definitions:
        text = "No tool is registered: name modules in RUNLANE_TOOLS, or tools in runlane.toml."
        raise InvalidRequest(text, param="with_tools")
    given = list(params.get("tools") or [])
    known = {_function_name(each) for each in definitions}
    for name in filter(None, map(_function_name, given)):
        if name in known:
            text = f"The tool {name} is given in tools, and registered too. Leave out one."
            raise InvalidRequest(text, param="tools")
    tools = [*given, *definitions]
    if len(tools) > MAX_TOOLS:
        registered = f"{len(definitions)} of them registered"
        text = f"A run takes at most {MAX_TOOLS} tools; these are {len(tools)}, {registered}."
        raise InvalidRequest(text, param="tools")
    return {**params, "tools": tools}


def _function_name(tool: object) -> str | None:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) else None
