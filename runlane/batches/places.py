"""Where the files of a batch lie: each in a directory that there is, and no two in one place."""

from collections.abc import Mapping
from pathlib import Path

from runlane.errors import InvalidRequest

INPUT = "INPUT"
"""The name of the one that is read; all others are written."""


def errors_path(output: Path) -> Path:
    """Return where failures go, where nobody says: `out.errors.jsonl` beside `out.jsonl`."""
    # `.` and `/` have no name, and are refused with the other directories.
    return output.parent / f"{output.name.removesuffix('.jsonl')}.errors.jsonl"


def check(places: Mapping[str, Path | None]) -> None:
    """Refuse places that can't be, before anything is read or written.

    Args:
        places: by the option or argument that names them.

    Raises:
        InvalidRequest: it names the option and the file.
    """
    named = [(option, path) for option, path in places.items() if path is not None]
    for number, (option, path) in enumerate(named):
        for other, before in named[:number]:
            if _are_one(path, before):
                text = f"{option} and {other} are one file, {path}: name another one for {option}."
                raise InvalidRequest(text, param=option)
        if option == INPUT:
            continue
        if path.is_dir():
            raise InvalidRequest(f"{option}: {path} is a directory. Name a file.", param=option)
        if not path.parent.is_dir():
            raise InvalidRequest(f"{option}: there is no directory {path.parent}.", param=option)


def _are_one(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        # One of them isn't there yet.
        return path.resolve() == other.resolve()
