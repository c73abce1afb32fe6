import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {
        canonicalize_name(name): version for name, _, version in (s.partition("==") for s in lines)
    }


def _needed(requirements: list[str]) -> set[str]:
    """All distributions that these requirements bring into this environment."""
    needed: set[tuple[str, str]] = set()
    todo = [(Requirement(text), "") for text in requirements]
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in {"", *requirement.extras}:
            if (name, wanted) in needed:
                continue
            needed.add((name, wanted))
            todo += [(Requirement(r), wanted) for r in distribution(name).requires or []]
    return {name for name, _ in needed}


def test_every_dependency_is_pinned() -> None:
    """Whatever the dependencies and extras bring along has its exact version, and nothing else."""
    extras = PROJECT["optional-dependencies"]
    requirements = PROJECT["dependencies"] + [r for extra in extras.values() for r in extra]

    assert _needed(requirements) == set(_pins())


def test_this_environment_is_the_pinned_one() -> None:
    """The tests run on the versions that are pinned, not on what happened to be there."""
    pins = _pins()

    assert pins == {name: distribution(name).version for name in pins}


def test_pins_are_exact_and_name_no_host() -> None:
    """A constraint is a name and a version: the registry is the machine's affair."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+", line)


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt", "Makefile", ".ci/run"])
def test_no_build_file_names_a_url(name: str) -> None:
    """Nothing that installs anything says from where."""
    assert "://" not in (ROOT / name).read_text()


def test_the_changelog_has_the_version() -> None:
    """The version being built has its entry in the changelog, on top."""
    versions = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert PROJECT["version"] == next(v for v in versions if v != "Unreleased")


def test_ci_is_what_contributors_call() -> None:
    """CI calls the two targets and nothing else."""
    lines = (ROOT / ".ci" / "run").read_text().splitlines()

    assert ["make check", "make test"] == [line for line in lines if line.startswith("make ")]
