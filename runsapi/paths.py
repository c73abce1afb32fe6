"""Paths whose ids can't lead anywhere else."""

import re
from urllib.parse import quote

from runsapi.errors import InvalidParameter
from runsapi.limits import MAX_ID

SEPARATORS = "/\\?#%"
"""What would lead elsewhere, or could be read so by a proxy on the way, percent-encoded too."""

_PLAIN = re.compile(rf"[!-~]{{1,{MAX_ID}}}")


def is_segment(id: str) -> bool:
    """Whether an id is one segment of a path for everybody who may read it."""
    plain = _PLAIN.fullmatch(id) is not None and id not in (".", "..")
    return plain and not any(separator in id for separator in SEPARATORS)


def path(*parts: str, **ids: str) -> str:
    """A path in which every id is one segment, whatever stands in it.

    Args:
        *parts: The segments; one that is a key of ``ids`` stands for that id.
        **ids: The ids by the names their parameters have.

    Raises:
        InvalidParameter: An id is empty, longer than 255 characters, or no segment at all.
    """
    return "".join(f"/{_segment(part, ids[part]) if part in ids else part}" for part in parts)


def _segment(name: str, value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_ID:
        raise InvalidParameter(param=name, message=f"{name} must have 1 to {MAX_ID} characters")
    # A proxy resolves dot segments before the server sees them, percent-encoded ones too.
    if value in (".", ".."):
        raise InvalidParameter(param=name, message=f"{name} must not be a dot segment")
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:
        raise InvalidParameter(param=name, message=f"{name} must be UTF-8 text") from None
