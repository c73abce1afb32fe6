"""The data directory that a namespace names: whoever may write there must not choose our key."""

import os
import secrets
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client

from runlane import key_file
from runlane.embedded import EmbeddedTemporal
from runlane.encryption import EncryptionCodec
from runlane.settings import EncryptionKey, Settings, SettingsError
from runlane.temporal import DATA_DIR_KEY, connect, payload_directory

_OWN = EncryptionKey("own", bytes(32))


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """A data directory with a key, as `up` makes it."""
    payload_directory(tmp_path).mkdir()
    key_file.make(tmp_path)
    return tmp_path


async def _connect(server: EmbeddedTemporal, named: str, *keys: EncryptionKey) -> Client:
    """Connect to a namespace that names a data directory, with nothing set but these keys."""
    namespace = f"names-{secrets.token_hex(6)}"
    environ = {"TEMPORAL_ADDRESS": server.address}
    maker = await connect(Settings(data_dir=server.data_dir), environ=environ)
    request = RegisterNamespaceRequest(namespace=namespace, data={DATA_DIR_KEY: named})
    request.workflow_execution_retention_period.FromTimedelta(timedelta(days=1))
    await maker.workflow_service.register_namespace(request)
    return await connect(
        Settings(encryption_keys=keys), environ={**environ, "TEMPORAL_NAMESPACE": namespace}
    )


def _key_ids(client: Client) -> list[str]:
    codec = client.data_converter.payload_codec
    assert isinstance(codec, EncryptionCodec)
    return codec.key_ids


async def test_ones_own_is_used(temporal_server: EmbeddedTemporal, installation: Path) -> None:
    """A directory of this user's is, with the key in it."""
    [key] = key_file.read(installation)

    client = await _connect(temporal_server, str(installation))

    assert [key.id] == _key_ids(client)


async def test_somebody_elses_is_refused(
    temporal_server: EmbeddedTemporal, installation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key may be known to others, and what is encrypted with it would be read by them."""
    somebody = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: somebody)

    with pytest.raises(SettingsError, match="RUNLANE_DATA_DIR"):
        await _connect(temporal_server, str(installation))

    assert [_OWN.id] == _key_ids(await _connect(temporal_server, str(installation), _OWN))


async def test_one_that_is_not_here_is_no_reason_to_write_in_the_clear(
    temporal_server: EmbeddedTemporal,
) -> None:
    """Its key isn't here either: without one of one's own nothing is sent."""
    with pytest.raises(SettingsError, match="RUNLANE_DATA_DIR"):
        await _connect(temporal_server, "/nowhere/at/all")

    assert [_OWN.id] == _key_ids(await _connect(temporal_server, "/nowhere/at/all", _OWN))


async def test_a_relative_one_is_refused(
    temporal_server: EmbeddedTemporal, installation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be another one in each directory."""
    monkeypatch.chdir(installation.parent)

    with pytest.raises(SettingsError, match="RUNLANE_DATA_DIR"):
        await _connect(temporal_server, installation.name)
