"""What the simulator received, so that a test can count how often something was really done."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any

KEPT = 100_000
"""Requests remembered; the oldest go first."""


@dataclass
class Entry:
    """One request to `/v1`."""

    at: float
    """Seconds since 1970."""
    operation: str
    method: str
    path: str
    thread_id: str | None
    run_id: str | None
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    """Those that tell how a client behaves; never a key."""
    body: Any = None
    status: int | None = None
    """What was answered; none while it is held, and where no answer was given."""
    accepted: bool = False
    """Whether it changed state, answered or not."""


class Journal:
    """The requests received, the newest last; without `bodies` (and headers) it stays small."""

    def __init__(self, *, bodies: bool = True) -> None:
        self.bodies = bodies
        self._entries: deque[Entry] = deque(maxlen=KEPT)

    def add(self, entry: Entry) -> None:
        """Note a request as it arrives; its outcome is filled in later."""
        if not self.bodies:
            entry.body, entry.headers = None, {}
        self._entries.append(entry)

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()

    def report(self, **wanted: str | None) -> dict[str, Any]:
        """Return the entries whose fields equal those wanted, and how many of each operation."""
        fields = {name: value for name, value in wanted.items() if value is not None}
        found = [
            entry
            for entry in self._entries
            if all(getattr(entry, name) == value for name, value in fields.items())
        ]
        return {
            "data": [asdict(entry) for entry in found],
            "counts": Counter(entry.operation for entry in found),
            "accepted": Counter(entry.operation for entry in found if entry.accepted),
        }
