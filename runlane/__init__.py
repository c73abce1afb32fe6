"""Durable tool-calling runs on Temporal: `client = await Runlane.connect()`."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runlane.errors import RunlaneError
    from runlane.orchestrator import Runlane

__all__ = ["Runlane", "RunlaneError", "__version__"]

try:
    __version__ = version("runlane")
except PackageNotFoundError:  # run from a tree that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    # Importing Temporal's client takes half a second, and `runlane --version` needs none of it.
    if name == "Runlane":
        from runlane.orchestrator import Runlane  # noqa: PLC0415

        return Runlane
    if name == "RunlaneError":
        from runlane.errors import RunlaneError  # noqa: PLC0415

        return RunlaneError
    msg = f"module 'runlane' has no attribute {name!r}"
    raise AttributeError(msg)
