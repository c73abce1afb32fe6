"""What `docker-compose.yml` mounts and the image asks: scripts, read and run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.containers import ROOT, services

DEPLOY = ROOT / "deploy"


@pytest.mark.parametrize("script", sorted(DEPLOY.glob("*.sh")), ids=lambda p: p.name)
def test_scripts_are_read_by_any_shell(script: Path) -> None:
    """Alpine's and Debian's `sh` are not bash; a slip would show at a customer's."""
    assert "#!/bin/sh" == script.read_text().splitlines()[0]
    done = subprocess.run(["sh", "-n", script], capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stderr


def test_the_health_check_needs_nothing_but_python() -> None:
    """It runs with the image's interpreter, and doesn't fail for a proxy that is set."""
    done = subprocess.run(
        [sys.executable, "-I", DEPLOY / "healthcheck.py", "9", "/healthz"],
        env={"HTTP_PROXY": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (1, "ConnectionRefusedError") == (done.returncode, done.stdout.split(":")[0])


@pytest.fixture
def sql_tool(tmp_path: Path) -> Path:
    """A stand-in for Temporal's `temporal-sql-tool`, a program that its image alone has.

    It writes down how it was called, and fails at what the file `refused` names.
    """
    tool = tmp_path / "temporal-sql-tool"
    lines = [
        "#!/bin/sh",
        f'echo "$SQL_PLUGIN $SQL_HOST:$SQL_PORT $SQL_USER: $*" >> {tmp_path}/calls',
        f'[ ! -e {tmp_path}/refused ] || [ "$3" != "$(cat {tmp_path}/refused)" ]',
    ]
    tool.write_text("\n".join(lines) + "\n")
    tool.chmod(0o755)
    return tmp_path


def schema_job(tools: Path) -> tuple[int, list[str]]:
    """Run the job's script with its environment; return its exit status and the tool's calls."""
    environ = {"POSTGRES_PASSWORD": "-", "RUNLANE_ENCRYPTION_KEYS": "-", "RUNLANE_CODEC_TOKEN": "-"}
    job = services(environ | {"RUNLANE_UPSTREAM_URL": "-"})["schema"]
    done = subprocess.run(
        [word.replace("/deploy/", f"{DEPLOY}/") for word in job["command"]],
        env={**job["environment"], "PATH": f"{tools}:{os.environ['PATH']}"},
        check=False,
    )
    return done.returncode, (tools / "calls").read_text().splitlines()


def test_the_schema_job_makes_both_databases(sql_tool: Path) -> None:
    """Each database is created, versioned and brought up to date, in this order."""
    status, calls = schema_job(sql_tool)

    where = "postgres12 postgresql:5432 temporal:"
    schemas = "/etc/temporal/schema/postgresql/v12"
    expected = [
        f"{where} --db {database} {step}"
        for database, kind in (("temporal", "temporal"), ("temporal_visibility", "visibility"))
        for step in (
            "create",
            "setup-schema -v 0.0",
            f"update-schema -d {schemas}/{kind}/versioned",
        )
    ]
    assert (0, expected) == (status, calls)


def test_the_schema_job_stops_at_the_first_failure(sql_tool: Path) -> None:
    """A server doesn't start on half a schema: the job fails, and compose doesn't go on."""
    (sql_tool / "refused").write_text("update-schema")

    status, calls = schema_job(sql_tool)

    assert 0 != status
    assert 3 == len(calls)
