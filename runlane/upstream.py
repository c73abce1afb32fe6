"""The connection to the upstream that the settings, or an embedded server's namespace, name."""

from temporalio.client import Client

from runlane.errors import InvalidRequest
from runlane.settings import Settings, UpstreamAuth
from runlane.workers import namespace_data
from runsapi import (
    APIStatusError,
    Assistants,
    AzureKey,
    Credentials,
    CredentialsError,
    FileKey,
    OnExchange,
    RunsAPIError,
    StaticKey,
)

UPSTREAM_URL_KEY = "runlane_upstream_url"
"""In a namespace's `data`: the simulator that runs beside its embedded server."""

PROBE_THREAD = "thread_runlane_doctor"
"""A thread that nobody has: its runs are the cheapest question with a telling answer."""


def open_upstream(settings: Settings, *, on_exchange: OnExchange = lambda _: None) -> Assistants:
    """Return the connection to the upstream that the settings name; close it in the end.

    Args:
        settings: with the upstream's address and key.
        on_exchange: told of each request that ended.

    Raises:
        InvalidRequest: they name none.
    """
    if settings.upstream_url is None:
        raise InvalidRequest(
            "RUNLANE_UPSTREAM_URL is not set, so this process doesn't know where runs are "
            "executed. Set it (and RUNLANE_UPSTREAM_API_KEY), or try everything with "
            "`runlane up --simulate`.",
            param="RUNLANE_UPSTREAM_URL",
        )
    return Assistants(
        settings.upstream_url,
        credentials=_credentials(settings),
        auth=settings.upstream_auth.value,
        api_version=settings.upstream_api_version,
        timeout=settings.upstream_timeout.total_seconds(),
        max_concurrency=settings.upstream_max_concurrency,
        rps=settings.upstream_rps,
        on_exchange=on_exchange,
    )


async def find_upstream(client: Client, settings: Settings) -> Assistants:
    """Return the connection the settings name, else the one to the namespace's own simulator.

    Raises:
        InvalidRequest: there is neither.
    """
    if settings.upstream_url is None:
        url = (await namespace_data(client)).get(UPSTREAM_URL_KEY)
        if url:
            # No credentials: whoever may write a namespace's data must not get hold of our key.
            return Assistants(url)
    return open_upstream(settings)


async def takes_credentials(upstream: Assistants) -> bool | None:
    """Ask whether the upstream takes the credentials; None where it doesn't say.

    It is asked for the runs of a thread that nobody has, which changes nothing.
    """
    try:
        await upstream.runs.list(PROBE_THREAD, limit=1)
    except APIStatusError as error:
        if error.status_code in (401, 403):
            return False
        # A refusal that is about something else has read the key.
        return True if error.status_code in (400, 404) else None
    except CredentialsError:
        return False
    except RunsAPIError:
        return None
    return True


def _credentials(settings: Settings) -> Credentials | None:
    if settings.upstream_auth is UpstreamAuth.AZURE:
        return AzureKey()
    if settings.upstream_api_key_file is not None:
        return FileKey(settings.upstream_api_key_file)
    if settings.upstream_api_key is not None:
        return StaticKey(settings.upstream_api_key)
    return None
