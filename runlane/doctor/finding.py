"""What a check says: one shape for all of them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Fix:
    """What `doctor --fix` does about a finding, once it is allowed to."""

    what: str
    """In the imperative: `cancel upstream run run_1 of run_2`."""
    apply: Callable[[], Awaitable[str]]
    """Does it, and returns what came of it; raises what the parts it asks raise."""


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    level: Literal["ok", "note", "problem"]
    message: str
    remedy: str = ""
    """What to do; empty when nothing is."""
    fix: Fix | None = None
    """What can be done from here."""

    def as_json(self) -> Mapping[str, Any]:
        """Return the finding as it stands in the document of `doctor --json`."""
        return {
            "check": self.check,
            "level": self.level,
            "message": self.message,
            "remedy": self.remedy or None,
            "fix": None if self.fix is None else self.fix.what,
        }


def problem(check: str, message: str, remedy: str) -> Finding:
    """Return a finding that is to be mended."""
    return Finding(check, "problem", message, remedy)
