"""A tool: what a model is told of it, how its calls are checked, and who may let them through."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from runlane.errors import InvalidTool
from runlane.tools.context import ToolContext
from runlane.tools.options import ToolOptions
from runlane.tools.policy import Verdict, decide
from workflows.contract import canonical_json, content_digest

MAX_DESCRIPTION = 4096
"""Characters. Upstreams differ in what they take; a model reads all of it in every round."""

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class ToolBody(Protocol):
    """What a tool does: a function, or an HTTP request."""

    @property
    def kind(self) -> str:
        """`function` or `http`."""

    @property
    def source(self) -> str:
        """Where it was declared, for people."""

    def missing_variables(self) -> list[str]:
        """Return the variables that it refers to and that aren't set here."""

    def read(self, tool: str, text: str) -> dict[str, Any]:
        """Check a call's arguments and return them by name; raise `InvalidArguments`."""

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> object:
        """Do the work and return what the model is to get; raise whatever goes wrong."""


@dataclass(frozen=True, eq=False)
class Tool:
    """A tool under its name, checked."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """The JSON schema of its arguments."""
    options: ToolOptions
    body: ToolBody

    def __post_init__(self) -> None:
        """Refuse what no upstream takes."""
        if not _NAME.fullmatch(self.name):
            text = f"Tool {self.name!r}: name must have 1 to 64 characters out of a-z, A-Z, 0-9, _ "
            raise InvalidTool(f"{text}and -.", param="name")
        if not self.description.strip():
            text = f"Tool {self.name}: description is missing: a model must know what it is for."
            raise InvalidTool(text, param="description")
        if len(self.description) > MAX_DESCRIPTION:
            limit = f"at most {MAX_DESCRIPTION:,} characters, and has {len(self.description):,}"
            text = f"Tool {self.name}: description must have {limit}."
            raise InvalidTool(text, param="description")

    @cached_property
    def definition(self) -> dict[str, Any]:
        """The tool as a run's `tools` take it."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }
        return {"type": "function", "function": function}

    @cached_property
    def digest(self) -> str:
        """The digest of all that a model is told: `sha256:…`. Another one is another tool."""
        return content_digest(canonical_json(self.definition["function"]))

    def read(self, arguments: str) -> dict[str, Any]:
        """Check a call's arguments, given as JSON, and return them by name.

        Raises:
            InvalidArguments: they don't fit; the message is an answer for the model.
        """
        return self.body.read(self.name, arguments)

    def classify(self, arguments: Mapping[str, Any]) -> Verdict:
        """Tell whether a call with these checked arguments needs a person, and why."""
        return decide(self.options.policy, arguments)
