"""The command line: `runlane`. Its words, options and exit codes are what scripts rely on."""

import sys
import time
from typing import NoReturn

__all__ = ["STARTED", "main"]

STARTED = time.monotonic()
"""When this process began, as nearly as a module can know."""


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    # Deferred, so that importing the package for its names costs nothing.
    from runlane.cli.app import run  # noqa: PLC0415
    from runlane.leaving import leave  # noqa: PLC0415

    leave(run(sys.argv[1:]))
