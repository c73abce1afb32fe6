"""Whether the disk has room for what Temporal and the payload store still have to write."""

import shutil
from pathlib import Path

LEAST_BYTES = 50_000_000
"""Free bytes below which somebody should be told."""


def shortage(directory: Path, least: int = LEAST_BYTES) -> str | None:
    """Say how little room there is where a directory lies; nothing while there is enough."""
    try:
        free = shutil.disk_usage(directory).free
    except OSError:
        return None
    if free >= least:
        return None
    return f"{free / 1_000_000:,.1f} MB are free where {directory} lies"
