"""Opening a ledger: by several processes, over an older schema, over a newer one."""

import asyncio
import importlib.util
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from ledger import Ledger, LedgerRefused, LedgerUnavailable, Location, SchemaTooNew
from ledger.database import Database
from ledger.migrating import REVISIONS, SCRIPTS
from ledger.tables import metadata

ROOT = Path(__file__).parents[2]
OPEN = """
import asyncio, sys
from ledger import Ledger, Location
from sqlalchemy import make_url
async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    ledger = await Ledger.open(Location(make_url(sys.argv[1])))
    await ledger.close()
asyncio.run(main())
"""


async def look(location: Location, sql: str) -> list[tuple[object, ...]]:
    """Return the rows of a query."""
    database = Database(location)
    rows = await database.read(lambda connection: connection.execute(text(sql)).fetchall())
    await database.close()
    return [tuple(row) for row in rows]


async def change(location: Location, sql: str) -> None:
    """Do to the database what a person could."""
    database = Database(location)
    await database.write("test", lambda connection: connection.execute(text(sql)))
    await database.close()


async def test_migrated_is_what_the_code_expects(location: Location) -> None:
    """The migrations and the tables in the code say the same, on both kinds."""
    await (await Ledger.open(location)).close()
    database = Database(location)

    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    assert [] == await database.read(differences)
    await database.close()


def test_every_migration_is_known() -> None:
    """A migration that nobody entered in `REVISIONS` would be called too new."""
    scripts = ScriptDirectory(str(SCRIPTS)).walk_revisions()
    assert list(REVISIONS) == [script.revision for script in scripts][::-1]


async def test_opened_again_by_the_same_code(location: Location) -> None:
    """Nothing is done a second time."""
    for _ in range(2):
        await (await Ledger.open(location)).close()

    assert [(REVISIONS[-1],)] == await look(location, "SELECT version_num FROM alembic_version")


async def test_eight_openings_at_once(location: Location) -> None:
    """Whoever comes second waits, and finds the work done."""
    opened = await asyncio.gather(*(Ledger.open(location) for _ in range(8)))
    await asyncio.gather(*(ledger.close() for ledger in opened))

    assert [(REVISIONS[-1],)] == await look(location, "SELECT version_num FROM alembic_version")


@pytest.mark.slow
async def test_processes_that_open_at_once(location: Location) -> None:
    """Four processes, started together on nothing, all come up."""
    url = location.url.render_as_string(hide_password=False)
    if location.is_sqlite:
        location.file.parent.mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, url],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert "ready\n" == await asyncio.to_thread(process.stdout.readline)
    ends = await asyncio.gather(
        *(asyncio.to_thread(process.communicate, "go\n", 60) for process in processes)
    )

    assert [0] * 4 == [process.returncode for process in processes], [end[1] for end in ends]
    assert [(REVISIONS[-1],)] == await look(location, "SELECT version_num FROM alembic_version")


async def test_a_newer_schema_is_refused_and_left_alone(location: Location) -> None:
    """The error says what was found, what is known and what to do."""
    await (await Ledger.open(location)).close()
    await change(location, "UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(SchemaTooNew) as caught:
        await Ledger.open(location)

    assert "has schema 9999" in str(caught.value)
    assert f"up to {REVISIONS[-1]}" in str(caught.value)
    assert [("9999",)] == await look(location, "SELECT version_num FROM alembic_version")


async def test_a_migration_that_dies_in_the_middle_leaves_nothing(location: Location) -> None:
    """Tables and version come together or not at all: here the last index stands in the way."""
    database = Database(location)
    if location.is_sqlite:
        location.file.parent.mkdir()
    await database.write("test", lambda c: c.execute(text("CREATE TABLE runs (x INTEGER)")))
    with pytest.raises(LedgerUnavailable):
        await Ledger.open(location)

    tables = await database.read(lambda connection: inspect(connection).get_table_names())
    assert ["runs"] == tables
    await database.write("test", lambda connection: connection.execute(text("DROP TABLE runs")))
    await database.close()
    await (await Ledger.open(location)).close()


async def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """So are the files that SQLite keeps beside it."""
    previous = os.umask(0o022)
    try:
        ledger = await Ledger.open(Location.in_directory(tmp_path / "data"))
    finally:
        os.umask(previous)
    files = sorted((tmp_path / "data").iterdir())
    modes = {stat.S_IMODE(file.stat().st_mode) for file in files}
    await ledger.close()

    assert {0o600} == modes
    assert "ledger.db" in [file.name for file in files]


async def test_a_file_is_set_for_several_processes_and_power_cuts(tmp_path: Path) -> None:
    """Write-ahead log, waiting for others, foreign keys, and every commit on the disk."""
    location = Location.in_directory(tmp_path)
    await (await Ledger.open(location)).close()

    assert [("wal",)] == await look(location, "PRAGMA journal_mode")
    assert [(20_000,)] == await look(location, "PRAGMA busy_timeout")
    assert [(1,)] == await look(location, "PRAGMA foreign_keys")
    assert [(2,)] == await look(location, "PRAGMA synchronous")


@pytest.mark.parametrize(
    "url",
    [
        "mysql://root:hunter2@db/x",
        "postgresql://me:hunter2@db",
        "postgresql://me:hunter2@db:port/x",
        "hunter2",
        "postgresql+asyncpg://me:hunter2@db/x",
    ],
)
def test_a_url_that_is_none(url: str) -> None:
    """The error says the form and repeats nothing."""
    with pytest.raises(LedgerRefused, match="postgresql://user:password@host") as caught:
        Location.from_url(url)

    assert "hunter2" not in str(caught.value)


async def test_a_password_stands_in_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Not in the place's text, not in an error, not in the log."""
    location = Location.from_url("postgres://me:hunter2@127.0.0.1:1/x?connect_timeout=2")
    with caplog.at_level("DEBUG"), pytest.raises(LedgerUnavailable) as caught:
        await Ledger.open(location)

    said = f"{location} {location!r} {caught.value} {caught.value!r} {caplog.text}"
    assert "hunter2" not in said
    assert "127.0.0.1:1/x" in str(caught.value)


async def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """The error names the file and the reason."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(LedgerUnavailable, match=r"ledger\.db can't be made: .*"):
        await Ledger.open(Location.in_directory(tmp_path / "taken"))


async def test_a_file_that_is_no_ledger(tmp_path: Path) -> None:
    """It is not overwritten."""
    (tmp_path / "ledger.db").write_bytes(b"my diary " * 500)
    with pytest.raises(LedgerUnavailable, match="SQLITE_NOTADB"):
        await Ledger.open(Location.in_directory(tmp_path))

    assert (tmp_path / "ledger.db").read_bytes().startswith(b"my diary")


def test_it_imports_neither_temporal_nor_http() -> None:
    """Nor Alembic, which only a migration needs."""
    script = "import ledger, sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True
    )
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}

    assert not loaded & {"temporalio", "httpx", "pydantic", "alembic", "psycopg", "runlane"}
    assert importlib.util.find_spec("psycopg") is not None
