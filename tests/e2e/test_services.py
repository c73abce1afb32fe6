"""The Compose file's own services as plain processes: the same words, at other places.

Each command, environment and health check is taken from `docker-compose.yml` and the `Dockerfile`,
with what `make env` writes. Replaced are hosts, ports and directories alone.
"""

import base64
import json
import os
import random
import re
import signal
import socket
import subprocess
import sysconfig
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from runlane.durations import parse_duration
from runlane.embedded import EmbeddedTemporal
from runlane.search_attributes import TYPES
from tests.containers import OURS, ROOT, Stage, dockerfile, read_env_file, services
from tests.postgres_server import postgres_programs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_SCRIPTS = sysconfig.get_path("scripts")
_VOLUME = "/var/lib/runlane"
_PORTS = ("9464", "8089", "8081", "8400")
"""Where worker, simulator, codec server and API are served inside their containers."""
_WITHIN = 120.0
"""Seconds until a service is healthy, or a command done: far more than they take."""


class Container:
    """A service of the Compose file, to be run as a process."""

    def __init__(self, name: str, environ: Mapping[str, str], places: Mapping[str, str]) -> None:
        service = services(environ)[name]
        image = dockerfile()[-1] if service["image"].startswith(OURS) else Stage(service["image"])
        entrypoint = service.get("entrypoint") or (image.steps and image.command("ENTRYPOINT"))
        self._entrypoint: list[str] = entrypoint or []
        self._command: list[str] = service["command"]
        self._check: list[str] = service["healthcheck"].get("test", ["CMD"])[1:]
        self._environ: dict[str, str] = image.environment() | service["environment"]
        self._places = places
        self.grace = parse_duration(service.get("stop_grace_period", "10s"))

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start it; with another command if one is given, as `docker compose run` does."""
        return subprocess.Popen(
            self._here([*self._entrypoint, *(command or self._command)]),
            env=self._here_environ(),
            cwd=self._places[_VOLUME],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str) -> str:
        """Run it to its end, and return what it printed."""
        process = self.start(*command)
        try:
            said, complaint = process.communicate(timeout=_WITHIN)
        finally:
            process.kill()
        assert 0 == process.returncode, said + complaint
        return said

    def is_healthy(self) -> bool:
        """Ask as Docker does."""
        done = subprocess.run(
            self._here(self._check),
            env=self._here_environ(),
            capture_output=True,
            timeout=_WITHIN,
            check=False,
        )
        return 0 == done.returncode

    def _here(self, words: list[str]) -> list[str]:
        return [self._placed(word) for word in words]

    def _here_environ(self) -> dict[str, str]:
        own = {name: self._placed(value) for name, value in self._environ.items()}
        path = own.get("PATH", f"{_SCRIPTS}:$PATH").replace("$PATH", os.environ["PATH"])
        return own | {"PATH": path, "HOME": self._places[_VOLUME]}

    def _placed(self, word: str) -> str:
        # In one pass and as whole words: a port here may hold another's digits.
        named = "|".join(re.escape(place) for place in self._places)
        return re.sub(rf"(?<!\w)({named})(?!\w)", lambda match: self._places[match[0]], word)


@contextmanager
def healthy(*containers: Container) -> Iterator[None]:
    """Start them and wait until all are healthy; then have them end as Docker does."""
    processes = [container.start() for container in containers]
    try:
        deadline = time.monotonic() + _WITHIN
        for container, process in zip(containers, processes, strict=True):
            while not container.is_healthy():
                assert process.poll() is None, "".join(process.communicate())
                assert time.monotonic() < deadline, "never healthy"
                time.sleep(0.5)
        yield
        for container, process in zip(containers, processes, strict=True):
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=container.grace.total_seconds())
            assert 0 == process.returncode, "".join(said)
            assert not container.is_healthy()
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def free_port() -> str:
    """Return a port that nobody has, and that no connection is given by chance meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return str(port)


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a user has after `make env`, and a namespace of this file's own."""
    file = tmp_path_factory.mktemp("env") / ".env"
    subprocess.run(["sh", ROOT / "deploy" / "env.sh", file], check=True, capture_output=True)
    return read_env_file(file) | {"TEMPORAL_NAMESPACE": f"box-{uuid.uuid4().hex[:8]}"}


