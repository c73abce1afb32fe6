"""What an installation is made of: versions, Temporal, its namespace, workers, payloads."""

import importlib.util
import os
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    GetClusterInfoRequest,
    GetSystemInfoRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError

import runlane
from runlane import room, search_attributes, temporal, workers
from runlane.doctor.encryption import check_encryption
from runlane.doctor.finding import Finding, problem
from runlane.durations import format_duration
from runlane.moments import format_moment
from runlane.payload_store import FilePayloadStore
from runlane.settings import Settings
from runlane.workers import namespace_data
from workflows.task_queues import poll_task_queue, tools_task_queue

KEPT_FOR = timedelta(days=30)
"""How long closed runs, and with them idempotency keys, should be remembered."""

_RPC_TIMEOUT = timedelta(seconds=5)
_PACKAGES = ("temporalio", "httpx", "pydantic")


async def check_temporal(client: Client, settings: Settings) -> AsyncIterator[Finding]:
    """Check the server, the namespace, the workers, the payload store and the keys."""
    yield await _server(client)
    yield await _retention(client)
    yield await _attributes(client)
    for name, queue, activities in (
        ("workers", settings.task_queue, False),
        ("workers, polls", poll_task_queue(settings.task_queue), True),
        ("workers, tools", tools_task_queue(settings.task_queue), True),
    ):
        yield await _workers(client, name, queue, activities=activities)
    yield await _payloads(client, settings)
    yield await check_encryption(client)
    async for finding in check_room(client, settings):
        yield finding


def versions() -> Finding:
    """Return which versions are installed here."""
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
    return problem(
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
        return problem(name, f"can't be asked for: {error.message}", "See Temporal's log.")
    if there:
        return Finding(name, "ok", ", ".join(search_attributes.TYPES))
    commands = "\n".join(search_attributes.commands(client.namespace))
    return problem(
        name, "not registered", f"Start a worker where it may, or run one of:\n{commands}"
    )


async def _workers(client: Client, name: str, queue: str, *, activities: bool) -> Finding:
    there = await workers.presence(client, queue, activities=activities)
    whose = "" if there.version is None else f" of version {there.version}"
    if there.seen is not None and workers.is_fresh(there.seen):
        ago = max(0, round(time.time() - there.seen))
        idle = f"; {_named(there.unasked)} get nothing" if there.unasked else ""
        return Finding(name, "ok", f"on queue {queue}{whose}, last heard of {ago} s ago{idle}")
    when = (
        "none within the last five minutes"
        if there.seen is None
        else f"none since {format_moment(there.seen)}"
    )
    if there.unasked:
        return _unasked(name, f"{when} on queue {queue}{whose}", there)
    return problem(
        name,
        f"{when} on queue {queue}{whose}",
        "Start one: runlane worker (or everything: runlane up)",
    )


def _unasked(name: str, message: str, there: workers.Presence) -> Finding:
    """Say which workers are there that get nothing, and how they would."""
    shown = _named(there.unasked)
    current = there.version or "those without a version"
    deployment, _, build_id = (there.unasked[-1] or there.version or "").partition(":")
    which = f"--build-id {build_id}" if there.unasked[-1] else "--unversioned"
    return problem(
        name,
        f"{message}; there are {shown}, but Temporal asks {current}",
        f"Start workers of the current version, or change it: temporal worker deployment "
        f"set-current-version --deployment-name {deployment} {which}",
    )


def _named(versions: Sequence[str]) -> str:
    return ", ".join(version or "those without a version" for version in versions)


async def _payloads(client: Client, settings: Settings) -> Finding:
    name = "big payloads"
    if settings.payload_store is not None:
        if importlib.util.find_spec("aiobotocore") is None:
            return problem(name, "S3 needs an extra", "pip install 'runlane[s3]'")
        return Finding(name, "ok", f"in {settings.payload_store}")
    storage = client.data_converter.external_storage
    drivers = () if storage is None else storage.drivers
    if any(isinstance(driver, FilePayloadStore) for driver in drivers):
        data_dir = settings.data_dir or Path((await namespace_data(client))[temporal.DATA_DIR_KEY])
        directory = temporal.payload_directory(data_dir)
        if _writable(directory):
            return Finding(name, "ok", f"in {directory}")
        return problem(name, f"{directory} is not writable", "Make it writable for this user.")
    return Finding(
        name,
        "note",
        "nowhere: a request or an answer over 1 MB is refused",
        "Set RUNLANE_DATA_DIR to a directory shared with the workers, or RUNLANE_PAYLOAD_STORE.",
    )


async def check_room(
    client: Client, settings: Settings, least: int = room.LEAST_BYTES
) -> AsyncIterator[Finding]:
    """Look whether there is room on this machine for the data directory, if there is one here."""
    named = (await namespace_data(client)).get(temporal.DATA_DIR_KEY)
    data_dir = settings.data_dir or (Path(named) if named else None)
    if data_dir is None or not data_dir.is_dir():
        return
    shortage = room.shortage(data_dir, least)
    if shortage is None:
        yield Finding("disk", "ok", f"there is room where {data_dir} lies")
    else:
        yield problem(
            "disk",
            shortage,
            "Make room. Nothing is lost meanwhile: what can't be written is refused, and all goes "
            "on by itself afterwards.",
        )


def _writable(path: Path) -> bool:
    while not path.exists() and path != path.parent:
        path = path.parent
    return os.access(path, os.W_OK)
