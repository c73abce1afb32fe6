"""How Runlane reaches Temporal: the only place that connects, and the only data converter.

Worker, client and replayer must convert alike, or one of them can't read what another wrote.
"""

import asyncio
import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from temporalio.api.failure.v1 import Failure
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.common import HeaderCodecBehavior
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.service import RPCError, RPCStatusCode

from runlane import key_file
from runlane.encryption import EncryptionCodec, SealedPayloads
from runlane.errors import NamespaceMissing, TemporalUnreachable
from runlane.monitoring import traces
from runlane.payload_store import external_storage
from runlane.settings import EncryptionKey, S3Location, Settings, SettingsError
from runlane.short_failures import ShortEncodedFailures, ShortFailures

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
    data_dir: Path | None = None,
    payload_store: S3Location | None = None,
    keys: Sequence[EncryptionKey] = (),
) -> DataConverter:
    """Pydantic conversion, encrypted where there are keys, with big payloads outside the history.

    Args:
        data_dir: payloads of 32 kB or more lie in its `payloads`.
        payload_store: new big payloads go to S3 instead; those in `data_dir` stay readable.
        keys: the first encrypts, all decrypt; failures' messages and stack traces too.

    Raises:
        SettingsError: S3 is asked for and the extra `runlane[s3]` is not installed.
    """
    files = payload_directory(data_dir) if data_dir else None
    converter = dataclasses.replace(
        pydantic_data_converter,
        payload_codec=EncryptionCodec(keys) if keys else SealedPayloads(),
        external_storage=external_storage(files, payload_store),
    )
    # Without a key, encoding would only hide failures from Temporal's own tools.
    failures = ShortEncodedFailures if keys else ShortFailures
    return dataclasses.replace(converter, failure_converter_class=failures)


async def failure_message(converter: DataConverter, failure: Failure) -> str:
    """Return what a failure out of a history says, decrypted.

    Args:
        converter: of the run's client; `description.data_converter` where there is one.
        failure: stays as it is.

    Raises:
        CannotDecrypt: its key is missing.
    """
    decoded = Failure()
    decoded.CopyFrom(failure)
    error = await converter.decode_failure(decoded)
    return str(getattr(error, "message", error))


async def connect(
    settings: Settings,
    *,
    environ: Mapping[str, str] = os.environ,
    timeout: timedelta = CONNECT_TIMEOUT,
) -> Client:
    """Connect to the Temporal that `environ` and Temporal's own config file name.

    Where no data directory is set, and keys or a payload store aren't either, the namespace is
    asked for the data directory of its embedded server, so that a command finds the worker's
    payloads and key whichever directory it is called in.

    Args:
        settings: for the data directory, the payload store and the keys.
        environ: Temporal's variables (`TEMPORAL_ADDRESS`, …), as `temporalio.envconfig` reads
            them.
        timeout: for connecting, and again for asking the namespace.

    Raises:
        TemporalUnreachable: no server answered in time.
        NamespaceMissing: the server has no such namespace.
        SettingsError: Temporal's variables or config file can't be used, or the keys, or those
            that ask for traces; or the namespace names a data directory that isn't this user's,
            and no key is set.
    """
    config = connect_config(environ)
    address = config["target_host"]
    keys = settings.read_encryption_keys()
    try:
        client = await asyncio.wait_for(
            Client.connect(**config, interceptors=traces.interceptors()), timeout.total_seconds()
        )
    except TimeoutError:
        raise _unreachable(address, f"no answer in {timeout.total_seconds():g} s") from None
    except RuntimeError as error:
        raise _unreachable(address, _reason(error)) from error
    except ValueError as error:
        raise SettingsError("TEMPORAL_ADDRESS", f"{address!r}: {error}") from None
    data_dir = settings.data_dir
    if data_dir is None and not (keys and settings.payload_store):
        data_dir = await _namespace_data_dir(client, address, timeout, has_keys=bool(keys))
    if data_dir is not None:
        # After those of the variable: what `up` encrypted stays readable with keys of one's own.
        keys = key_file.beside(keys, await asyncio.to_thread(key_file.read, data_dir))
    # The same connection under another converter: a client's own can't be exchanged.
    arguments = client.config()
    arguments["data_converter"] = data_converter(data_dir, settings.payload_store, keys)
    if keys:
        arguments["header_codec_behavior"] = HeaderCodecBehavior.CODEC
    return Client(**arguments)


async def find_data_dir(client: Client) -> Path | None:
    """Return the data directory of a client's embedded server, if it is here and this user's.

    Raises:
        TemporalUnreachable: it doesn't answer.
    """
    address = client.service_client.config.target_host
    return await _namespace_data_dir(client, address, CONNECT_TIMEOUT, has_keys=True)


async def find_converter(
    settings: Settings, *, environ: Mapping[str, str] = os.environ
) -> DataConverter:
    """Return the data converter that `connect` gives a client.

    Temporal is asked only where keys, or the directory they lie in, are nowhere set.

    Raises:
        SettingsError: the keys can't be used.
        TemporalUnreachable: it was to be asked, and doesn't answer.
    """
    keys = settings.read_encryption_keys()
    if not keys and settings.data_dir is None:
        return (await connect(settings, environ=environ)).data_converter
    if settings.data_dir is not None:
        keys = key_file.beside(keys, await asyncio.to_thread(key_file.read, settings.data_dir))
    return data_converter(settings.data_dir, settings.payload_store, keys)


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


async def _namespace_data_dir(
    client: Client, address: str, timeout: timedelta, *, has_keys: bool
) -> Path | None:
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
    data_dir = await asyncio.to_thread(_own_directory, text)
    # The server may be another machine's, and its path mean nothing here.
    if data_dir is not None or has_keys:
        return data_dir
    raise SettingsError(
        "RUNLANE_DATA_DIR",
        f"Temporal at {address} keeps its data in {text!r}, which isn't here or isn't this user's. "
        "What is sent without its key would stand there in the clear. Set "
        "RUNLANE_ENCRYPTION_KEYS_FILE to a copy of its encryption.keys, or RUNLANE_DATA_DIR if "
        "the directory is to be trusted.",
    )


def _own_directory(text: str) -> Path | None:
    """Return the data directory of this name, if it is here and this user's, its key too.

    Whoever may write a namespace's data could else name one whose key he knows.
    """
    if not Path(text).is_absolute():
        return None
    try:
        data_dir = Path(text).resolve(strict=True)
        owners = {path.stat().st_uid for path in (data_dir, payload_directory(data_dir))}
        with suppress(FileNotFoundError):
            owners.add((data_dir / key_file.NAME).stat().st_uid)
    except OSError:
        return None
    return data_dir if owners == {os.geteuid()} else None


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
