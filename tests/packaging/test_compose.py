"""The Compose file: valid, pinned, closed to the outside, and at one with what it starts."""

import re
import shlex
import subprocess
import sysconfig
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

import worker
from runlane.cli.app import app
from runlane.durations import parse_duration
from runlane.search_attributes import TYPES, commands
from runlane.settings import Settings
from tests.containers import OURS, ROOT, Unset, compose_text, dockerfile, services, variables

REQUIRED = {
    "POSTGRES_PASSWORD": "one",
    "LEDGER_PASSWORD": "four",
    "RUNLANE_ENCRYPTION_KEYS": "two",
    "RUNLANE_CODEC_TOKEN": "three",
    "RUNLANE_UPSTREAM_URL": "http://simulator:8089/v1",
}
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
SERVICES = sorted(compose_text()["services"])
# They end by themselves.
JOBS = {"schema", "ledger", "namespace", "cli"}


def service(name: str) -> dict[str, Any]:
    """Return one service as it is with the least that must be set."""
    return services(REQUIRED)[name]


def complaints(file: Path) -> str:
    """Return what the Compose specification's own JSON schema finds; empty: nothing."""
    checker = Path(sysconfig.get_path("scripts")) / "check-jsonschema"
    command = [str(checker), "--builtin-schema", "vendor.compose-spec", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_it_follows_the_specification(tmp_path: Path) -> None:
    """The Compose specification has nothing to find, which finds a slip where there is one."""
    assert "" == complaints(ROOT / "docker-compose.yml")

    (tmp_path / "docker-compose.yml").write_text("services: {one: {imaje: none}}")
    assert "imaje" in complaints(tmp_path / "docker-compose.yml")


OVERRIDES = re.findall(r"^```yaml\n(.*?)^```$", OPERATIONS, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("shown", OVERRIDES)
def test_an_override_that_is_shown_fits(shown: str, tmp_path: Path) -> None:
    """What the operations page has users write is valid, and changes services that there are."""
    (tmp_path / "docker-compose.override.yml").write_text(shown)

    assert "" == complaints(tmp_path / "docker-compose.override.yml")
    override = yaml.safe_load(shown)["services"]
    assert set(override) <= set(SERVICES)
    assert set(override["worker"]["environment"]) <= set(service("worker")["environment"]) | {
        "PYTHONPATH",
        "RUNLANE_UPSTREAM_API_KEY",
        "RUNLANE_UPSTREAM_API_KEY_FILE",
    }


def test_the_commands_that_are_shown_fit() -> None:
    """A `docker compose` line names services and profiles that there are, and our commands."""
    pages = OPERATIONS + (ROOT / "README.md").read_text()
    lines = re.findall(r"\bdocker compose ([^`\n|]+)", pages)
    assert lines
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for line in lines:
        words = shlex.split(line, comments=True)
        for option, value in pairwise(words):
            if option == "--profile":
                assert value in {p for s in SERVICES for p in service(s).get("profiles", [])}
            if option == "--scale":
                assert value.partition("=")[0] in SERVICES
        if words[0] in {"run", "exec", "logs"}:
            [name, *_] = [word for word in words[1:] if word in SERVICES]
            if name == "cli" and words[-1] not in {"cli", "…"}:
                assert words[words.index("cli") + 1] in known


def test_the_page_registers_what_lists_need() -> None:
    """The commands for a Temporal of one's own, and for Cloud, are those that a worker prints."""
    own, cloud = commands("NAMESPACE")

    assert own in OPERATIONS
    assert cloud.replace("NAMESPACE", "NAMESPACE.ACCOUNT") in OPERATIONS


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_no_secret_has_a_default(name: str) -> None:
    """Without a secret nothing starts, and the message says how to come by one."""
    rest = {other: value for other, value in REQUIRED.items() if other != name}

    with pytest.raises(Unset, match=f"^{name} is not set. Run make env"):
        services(rest)


def test_no_password_stands_in_the_file() -> None:
    """What is named like a secret has its value from outside."""
    for name, service in compose_text()["services"].items():
        for variable, value in (service.get("environment") or {}).items():
            if re.search(r"PASSWORD|PWD|TOKEN|SECRET|KEY", variable):
                assert value is None or re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), (name, variable)


def test_every_variable_is_explained() -> None:
    """A variable that the file reads stands in the README's table or in that of the operations."""
    pages = (ROOT / "README.md").read_text() + OPERATIONS
    told = set(re.findall(r"^\| `(\w+)` \|", pages, re.MULTILINE))

    assert set() == variables() - told


def test_every_setting_of_a_worker_can_be_made() -> None:
    """What the environment can say to Runlane, it can say to a container of ours."""
    read = set(re.findall(r"\bRUNLANE_[A-Z0-9_]+\b", Settings.__doc__ or ""))
    in_image = set(dockerfile()[-1].environment())
    # In a container, keys come from `.env`, or in files that one's own override file mounts.
    files = {name for name in read if name.endswith("_FILE")}

    given = {name for found in services(REQUIRED).values() for name in found["environment"]}

    assert read - files <= variables() | in_image | given


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned(name: str) -> None:
    """An image has an exact version; ours has the project's and is built here."""
    image, _, tag = service(name)["image"].partition(":")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert re.match(r"\d+\.\d+(\.\d+)?(-|$)", tag), tag
    if f"{image}:" == OURS:
        assert project["version"] == tag
        assert "." == service(name)["build"]


def test_one_version_of_temporal() -> None:
    """The databases' schema is that of the server that uses them."""
    tags = {service(name)["image"].partition(":")[2] for name in ("schema", "temporal")}

    assert 1 == len(tags)


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_to_this_machine_alone(name: str) -> None:
    """Nothing listens on an address that another machine reaches."""
    for port in service(name).get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)