@pytest.fixture(scope="module")
def places(
    temporal_server: EmbeddedTemporal,
    postgres_url: str,
    environ: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """What a container's words name, and what is named here instead."""
    ports = {inside: free_port() for inside in _PORTS}
    database = make_url(postgres_url)
    job = services(environ)["ledger"]
    subprocess.run(
        [word.replace("/deploy/", f"{ROOT}/deploy/") for word in job["command"]],
        env=job["environment"]
        | {"PGHOST": str(database.query["host"]), "PGUSER": str(database.username)}
        | {"PATH": f"{postgres_programs()}:{os.environ['PATH']}"},
        check=True,
    )
    return {
        "postgresql/runlane": f"/runlane?host={database.query['host']}",
        "temporal:7233": temporal_server.address,
        "http://simulator:8089": f"http://127.0.0.1:{ports['8089']}",
        "0.0.0.0": "127.0.0.1",
        "/opt/runlane/healthcheck.py": str(ROOT / "deploy" / "healthcheck.py"),
        "/opt/runlane/bin": _SCRIPTS,
        "/deploy": str(ROOT / "deploy"),
        _VOLUME: str(tmp_path_factory.mktemp("volume")),
        **ports,
    }


@pytest.fixture(scope="module")
def namespace(environ: dict[str, str], places: dict[str, str]) -> str:
    """The namespace, made by its job."""
    Container("namespace", environ, places).run()
    return environ["TEMPORAL_NAMESPACE"]


async def test_the_job_makes_the_namespace(
    namespace: str, client: Client, environ: dict[str, str], places: dict[str, str]
) -> None:
    """It remembers closed runs for 30 days and knows our attributes; again changes nothing."""
    asked = DescribeNamespaceRequest(namespace=namespace)
    described = await client.workflow_service.describe_namespace(asked)
    assert timedelta(days=30) == described.config.workflow_execution_retention_ttl.ToTimedelta()
    listed = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=namespace)
    )
    assert set(TYPES) == set(listed.custom_attributes)

    again = Container("namespace", environ | {"TEMPORAL_RETENTION": "1d"}, places).run()

    assert f"Namespace {namespace} exists." in again
    described = await client.workflow_service.describe_namespace(asked)
    assert timedelta(days=30) == described.config.workflow_execution_retention_ttl.ToTimedelta()


def test_the_job_says_why_it_fails(environ: dict[str, str], places: dict[str, str]) -> None:
    """Without a server it ends, with what Temporal's command said, after its tries."""
    nowhere = dict(places) | {"temporal:7233": f"127.0.0.1:{free_port()}"}
    job = Container("namespace", environ, nowhere)
    process = job.start("env", "TRIES=2", *job._command)

    _, complaint = process.communicate(timeout=_WITHIN)

    assert 0 != process.returncode
    assert "failed" in complaint.lower()


def test_the_services_serve_a_run(
    namespace: str, environ: dict[str, str], places: dict[str, str]
) -> None:
    """Simulator, worker, API and codec server become healthy, `cli` starts a run, and all end.

    The API asks for a token, which `cli` makes.
    """
    cli = Container("cli", environ, places)
    names = ("worker", "api", "codec-server", "simulator")
    with healthy(*(Container(name, environ, places) for name in names)):
        # Over 32 kB: it goes by way of the volume that clients and workers share.
        body = {"assistant_id": "asst_1", "instructions": "Be brief. " * 5_000}
        volume = Path(places[_VOLUME])
        (volume / "run.json").write_text(json.dumps(body))
        created = cli.run("create", "--thread", "thread_1", "--params", "run.json", "--json")
        run_id = json.loads(created)["id"]
        ended = cli.run("poll", run_id, "--timeout", "120s", "--json")

        assert "completed" == json.loads(ended)["status"]
        kept = [file.read_bytes() for file in (volume / "payloads").rglob("*") if file.is_file()]
        assert kept
        assert all(b"Be brief." not in content for content in kept)
        assert b"Be brief." in shown(run_id, environ, places)
        api = f"http://127.0.0.1:{places['8400']}/v1"
        named = ("--name", "ada", "--person", "ada", "--role", "admin")
        secret = json.loads(cli.run("token", "create", *named, "--json"))["token"]
        bearer = {"authorization": f"Bearer {secret}"}
        said = [httpx.get(f"{api}/stops", headers=each, trust_env=False) for each in ({}, bearer)]
        assert [401, 200] == [each.status_code for each in said]
        trail = cli.run("audit", "export", "--run", run_id)
        assert '"what":"created"' in trail


def shown(run_id: str, environ: Mapping[str, str], places: Mapping[str, str]) -> bytes:
    """Return what Temporal's command line shows of a run with the codec server's help."""
    command = [
        *(f"{_SCRIPTS}/temporal", "workflow", "show", "--workflow-id", run_id, "--output", "json"),
        *("--address", places["temporal:7233"], "--namespace", environ["TEMPORAL_NAMESPACE"]),
        *("--codec-endpoint", f"http://127.0.0.1:{places['8081']}"),
        *("--codec-auth", f"Bearer {environ['RUNLANE_CODEC_TOKEN']}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_WITHIN, check=True)
    payloads = re.findall(r'"data": "([A-Za-z0-9+/=]+)"', done.stdout)
    return b"".join(base64.b64decode(payload) for payload in payloads)


def test_a_client_without_a_command_is_helped(
    environ: dict[str, str], places: dict[str, str]
) -> None:
    """`docker compose run cli` alone shows what there is."""
    assert "create" in Container("cli", environ, places).run()
