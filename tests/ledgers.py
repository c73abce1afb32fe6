"""Fixtures with a real ledger, on SQLite and on a PostgreSQL of the test process's own."""

import atexit
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from sqlalchemy import make_url

from ledger import Ledger, Location
from runlane.ledger_access import KeySealing
from tests.postgres_server import PostgresServer

_numbers = itertools.count(1)
_root: Path | None = None
_migrated: list[bytes] = []


def new_directory() -> Path:
    """Return a directory for one more ledger, removed when the process ends."""
    global _root  # noqa: PLW0603 # one for all labs, which no fixture owns
    if _root is None:
        _root = Path(tempfile.mkdtemp(prefix="ledgers-"))
        atexit.register(shutil.rmtree, _root, ignore_errors=True)
    made = _root / str(next(_numbers))
    made.mkdir()
    return made


async def open_in(directory: Path) -> Ledger:
    """Open the ledger of a directory, copied from a migrated one where there is none yet.

    A migration takes a quarter of a second, a copy half a millisecond.
    """
    location = Location.in_directory(directory)
    if not location.file.exists():
        directory.mkdir(parents=True, exist_ok=True)
        location.file.write_bytes(await _template())
    # As a worker without keys does, so that a client without any can read it too.
    return await Ledger.open(location, KeySealing(()))


async def _template() -> bytes:
    if not _migrated:
        location = Location.in_directory(new_directory())
        await (await Ledger.open(location)).close()
        _migrated.append(location.file.read_bytes())
    return _migrated[0]


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A server of this process's own: the URL of its first database."""
    server = PostgresServer("fsync=off")
    try:
        server.start()
        yield server.url
    finally:
        server.remove()


@pytest.fixture
def postgres_location(postgres_url: str) -> Location:
    """A new, empty database."""
    return _new_database(postgres_url)


@pytest_asyncio.fixture(scope="session")
async def postgres_template(postgres_url: str) -> Location:
    """A database that is migrated and that nobody is connected to."""
    location = _new_database(postgres_url)
    await (await Ledger.open(location)).close()
    return location


def _new_database(server: str, template: str = "template1") -> Location:
    name = f"ledger_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    url = make_url(server).set(database=name)
    return Location.from_url(url.render_as_string(hide_password=False))


@pytest_asyncio.fixture(scope="session")
async def sqlite_template() -> bytes:
    """A migrated file."""
    return await _template()


@pytest.fixture(params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """The place of a new ledger, once of each kind; migrated already for whoever wants it open."""
    migrated = "ledger" in request.fixturenames
    found: Location
    if request.param == "sqlite":
        found = Location.in_directory(tmp_path / "data")
        if migrated:
            found.file.parent.mkdir()
            found.file.write_bytes(request.getfixturevalue("sqlite_template"))
    elif migrated:
        template: Location = request.getfixturevalue("postgres_template")
        server = request.getfixturevalue("postgres_url")
        found = _new_database(server, str(template.url.database))
    else:
        found = request.getfixturevalue("postgres_location")
    return found


@pytest_asyncio.fixture
async def ledger(location: Location) -> AsyncIterator[Ledger]:
    """A new ledger, open."""
    async with await Ledger.open(location) as opened:
        yield opened
