"""`docker-compose.yml` and `Dockerfile` as Docker reads them; no engine is needed."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
OURS = "runlane:"
"""What the images start with that our Dockerfile builds."""

_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?:(?P<how>:[-?])(?P<word>[^}]*))?\})")


class Unset(Exception):
    """A variable that must be set is not; the message is what Compose would print."""


def interpolated(value: Any, environ: Mapping[str, str]) -> Any:
    """Return a part of a Compose file with its `${…}` replaced.

    Raises:
        Unset: `${NAME:?message}`, and it is unset or empty.
    """
    if isinstance(value, dict):
        return {key: interpolated(item, environ) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item, environ) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        found = environ.get(match["name"], "")
        if not found and match["how"] == ":?":
            raise Unset(f"{match['name']} {match['word']}")
        return found or (match["word"] if match["how"] == ":-" else "")

    replaced = _VARIABLE.sub(replace, value)
    assert "${" not in replaced, f"a form that this reader doesn't know: {value}"
    return replaced


@cache
def compose_text() -> Any:
    """Return the Compose file as it is written, its anchors resolved."""
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def services(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the services, interpolated, with variables that have no value taken from `environ`.

    Raises:
        Unset: a variable that must be set is not.
    """
    found: dict[str, dict[str, Any]] = interpolated(compose_text(), environ)["services"]
    for service in found.values():
        service["environment"] = {
            name: environ[name] if value is None else value
            for name, value in service.get("environment", {}).items()
            if value is not None or name in environ
        }
    return found


def variables() -> set[str]:
    """Return the names of all variables that the Compose file takes from outside."""
    text = (ROOT / "docker-compose.yml").read_text()
    passed_on = {
        name
        for service in compose_text()["services"].values()
        for name, value in service.get("environment", {}).items()
        if value is None
    }
    return passed_on | {match["name"] for match in _VARIABLE.finditer(text) if match["name"]}


def read_env_file(path: Path) -> dict[str, str]:
    """Return what a `.env` of plain `NAME=value` lines says."""
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    return dict(line.split("=", 1) for line in lines)


@dataclass
class Stage:
    """One `FROM` of a Dockerfile, and what follows it."""

    image: str
    name: str | None = None
    steps: list[tuple[str, str]] = field(default_factory=list)
    """Instruction and rest of the line; lines that go on are joined."""

    def last(self, instruction: str) -> str:
        """Return the rest of the last such instruction."""
        return [rest for name, rest in self.steps if name == instruction][-1]

    def command(self, instruction: str) -> list[str]:
        """Return the words of a command in exec form."""
        words: list[str] = json.loads(self.last(instruction))
        return words

    def environment(self) -> dict[str, str]:
        """Return what its `ENV` set."""
        words = [w for name, rest in self.steps if name == "ENV" for w in shlex.split(rest)]
        return dict(word.split("=", 1) for word in words)


@cache
def dockerfile() -> list[Stage]:
    """Return the stages of the Dockerfile; the last one is the image."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    stages: list[Stage] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        instruction, rest = line.split(maxsplit=1)
        if instruction == "FROM":
            image, *alias = rest.split()
            stages.append(Stage(image, alias[1] if alias else None))
        else:
            stages[-1].steps.append((instruction, rest))
    return stages
