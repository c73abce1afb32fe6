"""Checks an installation from where it is called, and says what to do about what it finds."""

import importlib.util
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    GetClusterInfoRequest,
    GetSystemInfoRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError

import runlane
from runlane import search_attributes, temporal, workers
from runlane.durations import format_duration
from runlane.errors import InvalidRequest, NamespaceMissing, TemporalUnreachable
from runlane.payload_store import FilePayloadStore
from runlane.settings import Settings, SettingsError, UpstreamAuth
from runlane.upstream import find_upstream, open_upstream
from runlane.workers import namespace_data
from runsapi import APIConnectionError, APIStatusError, Assistants, RunsAPIError
from workflows.contract import poll_task_queue

KEPT_FOR = timedelta(days=30)
"""How long closed runs, and with them idempotency keys, should be remembered."""

_PROBE_THREAD = "thread_runlane_doctor"
_RPC_TIMEOUT = timedelta(seconds=5)
_PACKAGES = ("temporalio", "httpx", "pydantic")


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


async def examine(settings: Settings) -> list[Finding]:
    """Check everything that can be checked from here; nothing is changed or created."""
    return [finding async for finding in _findings(settings)]


async def _findings(settings: Settings) -> AsyncIterator[Finding]:
    yield _versions()
    try:
        client = await temporal.connect(settings)
    except NamespaceMissing as error:
        yield Finding("temporal", "ok", "answers")
        yield _problem("namespace", error.message, "")
        client = None
    except (TemporalUnreachable, SettingsError) as error:
        yield _problem("temporal", str(error), "")
        client = None
    if client is not None:
        async for finding in _temporal_findings(client, settings):
            yield finding
    else:
        yield Finding("workers", "note", "not checked: Temporal comes first")
    async for finding in _upstream_findings(client, settings):
        yield finding


async def _temporal_findings(client: Client, settings: Settings) -> AsyncIterator[Finding]:
    yield await _server(client)
    yield await _retention(client)
    yield await _attributes(client)
    for name, queue, activities in (
        ("workers", settings.task_queue, False),
        ("workers, polls", poll_task_queue(settings.task_queue), True),
    ):
        yield await _workers(client, name, queue, activities=activities)
    yield await _payloads(client, settings)


def _versions() -> Finding:
    found = [f"runlane {runlane.__version__}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} missing")
    return Finding("versions", "ok", ", ".join(found))


async def _server(client: Client) -> Finding:
    address = client.service_client.config.target_host
    try:
        info = await client.workflow_service.get_system_info(
            GetSystemInfoRequest(), timeout=_RPC_TIMEOUT
        )
        number = info.server_version
        cluster = await client.workflow_service.get_cluster_info(
            GetClusterInfoRequest(), timeout=_RPC_TIMEOUT
        )
        number = cluster.server_version or number
    except RPCError:
        return Finding("temporal", "ok", f"answers at {address}")
    return Finding("temporal", "ok", f"answers at {address}, version {number}")


async def _retention(client: Client) -> Finding:
    request = DescribeNamespaceRequest(namespace=client.namespace)
    try:
        answer = await client.workflow_service.describe_namespace(request, timeout=_RPC_TIMEOUT)
    except RPCError as error:
        return Finding(
            "namespace", "note", f"{client.namespace}: may not be described ({error.message})"
        )
    kept = answer.config.workflow_execution_retention_ttl.ToTimedelta()
    shown = format_duration(kept)
    message = f"{client.namespace} remembers ended runs and idempotency keys for {shown}"
    if kept >= KEPT_FOR:
        return Finding("namespace", "ok", message)
    return _problem(
        "namespace",
        message,
        "The same key starts a new run after that. Keep them longer: temporal operator namespace "
        f"update -n {client.namespace} --retention 30d",
    )


async def _attributes(client: Client) -> Finding:
    name = "search attributes"
    try:
        there = await search_attributes.registered(client)
    except RPCError as error:
        return _problem(name, f"can't be asked for: {error.message}", "See Temporal's log.")
    if there:
        return Finding(name, "ok", ", ".join(search_attributes.TYPES))
    commands = "\n".join(search_attributes.commands(client.namespace))
    return _problem(
        name, "not registered", f"Start a worker where it may, or run one of:\n{commands}"
    )


