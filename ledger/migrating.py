"""The schema of a ledger: read at each opening, brought up to date where it is older.

Any number of processes may open a ledger at once. The lock that the first one takes is part of
the transaction in which it migrates, so one that dies in the middle leaves what was there.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from ledger.database import Database
from ledger.errors import SchemaTooNew

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009")
"""Every schema that there has been, oldest first."""
SCRIPTS = Path(__file__).parent / "migrations"

_VERSION_TABLE = "alembic_version"


async def migrate(database: Database) -> None:
    """Bring the ledger's schema up to date.

    Raises:
        SchemaTooNew: a newer Runlane has changed it; nothing is touched.
        LedgerUnavailable: the ledger doesn't answer.
    """
    where = str(database.location)
    if await database.read(lambda connection: _is_current(connection, where)):
        return
    await database.write("migrate", lambda connection: _upgrade(connection, where))


def _is_current(connection: Connection, where: str) -> bool:
    revision = _revision(connection)
    if revision is not None and revision not in REVISIONS:
        raise SchemaTooNew(where, revision, REVISIONS[-1])
    return revision == REVISIONS[-1]


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSION_TABLE):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection, where: str) -> None:
    # Another process may have done it while this one waited for its turn.
    if _is_current(connection, where):
        return
    # Takes a tenth of a second to import, and is needed once in the life of a schema.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    # Alembic interpolates what it is given.
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
