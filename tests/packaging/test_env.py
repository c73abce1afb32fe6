"""`make env`: secrets for the Compose file, made once."""

import base64
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from runlane.settings import Settings
from tests.containers import ROOT, read_env_file, services


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout without a `.env`, as far as `make env` goes."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    return tmp_path


def make_env(project: Path) -> subprocess.CompletedProcess[str]:
    """Call it as a user does, whose files others may read."""
    return subprocess.run(
        ["sh", "-c", "umask 022; make --no-print-directory env"],
        cwd=project,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_writes_what_the_compose_file_needs(project: Path) -> None:
    """With what it wrote, every variable resolves, and Runlane takes its values."""
    done = make_env(project)
    assert 0 == done.returncode, done.stderr
    found = read_env_file(project / ".env")

    settings = Settings.from_env(services(found)["worker"]["environment"])
    [key] = settings.encryption_keys
    assert 32 == len(key.key)
    assert services(found)["simulator"]
    assert "http://simulator:8089/v1" == settings.upstream_url
    assert all(secret not in done.stdout for secret in found.values() if secret)


def test_only_its_owner_reads_it(project: Path) -> None:
    """Whatever the umask, nobody else on the machine sees the secrets; no draft is left."""
    make_env(project)

    assert 0o600 == stat.S_IMODE((project / ".env").stat().st_mode)
    assert [".env"] == [path.name for path in project.glob(".env*")]


def test_every_one_is_another(project: Path) -> None:
    """Two installations share no secret, and a secret is long enough not to be guessed."""
    files = []
    for name in ("one", "two"):
        subprocess.run(["sh", "deploy/env.sh", name], cwd=project, check=True, capture_output=True)
        files.append(read_env_file(project / name))
    one, two = files
    for name in (
        "RUNLANE_ENCRYPTION_KEYS",
        "RUNLANE_CODEC_TOKEN",
        "POSTGRES_PASSWORD",
        "LEDGER_PASSWORD",
    ):
        assert one[name] != two[name]
    for secret in (one["RUNLANE_CODEC_TOKEN"], one["POSTGRES_PASSWORD"], one["LEDGER_PASSWORD"]):
        assert 24 == len(bytes.fromhex(secret))
    assert 32 == len(base64.b64decode(one["RUNLANE_ENCRYPTION_KEYS"].partition(":")[2]))


def test_an_existing_one_is_never_changed(project: Path) -> None:
    """A second call keeps the keys, without which old runs couldn't be read."""
    make_env(project)
    before = (project / ".env").read_bytes()

    done = make_env(project)

    assert 0 == done.returncode
    assert "is left as it is" in done.stdout
    assert before == (project / ".env").read_bytes()


def test_what_an_old_one_lacks_is_said(project: Path) -> None:
    """A file from before a secret was needed is not changed; the line to add is shown."""
    (project / ".env").write_text("POSTGRES_PASSWORD=mine\nRUNLANE_CODEC_TOKEN=\n")

    done = make_env(project)

    assert 0 != done.returncode
    assert "RUNLANE_ENCRYPTION_KEYS=" in done.stderr
    assert "RUNLANE_CODEC_TOKEN=" in done.stderr
    assert "POSTGRES_PASSWORD" not in done.stderr
    assert "POSTGRES_PASSWORD=mine\nRUNLANE_CODEC_TOKEN=\n" == (project / ".env").read_text()


def test_no_secret_is_committed_or_sent_to_a_build(project: Path) -> None:
    """git and Docker leave it out, and the files that stand beside it."""
    ignored = (ROOT / ".gitignore").read_text().splitlines()

    assert {".env", ".env.*", "worker.env"} <= set(ignored)
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()
