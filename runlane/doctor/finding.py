"""What a check says: one shape for all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    level: Literal["ok", "note", "problem"]
    message: str
    remedy: str = ""
    """What to do; empty when nothing is."""

    def as_json(self) -> Mapping[str, Any]:
        """Return the finding as it stands in the document of `doctor --json`."""
        return {
            "check": self.check,
            "level": self.level,
            "message": self.message,
            "remedy": self.remedy or None,
        }


def problem(check: str, message: str, remedy: str) -> Finding:
    """Return a finding that is to be mended."""
    return Finding(check, "problem", message, remedy)
