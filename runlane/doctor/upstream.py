"""Whether the upstream answers, and takes the credentials."""

import importlib.util
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from temporalio.client import Client

from runlane.doctor.finding import Finding, problem
from runlane.errors import InvalidRequest
from runlane.settings import Settings, SettingsError, UpstreamAuth
from runlane.upstream import PROBE_THREAD, find_upstream, open_upstream
from runsapi import APIStatusError, Assistants, RunsAPIError
from runsapi.errors import is_quota


async def check_upstream(client: Client | None, settings: Settings) -> AsyncIterator[Finding]:
    """Ask the upstream that the settings name, else the namespace's own simulator."""
    name = "upstream"
    if settings.upstream_auth is UpstreamAuth.AZURE and _lacks("azure.identity"):
        yield problem(
            name, "RUNLANE_UPSTREAM_AUTH=azure needs an extra", "pip install 'runlane[azure]'"
        )
        return
    try:
        settings.read_upstream_api_key()
        upstream = await _upstream(client, settings)
    except InvalidRequest:
        yield Finding(
            name,
            "note",
            "not checked: RUNLANE_UPSTREAM_URL is not set here; only workers need it",
        )
        return
    except (SettingsError, RunsAPIError) as error:
        yield problem(name, str(error), "")
        return
    async with upstream:
        yield await _probe(upstream)


async def upstream_problem(settings: Settings) -> Finding | None:
    """Return what is wrong with the upstream that the settings name, if anything is."""
    async for finding in check_upstream(None, settings):
        if finding.level == "problem":
            return finding
    return None


async def _upstream(client: Client | None, settings: Settings) -> Assistants:
    if client is None:
        return open_upstream(settings)
    return await find_upstream(client, settings)


async def _probe(upstream: Assistants) -> Finding:
    """List the runs of a thread that nobody has: the cheapest question with a telling answer."""
    name = "upstream"
    listed: Callable[..., Any] = upstream.runs.with_response.list
    try:
        answer = await listed(PROBE_THREAD, limit=1)
        headers: Mapping[str, str] = answer.headers
    except APIStatusError as error:
        headers = error.headers
        if error.status_code in (401, 403):
            return problem(
                name,
                f"{upstream.url} refuses the credentials: {error.message}",
                "Set RUNLANE_UPSTREAM_API_KEY (or its _FILE), and RUNLANE_UPSTREAM_AUTH to the "
                "way it is sent: bearer, api-key or azure.",
            )
        if error.status_code == 404 and not _knows_threads(error):
            return problem(
                name,
                f"{upstream.url} answers 404: {error.message}",
                "Check the path of RUNLANE_UPSTREAM_URL: /threads must follow it. OpenAI's own "
                "service has had none since August 2026.",
            )
        if error.status_code < 400:
            return problem(
                name,
                f"{upstream.url} answers {error.status_code}, a redirect",
                "Check RUNLANE_UPSTREAM_URL: redirects are not followed, so that the key isn't.",
            )
        if error.status_code >= 500 or error.status_code == 429:
            remedy = "Try again later."
            if is_quota(error):
                remedy = "Raise the upstream account's quota or mend its billing."
            text = f"{upstream.url} answers {error.status_code}: {error.message}"
            return problem(name, text, remedy)
    except RunsAPIError as error:
        return problem(name, _located(error, upstream), "Check RUNLANE_UPSTREAM_URL.")
    simulated = "; simulated, no model is asked" if "x-runlane-simulator" in headers else ""
    return Finding(name, "ok", f"{upstream.url} answers and takes the credentials{simulated}")


def _located(error: RunsAPIError, upstream: Assistants) -> str:
    """Return what the error says, with the address, which most of them name."""
    text = str(error)
    return text if upstream.url in text else f"{upstream.url}: {text}"


def _knows_threads(error: APIStatusError) -> bool:
    # "No thread found with id …" is what a server says that has threads, only not this one.
    return "thread" in error.message.lower()


def _lacks(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except ModuleNotFoundError:
        return True
