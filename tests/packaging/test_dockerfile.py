"""The Dockerfile, read: what it builds from, what it installs, who runs it and how."""

import fnmatch
import json
import re
import tomllib

from tests.containers import ROOT, dockerfile, services

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BUILD, IMAGE = dockerfile()


def copied() -> list[str]:
    """Return what is copied from the project."""
    lines = [rest for stage in dockerfile() for name, rest in stage.steps if name == "COPY"]
    return [
        source.rstrip("/")
        for line in lines
        if "--from=" not in line
        for source in line.split()[:-1]
    ]


def let_in() -> list[str]:
    """Return what `.dockerignore` lets through; everything else stays out."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert "*" == rules[0]
    return [rule[1:].rstrip("/") for rule in rules if rule.startswith("!")]


def installs() -> str:
    """Return the line that installs the product."""
    [line] = [rest for name, rest in BUILD.steps if name == "RUN" and "azure" in rest]
    return line


def test_the_base_is_pinned() -> None:
    """Both stages stand on one exact version, which the project supports."""
    assert BUILD.image == IMAGE.image
    version = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-[a-z]+", IMAGE.image)
    assert version
    assert "3.12" == version[1]


def test_what_is_copied_is_there_and_let_in() -> None:
    """Each source exists, and `.dockerignore` doesn't keep it out."""
    assert copied()
    for source in copied():
        assert (ROOT / source).exists(), source
        assert source in let_in(), source


def test_nothing_else_is_let_in() -> None:
    """No history, secret, environment or state gets into the build, whatever lies about."""
    assert set(copied()) == set(let_in())
    for never in (".git", ".env", ".venv", ".runlane", "worker.env", "secrets", "tests"):
        assert not any(fnmatch.fnmatch(never, rule) for rule in let_in())


def test_everything_that_is_shipped_is_copied() -> None:
    """Each package, and each file that the build reads, reaches it."""
    shipped = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    read = [PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]]

    assert {*shipped, *read, "pyproject.toml", "constraints.txt"} <= set(copied())


def test_only_pinned_versions_are_installed() -> None:
    """The builder and all dependencies have the versions that are tested, as wheels."""
    pips = [rest for _, rest in BUILD.steps if re.search(r"\bpip\b.* install\b", rest)]

    assert 2 == len(pips)
    for line in pips:
        assert "--constraint constraints.txt" in line
        assert "--only-binary :all:" in line


def test_every_extra_for_users_is_installed() -> None:
    """One image is for every upstream, store and collector."""
    named = re.search(r"\[([a-z0-9,]+)\]", installs())
    assert named
    extras = set(PROJECT["project"]["optional-dependencies"]) - {"dev"}

    assert extras == set(named[1].split(","))


def test_it_does_not_run_as_root() -> None:
    """The user is a number, so that a runtime can check that it isn't root."""
    user, _, group = IMAGE.last("USER").partition(":")

    assert int(user) >= 1000
    assert int(group) >= 1000
    assert f"--uid {user} " in IMAGE.last("RUN")
    # What comes after it would run as that user, and fail.
    after = [name for name, _ in IMAGE.steps][[n for n, _ in IMAGE.steps].index("USER") :]
    assert "RUN" not in after


def test_nothing_is_built_in_the_image() -> None:
    """The last stage takes what the first one made, and has no pip left."""
    assert "pip uninstall" in IMAGE.last("RUN")
    assert not any("install " in rest and "--directory" not in rest for _, rest in IMAGE.steps)
    [made] = [rest for name, rest in IMAGE.steps if name == "COPY" and "--from=" in rest]
    assert f"--from={BUILD.name} /opt/runlane /opt/runlane" == made


def test_signals_reach_the_worker() -> None:
    """Commands are in exec form, and start a command that there is; output isn't held back."""
    assert IMAGE.command("ENTRYPOINT") == ["runlane"]
    assert ["worker"] == IMAGE.command("CMD")
    assert "runlane" in PROJECT["project"]["scripts"]
    assert "1" == IMAGE.environment()["PYTHONUNBUFFERED"]


def test_compose_asks_for_health_as_the_image_does() -> None:
    """A worker's health is looked at in one way, on the port where it is served."""
    check = IMAGE.last("HEALTHCHECK")
    command = re.sub(r"^.*\bCMD ", "", check)
    names = (
        "POSTGRES_PASSWORD",
        "LEDGER_PASSWORD",
        "RUNLANE_ENCRYPTION_KEYS",
        "RUNLANE_CODEC_TOKEN",
    )
    environ = dict.fromkeys(names, "-")
    worker = services(environ | {"RUNLANE_UPSTREAM_URL": "-"})["worker"]["healthcheck"]

    assert worker["test"] == ["CMD", *json.loads(command)]
    port = IMAGE.environment()["RUNLANE_METRICS_ADDRESS"].rpartition(":")[2]
    assert [port, "/healthz"] == worker["test"][-2:]
    assert port == IMAGE.last("EXPOSE")
    for option in ("interval", "timeout", "retries"):
        assert f"--{option}={worker[option]} " in check
    assert f"--start-period={worker['start_period']} " in check
