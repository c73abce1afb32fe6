"""What `docker-compose.yml` mounts and the image asks: scripts, read and run."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from ledger import Ledger, Location
from tests.containers import ROOT, services
from tests.postgres_server import postgres_programs

DEPLOY = ROOT / "deploy"
REQUIRED = (
    "POSTGRES_PASSWORD", "LEDGER_PASSWORD", "RUNLANE_ENCRYPTION_KEYS", "RUNLANE_CODEC_TOKEN",
    "RUNLANE_UPSTREAM_URL",
)  # fmt: skip


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
    job = services(dict.fromkeys(REQUIRED, "-"))["schema"]
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


async def test_the_ledger_job_makes_a_role_that_reaches_its_database_alone(
    postgres_url: str,
) -> None:
    """As often as it is run; the password of the last time counts."""
    server = make_url(postgres_url)
    job = services(dict.fromkeys(REQUIRED, "-"))["ledger"]
    places = {"PGHOST": str(server.query["host"]), "PGUSER": "postgres"}
    stored = []
    for password in ("it's one", "two"):
        subprocess.run(
            [word.replace("/deploy/", f"{DEPLOY}/") for word in job["command"]],
            env={
                **job["environment"], **places, "LEDGER_PASSWORD": password,
                "PATH": f"{postgres_programs()}:{os.environ['PATH']}",
            },
            check=True,
        )  # fmt: skip
        with psycopg.connect(postgres_url) as connection:
            query = "SELECT rolpassword, rolsuper FROM pg_authid WHERE rolname = 'runlane'"
            stored.append(connection.execute(query).fetchone())
    assert stored[0] is not None
    assert stored[1] is not None
    assert (False, False) == (stored[0][1], stored[1][1])
    assert stored[0][0] != stored[1][0]

    its = server.set(username="runlane", database="runlane")
    location = Location.from_url(its.render_as_string(hide_password=False))
    await (await Ledger.open(location)).close()
    elsewhere = its.set(database="postgres").render_as_string(hide_password=False)
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(elsewhere)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        # Other tests of this process share the server.
        connection.execute("GRANT CONNECT ON DATABASE postgres TO PUBLIC")
