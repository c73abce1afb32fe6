"""How Runlane reaches Temporal: the only place that connects, and the only data converter.

Worker, client and replayer must convert alike, or one of them can't read what another wrote.
"""

import asyncio
import dataclasses
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.service import RPCError, RPCStatusCode

from runlane.errors import NamespaceMissing, TemporalUnreachable
from runlane.payload_store import external_storage
from runlane.settings import S3Location, Settings, SettingsError

DEFAULT_ADDRESS = "localhost:7233"
DATA_DIR_KEY = "runlane_data_dir"
"""In a namespace's `data`: the directory whose embedded server serves it."""
CONNECT_TIMEOUT = timedelta(seconds=3)

_PAYLOADS = "payloads"
_STATUS_MESSAGE = re.compile(r'message: "((?:[^"\\]|\\.)*)"')


def payload_directory(data_dir: Path) -> Path:
    """Where the big payloads of a data directory lie."""
    return data_dir / _PAYLOADS


def data_converter(
    data_dir: Path | None = None, payload_store: S3Location | None = None
) -> DataConverter:
    """Pydantic conversion, with payloads of 32 kB or more kept outside the history.

    Args:
        data_dir: big payloads lie in its `payloads`.
        payload_store: new big payloads go to S3 instead; those in `data_dir` stay readable.

    Raises:
        SettingsError: S3 is asked for and the extra `runlane[s3]` is not installed.
    """
    files = payload_directory(data_dir) if data_dir else None
    return dataclasses.replace(
        pydantic_data_converter, external_storage=external_storage(files, payload_store)
    )


async def connect(
    settings: Settings,
    *,
    environ: Mapping[str, str] = os.environ,
    timeout: timedelta = CONNECT_TIMEOUT,
) -> Client:
    """Connect to the Temporal that `environ` and Temporal's own config file name.

    Where neither a data directory nor a payload store is set, the namespace is asked for the
    data directory of its embedded server, so that a command finds the worker's payloads
    whichever directory it is called in.

    Args:
        settings: for the data directory and the payload store.
        environ: Temporal's variables (`TEMPORAL_ADDRESS`, …), as `temporalio.envconfig` reads
            them.
        timeout: for connecting, and again for asking the namespace.

    Raises:
        TemporalUnreachable: no server answered in time.
        NamespaceMissing: the server has no such namespace.
        SettingsError: Temporal's variables or config file can't be used.
    """
    config = connect_config(environ)
    address = config["target_host"]
    try:
        client = await asyncio.wait_for(
            Client.connect(
                **config, data_converter=data_converter(settings.data_dir, settings.payload_store)
            ),
            timeout.total_seconds(),
        )
    except TimeoutError:
        raise _unreachable(address, f"no answer in {timeout.total_seconds():g} s") from None
    except RuntimeError as error:
        raise _unreachable(address, _reason(error)) from error
    except ValueError as error:
        raise SettingsError("TEMPORAL_ADDRESS", f"{address!r}: {error}") from None
    if settings.data_dir is not None or settings.payload_store is not None:
        return client
    data_dir = await _namespace_data_dir(client, address, timeout)
    if data_dir is None:
        return client
    # The same connection under another converter: a client's own can't be exchanged.
    arguments = client.config()
    arguments["data_converter"] = data_converter(data_dir)
    return Client(**arguments)


def connect_config(environ: Mapping[str, str] = os.environ) -> ClientConnectConfig:
    """What Temporal's variables and config file say, with `target_host` always set.

    Raises:
        SettingsError: they can't be used.
    """
    try:
        config = ClientConfig.load_client_connect_config(override_env_vars=dict(environ))
    except (OSError, RuntimeError, ValueError) as error:
        variable = "TEMPORAL_PROFILE" if "profile" in str(error).lower() else "TEMPORAL_*"
        raise SettingsError(variable, str(error)) from None
    config.setdefault("target_host", DEFAULT_ADDRESS)
    return config


async def _namespace_data_dir(client: Client, address: str, timeout: timedelta) -> Path | None:
    request = DescribeNamespaceRequest(namespace=client.namespace)
    try:
        answer = await client.workflow_service.describe_namespace(request, timeout=timeout)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise no_namespace(address, client.namespace) from None
        if error.status in {RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED}:
            raise _unreachable(address, error.message) from error
        # Not everyone may describe a namespace; then it is no embedded server's either.
        return None
    text = answer.namespace_info.data.get(DATA_DIR_KEY)
    if not text:
        return None
    data_dir = Path(text)
    # The server may be another machine's, and its path mean nothing here.
    here = await asyncio.to_thread(payload_directory(data_dir).is_dir)
    return data_dir if here else None


def _reason(error: RuntimeError) -> str:
    """The readable part of what the Rust core reports: its last status or system message."""
    text = str(error)
    messages = _STATUS_MESSAGE.findall(text)
    return messages[-1] if messages else text.removeprefix("Failed client connect: ")


def _unreachable(address: str, reason: str) -> TemporalUnreachable:
    return TemporalUnreachable(
        f"Can't reach Temporal at {address}: {reason}. Start one with `runlane up`, or set "
        "TEMPORAL_ADDRESS (and TEMPORAL_NAMESPACE, TEMPORAL_API_KEY) to yours."
    )


def no_namespace(address: str, namespace: str) -> NamespaceMissing:
    """Return the error for a server that answers and has no such namespace."""
    return NamespaceMissing(
        f"Temporal at {address} has no namespace {namespace!r}. Set TEMPORAL_NAMESPACE, or create "
        f"it: temporal operator namespace create -n {namespace} --retention 30d"
    )
