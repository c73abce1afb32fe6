"""Modules and functions found by the names under which they were configured."""

import sys
import traceback
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from runlane.errors import InvalidTool, RunlaneError

_SHOWN = 300


def module(name: str, *, named_in: str) -> ModuleType:
    """Import a module, installed or in the working directory.

    Raises:
        InvalidTool: it can't be imported; the message names it, and says why and where.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        # Last: what is installed is never hidden by a file that happens to lie here.
        sys.path.append(here)
    try:
        return import_module(name)
    except (Exception, SystemExit) as error:
        text = f"{named_in}: can't import {name}: {_reason(error)}"
        raise InvalidTool(text, param=named_in) from None


def function(path: str, *, named_in: str) -> Any:
    """Return what `module:name` names.

    Raises:
        InvalidTool: the module can't be imported, or has no such name.
    """
    home, _, name = path.partition(":")
    found = getattr(module(home, named_in=named_in), name, None)
    if found is None:
        raise InvalidTool(f"{named_in}: there is no {name} in {home}.", param=named_in)
    return found


def _reason(error: BaseException) -> str:
    name = type(error).__name__
    if isinstance(error, RunlaneError):
        return error.message
    if isinstance(error, ImportError | SyntaxError):
        text = f"{name}: {error}"[:_SHOWN].rstrip(".")
    else:
        # Its own words may hold what the module has read, a key for instance.
        text = name
    frames = traceback.extract_tb(error.__traceback__)
    # The first frame is ours, and so are those of the machinery that imports.
    theirs = [frame for frame in frames[1:] if "importlib" not in frame.filename]
    place = f" ({theirs[-1].filename}:{theirs[-1].lineno})" if theirs else ""
    return f"{text}{place}."
