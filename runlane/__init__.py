"""Durable tool-calling runs on Temporal: `client = await Runlane.connect()`, and `@tool`."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runlane.errors import RunlaneError
    from runlane.orchestrator import Runlane
    from runlane.tools.calendar import Calendar
    from runlane.tools.context import ToolContext
    from runlane.tools.functions import tool
    from runlane.tools.registry import Registry

__all__ = ["Calendar", "Registry", "Runlane", "RunlaneError", "ToolContext", "__version__", "tool"]

_HOMES = {
    "Calendar": "runlane.tools.calendar",
    "Registry": "runlane.tools.registry",
    "Runlane": "runlane.orchestrator",
    "RunlaneError": "runlane.errors",
    "ToolContext": "runlane.tools.context",
    "tool": "runlane.tools.functions",
}

try:
    __version__ = version("runlane")
except PackageNotFoundError:  # run from a tree that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    # Importing Temporal's client takes half a second, and `runlane --version` needs none of it.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    msg = f"module 'runlane' has no attribute {name!r}"
    raise AttributeError(msg)
