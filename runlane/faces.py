"""Where a command's decisions and stops are taken: by the API, where there is one, or here.

The API is the one of `RUNLANE_API_URL`, or that of the `up` which a command talks to. Elsewhere the
command is a face of its own, with a key of its own.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from runlane import own_api
from runlane.api_approvals import ApiApprovals, Told
from runlane.api_client import ApiClient
from runlane.api_stops import ApiStops
from runlane.approvals import Approvals, Decided
from runlane.orchestrator import Runlane
from runlane.settings import Settings
from runlane.stops import Stops
from runlane.temporal import connect, find_data_dir

__all__ = ["Decided", "Face", "Told", "deciding", "stopping"]


@dataclass(frozen=True)
class Face:
    """What takes them."""

    settings: Settings
    approvals: Approvals | ApiApprovals
    stops: Stops | ApiStops


@asynccontextmanager
async def deciding(settings: Settings) -> AsyncIterator[Face]:
    """Open the face that takes decisions.

    Raises:
        RunlaneError: Temporal doesn't answer.
        SettingsError: a variable can't be used.
    """
    api = ApiClient.named(settings)
    if api is not None:
        async with api:
            yield _through(settings, api)
        return
    client = await Runlane.connect(settings)
    data_dir = settings.data_dir or await find_data_dir(client.temporal)
    api = await own_api.find(settings, data_dir)
    if api is not None:
        async with api:
            yield _through(settings, api)
        return
    approvals = Approvals(client.temporal, settings, face="cli")
    yield Face(settings, approvals, client.stops)


@asynccontextmanager
async def stopping(settings: Settings) -> AsyncIterator[Stops | ApiStops]:
    """Open what orders stops. Temporal is asked only where nobody else says where the ledger is.

    Raises:
        RunlaneError: Temporal was to be asked, and doesn't answer.
        SettingsError: a variable can't be used.
    """
    api = ApiClient.named(settings)
    client = None
    if api is None:
        data_dir = settings.data_dir
        if data_dir is None and settings.read_database_url() is None:
            client = await connect(settings)
            data_dir = await find_data_dir(client)
        api = await own_api.find(settings, data_dir)
    if api is None:
        yield Stops(settings, client)
        return
    async with api:
        yield ApiStops(api)


def _through(settings: Settings, api: ApiClient) -> Face:
    return Face(settings, ApiApprovals(api), ApiStops(api))
