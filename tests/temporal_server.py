"""Fixtures with a real Temporal: one embedded server for each test process, and its client.

All of them encrypt: a data directory of a test's own has a key, as one that `up` made.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.client import Client

from runlane import key_file
from runlane.embedded import EmbeddedTemporal
from runlane.settings import Settings
from runlane.temporal import connect


def encrypting(data_dir: Path) -> Settings:
    """Return the settings of an installation in this directory, which gets a key."""
    key_file.make(data_dir)
    return Settings(data_dir=data_dir)


@pytest_asyncio.fixture(scope="session")
async def temporal_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[EmbeddedTemporal]:
    """A server of this process's own: xdist workers share nothing."""
    async with EmbeddedTemporal(tmp_path_factory.mktemp("temporal")) as server:
        yield server


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `client` keeps big payloads and finds its key, as do the workers of a plant."""
    made = tmp_path_factory.mktemp("data")
    key_file.make(made)
    return made


@pytest_asyncio.fixture(scope="session")
async def client(temporal_server: EmbeddedTemporal, data_dir: Path) -> Client:
    """Connected as the product connects, encrypting, with big payloads under `data_dir`."""
    return await connect(
        Settings(data_dir=data_dir),
        environ={"TEMPORAL_ADDRESS": temporal_server.address},
    )
