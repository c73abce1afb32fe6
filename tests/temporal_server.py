"""Fixtures with a real Temporal: one embedded server for each test process, and its client."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.client import Client

from runlane.embedded import EmbeddedTemporal
from runlane.settings import Settings
from runlane.temporal import connect


@pytest_asyncio.fixture(scope="session")
async def temporal_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[EmbeddedTemporal]:
    """A server of this process's own: xdist workers share nothing."""
    async with EmbeddedTemporal(tmp_path_factory.mktemp("temporal")) as server:
        yield server


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `client` keeps big payloads."""
    return tmp_path_factory.mktemp("data")


@pytest_asyncio.fixture(scope="session")
async def client(temporal_server: EmbeddedTemporal, data_dir: Path) -> Client:
    """Connected as the product connects, with big payloads under `data_dir`."""
    return await connect(
        Settings(data_dir=data_dir),
        environ={"TEMPORAL_ADDRESS": temporal_server.address},
    )