@pytest.mark.parametrize("name", SERVICES)
def test_containers_have_few_rights(name: str) -> None:
    """No root, no new rights, no capabilities, nothing of the image can be written."""
    found = service(name)

    assert ["ALL"] == found["cap_drop"]
    assert ["no-new-privileges:true"] == found["security_opt"]
    assert found["read_only"] is True
    assert not {"privileged", "cap_add", "pid", "ipc", "network_mode"} & set(found)
    assert all("docker.sock" not in volume for volume in found.get("volumes", []))
    # Temporal's images name a user of their own, ours is looked at in test_dockerfile.py.
    if found["image"].startswith("postgres:"):
        assert not found["user"].startswith(("0", "root"))


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_fills_the_disk_or_stays_down(name: str) -> None:
    """Logs are rotated; what runs is started again, and looked after."""
    found = service(name)

    assert {"max-size", "max-file"} == set(found["logging"]["options"])
    if name in JOBS:
        assert found["restart"] in {"on-failure:3", "no"}
    else:
        assert "unless-stopped" == found["restart"]
        assert "CMD" == found["healthcheck"]["test"][0]


@pytest.mark.parametrize("name", SERVICES)
def test_each_waits_for_what_it_needs(name: str) -> None:
    """A dependency is waited for until it is healthy, or done if it is a job."""
    for other, how in service(name).get("depends_on", {}).items():
        done = "service_completed_successfully" if other in JOBS else "service_healthy"
        assert done == how["condition"]
        # What stands in a profile is there only with it.
        assert ("profiles" not in service(other)) is how.get("required", True)


def test_workers_can_be_scaled() -> None:
    """`--scale worker=3` works: no name and no port that only one can have."""
    assert not {"container_name", "ports", "hostname"} & set(service("worker"))


def test_a_worker_has_the_time_that_it_takes_to_end() -> None:
    """Docker kills a worker only after its own grace, with some seconds to spare."""
    given = parse_duration(service("worker")["stop_grace_period"])

    assert given >= worker.GRACE + worker.MARGIN + parse_duration("5s")


def test_clients_and_workers_have_one_store_and_one_key() -> None:
    """What a client writes, a worker can read."""
    client, serving = service("cli"), service("worker")

    assert serving["volumes"] == client["volumes"]
    assert serving["environment"].items() <= client["environment"].items()
    assert serving["environment"].items() <= service("api")["environment"].items()
    assert serving["volumes"] == service("api")["volumes"]
    [mount] = serving["volumes"]
    assert dockerfile()[-1].environment()["RUNLANE_DATA_DIR"] == mount.partition(":")[2]


def test_the_database_is_reached_by_those_who_need_it() -> None:
    """The ledger's role gets into no other database (see `test_services`)."""
    inside = {name for name in SERVICES if "database" in service(name).get("networks", [])}

    ours = {"worker", "api", "cli"}
    assert {"postgresql", "schema", "temporal", "ledger", *ours} == inside
    passwords = {name: str(service(name)["environment"]) for name in ours}
    assert all(REQUIRED["POSTGRES_PASSWORD"] not in said for said in passwords.values())
    assert ["database"] == service("postgresql")["networks"]
    assert compose_text()["networks"]["database"]["internal"] is True


def test_the_job_registers_what_lists_need() -> None:
    """The script names the search attributes that the code names, with their types."""
    script = (ROOT / "deploy" / "namespace.sh").read_text()

    assert dict(TYPES) == dict(re.findall(r"\b(Runlane\w+)=(\w+)", script))


def test_a_closed_run_is_remembered_for_a_month() -> None:
    """As long as an idempotency key is, without anybody having said so."""
    assert "30d" == service("namespace")["environment"]["TEMPORAL_RETENTION"]


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_exists(name: str) -> None:
    """A file of ours that a container names is there; volumes are declared."""
    found = service(name)
    words = [*found.get("command", []), *found["environment"].values()]
    for source, target, *_ in (volume.split(":") for volume in found.get("volumes", [])):
        if not source.startswith("./"):
            assert source in compose_text()["volumes"]
            continue
        named = [word.removeprefix(f"{target}/") for word in words if word.startswith(f"{target}/")]
        assert named
        assert all((ROOT / source / path).is_file() for path in named)
