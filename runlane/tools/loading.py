"""The tools that a process's settings name, as one registry."""

import os
from collections.abc import Iterator, Mapping

from runlane.errors import InvalidTool
from runlane.settings import Settings
from runlane.tools import importing
from runlane.tools.declared import DEFAULT_FILE, read_file
from runlane.tools.functions import tool_of
from runlane.tools.registry import Registry
from runlane.tools.tool import Tool

_VARIABLE = "RUNLANE_TOOLS"


def load(settings: Settings, environ: Mapping[str, str] = os.environ) -> Registry:
    """Import the modules of `RUNLANE_TOOLS`, read `runlane.toml`, and register what they declare.

    A tool that a module imports from another one is registered as well, once.

    Args:
        settings: which modules, and which file.
        environ: where HTTP tools find the variables that they refer to.

    Raises:
        InvalidTool: a module can't be imported or has no tool, the file can't be used, or two tools
            have one name.
    """
    return Registry([*_from_modules(settings), *_from_file(settings, environ)])


def _from_modules(settings: Settings) -> Iterator[Tool]:
    for name in settings.tools:
        module = importing.module(name, named_in=_VARIABLE)
        found = [tool for tool in map(tool_of, list(vars(module).values())) if tool is not None]
        if not found:
            text = (
                f"{_VARIABLE}: there is no tool in {name}: put @runlane.tool above its functions."
            )
            raise InvalidTool(text, param=_VARIABLE)
        yield from found


def _from_file(settings: Settings, environ: Mapping[str, str]) -> Iterator[Tool]:
    if settings.config_file is not None:
        yield from read_file(settings.config_file, environ)
    elif DEFAULT_FILE.exists():
        yield from read_file(DEFAULT_FILE, environ)
