"""Calls that wait for people, listed and decided through the API: what `Approvals` does itself.

Whoever decides is the token's person there, whatever is said here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from runlane.api_client import ApiClient
from runlane.approvals import MAX_LIMIT
from runlane.errors import InvalidRequest
from runlane.waiting_calls import WaitingCall
from workflows.contract import PendingCall

ANY_RUN = "-"
"""Stands in a path where the run isn't said: the one that has such a call."""

_PAGE = 100


@dataclass(frozen=True)
class Told:
    """What became of a decision, as the API tells it."""

    document: Mapping[str, Any]

    @property
    def run_id(self) -> str:
        """The call's run."""
        return str(self.document["run_id"])

    @property
    def kind(self) -> str:
        """What was said."""
        return str(self.document["kind"])

    @property
    def by(self) -> str:
        """The person."""
        return str(self.document["by"])

    @property
    def state(self) -> str:
        """`counted`, or `checking` where no worker has verified it yet."""
        return str(self.document["state"])

    @property
    def call(self) -> PendingCall | None:
        """As it waits on; none where it waits no more."""
        found = self.document["call"]
        return None if found is None else PendingCall.model_validate(found)

    def as_json(self) -> Mapping[str, Any]:
        """Return it as `--json` prints it."""
        return self.document


class ApiApprovals:
    """Listing calls that wait for people, and deciding them, by a token.

    Every method raises what those of `runlane.approvals.Approvals` do, and what `ApiClient` does.
    """

    def __init__(self, api: ApiClient) -> None:
        """Ask this API."""
        self._api = api

    async def list(
        self,
        *,
        tool: str | None = None,
        group: str | None = None,
        run_id: str | None = None,
        older_than: timedelta | None = None,
        limit: int = 100,
    ) -> Sequence[WaitingCall]:
        """Return the calls that the token's person may see, the longest first."""
        if not 1 <= limit <= MAX_LIMIT:
            text = f"limit must be between 1 and {MAX_LIMIT:,}, got {limit}."
            raise InvalidRequest(text, param="limit")
        asked = {
            "tool": tool,
            "group": group,
            "run_id": run_id,
            "older_than": None if older_than is None else older_than.total_seconds(),
        }
        found: list[WaitingCall] = []
        after = None
        while len(found) < limit:
            size = min(_PAGE, limit - len(found))
            page = await self._api.get(
                "/approvals", params={**asked, "limit": size, "after": after}
            )
            found += [_waiting(each) for each in page["data"]]
            after = page["last_id"]
            if not page["has_more"]:
                break
        return found

    async def retrieve(self, tool_call_id: str, *, run_id: str | None = None) -> WaitingCall:
        """Return a call as its run knows it now."""
        return _waiting(await self._api.get(_path(run_id, tool_call_id)))

    async def approve(
        self,
        tool_call_id: str,
        *,
        run_id: str | None = None,
        arguments: Mapping[str, Any] | str | None = None,
        note: str | None = None,
        for_rest_of_run: bool = False,
    ) -> Told:
        """Let a call run."""
        said = {"arguments": arguments, "note": note, "for_rest_of_run": for_rest_of_run}
        return await self._decide("approve", tool_call_id, run_id, said)

    async def reject(self, tool_call_id: str, *, reason: str, run_id: str | None = None) -> Told:
        """Refuse a call; the model is told the reason."""
        return await self._decide("reject", tool_call_id, run_id, {"reason": reason})

    async def answer(
        self,
        tool_call_id: str,
        *,
        output: str,
        note: str | None = None,
        run_id: str | None = None,
    ) -> Told:
        """Give a call's output in the tool's place."""
        return await self._decide("answer", tool_call_id, run_id, {"output": output, "note": note})

    async def claim(self, tool_call_id: str, *, run_id: str | None = None) -> Told:
        """Look after a call for an hour, so that nobody else decides it."""
        return await self._decide("claim", tool_call_id, run_id)

    async def release(self, tool_call_id: str, *, run_id: str | None = None) -> Told:
        """Look after a call no more."""
        return await self._decide("release", tool_call_id, run_id)

    async def revoke(self, tool_call_id: str, *, run_id: str | None = None) -> Told:
        """Take back what was approved for the rest of the run on a call."""
        return await self._decide("revoke", tool_call_id, run_id)

    async def _decide(
        self,
        what: str,
        tool_call_id: str,
        run_id: str | None,
        said: Mapping[str, Any] | None = None,
    ) -> Told:
        return Told(await self._api.post(f"{_path(run_id, tool_call_id)}/{what}", json=said))


def _path(run_id: str | None, tool_call_id: str) -> str:
    return f"/approvals/{quote(run_id or ANY_RUN, safe='')}/{quote(tool_call_id, safe='')}"


def _waiting(document: Mapping[str, Any]) -> WaitingCall:
    return WaitingCall(str(document["run_id"]), PendingCall.model_validate(document))
