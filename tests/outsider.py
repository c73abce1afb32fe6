"""Somebody else at the upstream: what others do there, and what a test reads there by itself."""

from itertools import pairwise
from typing import Any

import httpx

from tests.lab import Lab


class Outsider:
    """A plain client of the lab's upstream that knows nothing of Runlane.

    Args:
        lab: Whose thread is meant.
    """

    def __init__(self, lab: Lab) -> None:
        self._simulator = lab.simulator
        self._thread_id = lab.thread_id
        self._http = httpx.Client(base_url=lab.simulator.url, trust_env=False, timeout=10)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def create(self, assistant_id: str, **body: Any) -> str:
        """Create a run on the thread and return its id."""
        return str(self._post("runs", {"assistant_id": assistant_id, **body})["id"])

    def submit(self, run_id: str, outputs: dict[str, str]) -> None:
        """Answer a run's calls."""
        listed = [{"tool_call_id": call_id, "output": out} for call_id, out in outputs.items()]
        self._post(f"runs/{run_id}/submit_tool_outputs", {"tool_outputs": listed})

    def force(self, run_id: str, status: str | None = None, **fields: Any) -> None:
        """Change a run behind everybody's back."""
        self._simulator.force(run_id, status, **fields)

    def runs(self) -> list[dict[str, Any]]:
        """Return the thread's runs with their steps, the oldest first."""
        found: list[dict[str, Any]] = self._simulator.thread(self._thread_id)["runs"]
        return found

    def run(self, run_id: str) -> dict[str, Any]:
        """Return one of the thread's runs."""
        return next(run for run in self.runs() if run["id"] == run_id)

    def texts(self, role: str) -> list[str]:
        """Return what that role has said on the thread."""
        messages = self._simulator.thread(self._thread_id)["messages"]
        return [m["content"][0]["text"]["value"] for m in messages if m["role"] == role]

    def requests(self, *operations: str) -> list[dict[str, Any]]:
        """Return the requests received for the thread, the oldest first, of these operations."""
        entries = self._simulator.requests(thread_id=self._thread_id)["data"]
        return [entry for entry in entries if not operations or entry["operation"] in operations]

    def bodies(self, operation: str) -> list[dict[str, Any]]:
        """Return the bodies of the requests that changed something."""
        return [entry["body"] for entry in self.requests(operation) if entry["accepted"]]

    def gaps(self, *operations: str) -> list[float]:
        """Return the seconds between requests."""
        times = [entry["at"] for entry in self.requests(*operations)]
        return [after - before for before, after in pairwise(times)]

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._http.post(f"/threads/{self._thread_id}/{path}", json=body)
        assert answer.is_success, f"{path}: {answer.status_code} {answer.text}"
        found: dict[str, Any] = answer.json()
        return found
