"""The kill switch through the API: what `Stops` does itself."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ledger.stops import Scope, Stop
from runlane.api_client import ApiClient
from runlane.errors import RunlaneError
from runlane.stops import Ordered, Seen


class ApiStops:
    """Ordering stops, listing them, and resuming, by a token.

    Every method raises what those of `runlane.stops.Stops` do, and what `ApiClient` does.
    """

    def __init__(self, api: ApiClient) -> None:
        """Ask this API."""
        self._api = api

    async def stop(
        self,
        *,
        all: bool = False,
        tool: str | None = None,
        run_id: str | None = None,
        reason: str,
    ) -> Ordered:
        """Let nothing begin any more: of everything, of a tool's runs, or of one run."""
        named = {"all": all, "tool": tool, "run_id": run_id, "reason": reason}
        document = await self._api.post("/stops", json=named)
        return Ordered(_stop(document), is_new=bool(document["new"]))

    async def resume(
        self, *, all: bool = False, tool: str | None = None, run_id: str | None = None
    ) -> Stop:
        """End a stop and return it."""
        named = {"all": all, "tool": tool, "run_id": run_id}
        return _stop(await self._api.post("/stops/resume", json=named))

    async def list(self) -> Sequence[Stop]:
        """Return the stops that stand and that the token's person may see, the oldest first."""
        return [_stop(each) for each in (await self._api.get("/stops"))["data"]]

    async def tools(self) -> Sequence[str]:
        """Return the names of the tools that the API knows."""
        return [str(each["name"]) for each in (await self._api.get("/tools"))["data"]]

    async def seen(self) -> Seen:
        """Return the stops that can be seen from here; what was asked for is there without, too."""
        try:
            return Seen(await self.list())
        except RunlaneError as error:
            return Seen(problem=str(error))


def _stop(document: Mapping[str, Any]) -> Stop:
    return Stop(
        scope=Scope(document["scope"]),
        target=document["target"] or "",
        by=document["by"],
        reason=document["reason"],
        since=datetime.fromtimestamp(document["since_at"], UTC),
    )