async def _workers(client: Client, name: str, queue: str, *, activities: bool) -> Finding:
    seen = await workers.last_seen(client, queue, activities=activities)
    if seen is not None and workers.is_fresh(seen):
        ago = max(0, round(time.time() - seen))
        return Finding(name, "ok", f"on queue {queue}, last heard of {ago} s ago")
    when = (
        "none within the last five minutes"
        if seen is None
        else f"none since {datetime.fromtimestamp(seen, UTC).astimezone():%H:%M:%S}"
    )
    return _problem(
        name, f"{when} on queue {queue}", "Start one: runlane worker (or everything: runlane up)"
    )


async def _payloads(client: Client, settings: Settings) -> Finding:
    name = "big payloads"
    if settings.payload_store is not None:
        if importlib.util.find_spec("aiobotocore") is None:
            return _problem(name, "S3 needs an extra", "pip install 'runlane[s3]'")
        return Finding(name, "ok", f"in {settings.payload_store}")
    storage = client.data_converter.external_storage
    drivers = () if storage is None else storage.drivers
    if any(isinstance(driver, FilePayloadStore) for driver in drivers):
        data_dir = settings.data_dir or Path((await namespace_data(client))[temporal.DATA_DIR_KEY])
        directory = temporal.payload_directory(data_dir)
        if _writable(directory):
            return Finding(name, "ok", f"in {directory}")
        return _problem(name, f"{directory} is not writable", "Make it writable for this user.")
    return Finding(
        name,
        "note",
        "nowhere: a request or an answer over 1 MB is refused",
        "Set RUNLANE_DATA_DIR to a directory shared with the workers, or RUNLANE_PAYLOAD_STORE.",
    )


async def _upstream_findings(client: Client | None, settings: Settings) -> AsyncIterator[Finding]:
    name = "upstream"
    if settings.upstream_auth is UpstreamAuth.AZURE and _lacks("azure.identity"):
        yield _problem(
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
        yield _problem(name, str(error), "")
        return
    async with upstream:
        yield await _probe(upstream)


async def upstream_problem(settings: Settings) -> Finding | None:
    """Return what is wrong with the upstream that the settings name, if anything is."""
    async for finding in _upstream_findings(None, settings):
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
        answer = await listed(_PROBE_THREAD, limit=1)
        headers: Mapping[str, str] = answer.headers
    except APIStatusError as error:
        headers = error.headers
        if error.status_code in (401, 403):
            return _problem(
                name,
                f"{upstream.url} refuses the credentials: {error.message}",
                "Set RUNLANE_UPSTREAM_API_KEY (or its _FILE), and RUNLANE_UPSTREAM_AUTH to the "
                "way it is sent: bearer, api-key or azure.",
            )
        if error.status_code == 404 and not _knows_threads(error):
            return _problem(
                name,
                f"{upstream.url} answers 404: {error.message}",
                "Check the path of RUNLANE_UPSTREAM_URL: /threads must follow it. OpenAI's own "
                "service has had none since August 2026.",
            )
        if error.status_code >= 500 or error.status_code == 429:
            return _problem(name, f"{upstream.url} answers {error}", "Try again later.")
    except APIConnectionError as error:
        return _problem(
            name, f"{upstream.url} doesn't answer: {error}", "Check RUNLANE_UPSTREAM_URL."
        )
    except RunsAPIError as error:
        return _problem(name, f"{upstream.url}: {error}", "Check RUNLANE_UPSTREAM_URL.")
    simulated = "; simulated, no model is asked" if "x-runlane-simulator" in headers else ""
    return Finding(name, "ok", f"{upstream.url} answers and takes the credentials{simulated}")


def _knows_threads(error: APIStatusError) -> bool:
    # "No thread found with id …" is what a server says that has threads, only not this one.
    return "thread" in error.message.lower()


def _lacks(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except ModuleNotFoundError:
        return True


def _writable(path: Path) -> bool:
    while not path.exists() and path != path.parent:
        path = path.parent
    return os.access(path, os.W_OK)


def _problem(check: str, message: str, remedy: str) -> Finding:
    return Finding(check, "problem", message, remedy)
